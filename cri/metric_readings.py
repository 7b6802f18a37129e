"""What the kernel tells of one container beyond its plain usage, on cgroup version 1 and 2. Blocking file reads."""

import os
from pathlib import Path

import msgspec

from cri import cgroups

_NOWHERE = Path("/nonexistent")
_TICKS = os.sysconf("SC_CLK_TCK")
# Names that cAdvisor gives to the limits that it reports.
_LIMITS = {"Max open files": "max_open_files"}


class BlockDevice(msgspec.Struct, kw_only=True):
    """What a container read from and wrote to one block device."""

    device: str
    major: int
    minor: int
    read_bytes: int = 0
    written_bytes: int = 0
    reads: int = 0
    writes: int = 0


class Disk(msgspec.Struct):
    """A file system."""

    device: str
    bytes_total: int
    inodes_total: int
    inodes_free: int


class Readings(msgspec.Struct, kw_only=True):
    """None where the kernel does not say."""

    cgroup: str = ""
    usage: cgroups.Usage
    cpu_user_ns: int | None = None
    cpu_system_ns: int | None = None
    cpu_periods: int | None = None
    cpu_throttled_periods: int | None = None
    cpu_throttled_ns: int | None = None
    memory_cache: int | None = None
    memory_failures: int | None = None
    memory_kernel: int | None = None
    memory_mapped: int | None = None
    memory_peak: int | None = None
    memory_swap: int | None = None
    oom_kills: int | None = None
    processes: int | None = None
    threads: int | None = None
    threads_max: int | None = None
    """0 for any number."""
    descriptors: int | None = None
    sockets: int | None = None
    soft_limits: dict[str, int] = {}
    hugepages: dict[str, tuple[int, int]] = {}
    """(now, at most so far) by page size."""
    pressure_us: dict[tuple[str, str], int] = {}
    """By resource and `some` or `full`."""
    block_io: list[BlockDevice] = []


def gather(pid: int) -> Readings | None:
    """The readings of the container whose first process this is; None when it has ended."""
    try:
        paths = cgroups.paths_of(pid)
    except OSError:
        return None
    v2 = "" in paths and "memory" not in paths
    readings = _v2(paths[""]) if v2 else _v1(paths)
    directory = paths[""] if v2 else paths.get("pids", paths.get("memory", _NOWHERE))
    readings.cgroup = "/" + str(directory.relative_to(cgroups.ROOT) if v2 else _below_controller(directory))
    pids = _numbers(directory / "cgroup.procs")
    readings.processes = len(pids)
    readings.threads = len(_numbers(directory / ("cgroup.threads" if v2 else "tasks")))
    readings.threads_max = cgroups.number(directory / "pids.max") or 0
    readings.descriptors, readings.sockets = _descriptors(pids)
    readings.soft_limits = _soft_limits(pid)
    return readings


def _below_controller(directory: Path) -> str:
    return "/".join(directory.relative_to(cgroups.ROOT).parts[1:])


def _v1(paths: dict[str, Path]) -> Readings:
    memory, cpu = paths.get("memory", _NOWHERE), paths.get("cpu", _NOWHERE)
    stat, times, throttling = (
        cgroups.table(memory / "memory.stat"),
        cgroups.table(paths.get("cpuacct", _NOWHERE) / "cpuacct.stat"),
        cgroups.table(cpu / "cpu.stat"),
    )
    return Readings(
        usage=cgroups.read(paths),
        cpu_user_ns=_ticks(times.get("user")),
        cpu_system_ns=_ticks(times.get("system")),
        cpu_periods=throttling.get("nr_periods"),
        cpu_throttled_periods=throttling.get("nr_throttled"),
        cpu_throttled_ns=throttling.get("throttled_time"),
        memory_cache=stat.get("total_cache"),
        memory_failures=cgroups.number(memory / "memory.failcnt"),
        memory_kernel=cgroups.number(memory / "memory.kmem.usage_in_bytes"),
        memory_mapped=stat.get("total_mapped_file"),
        memory_peak=cgroups.number(memory / "memory.max_usage_in_bytes"),
        memory_swap=stat.get("total_swap", 0),
        oom_kills=cgroups.table(memory / "memory.oom_control").get("oom_kill"),
        hugepages=_hugepages(paths.get("hugetlb", _NOWHERE), "usage_in_bytes", "max_usage_in_bytes"),
        block_io=_block_io_v1(paths.get("blkio", _NOWHERE)),
    )


def _v2(path: Path) -> Readings:
    stat, cpu, events = (cgroups.table(path / f"{name}") for name in ("memory.stat", "cpu.stat", "memory.events"))
    return Readings(
        usage=cgroups.read({"": path}),
        cpu_user_ns=_microseconds(cpu.get("user_usec")),
        cpu_system_ns=_microseconds(cpu.get("system_usec")),
        cpu_periods=cpu.get("nr_periods"),
        cpu_throttled_periods=cpu.get("nr_throttled"),
        cpu_throttled_ns=_microseconds(cpu.get("throttled_usec")),
        memory_cache=stat.get("file"),
        memory_failures=events.get("max"),
        memory_kernel=stat.get("kernel", stat.get("kernel_stack")),
        memory_mapped=stat.get("file_mapped"),
        # memory.peak came with Linux 5.19.
        memory_peak=cgroups.number(path / "memory.peak") or cgroups.number(path / "memory.current"),
        memory_swap=cgroups.number(path / "memory.swap.current"),
        oom_kills=events.get("oom_kill"),
        hugepages=_hugepages(path, "current", "max"),
        pressure_us=_pressure(path),
        block_io=block_io_v2(_text(path / "io.stat")),
    )


def _ticks(value: int | None) -> int | None:
    return None if value is None else value * 1_000_000_000 // _TICKS


def _microseconds(value: int | None) -> int | None:
    return None if value is None else value * 1000


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""


def _numbers(path: Path) -> list[int]:
    return [int(word) for word in _text(path).split() if word.isdigit()]


def _descriptors(pids: list[int]) -> tuple[int, int]:
    """(open descriptors, sockets among them) of these processes."""
    count = sockets = 0
    for pid in pids:
        try:
            with os.scandir(f"/proc/{pid}/fd") as entries:
                for entry in entries:
                    count += 1
                    try:
                        sockets += os.readlink(entry.path).startswith("socket:")
                    except OSError:
                        continue
        except OSError:
            continue
    return count, sockets


def _soft_limits(pid: int) -> dict[str, int]:
    found = {}
    for line in _text(Path(f"/proc/{pid}/limits")).splitlines():
        for title, name in _LIMITS.items():
            if line.startswith(title):
                soft = line[len(title) :].split()[0]
                if soft.isdigit():
                    found[name] = int(soft)
    return found


def _hugepages(directory: Path, current: str, peak: str) -> dict[str, tuple[int, int]]:
    found = {}
    for file in directory.glob(f"hugetlb.*.{current}"):
        size = file.name.split(".")[1]
        if "rsvd" not in file.name:
            value = cgroups.number(file) or 0
            found[size] = (value, cgroups.number(directory / f"hugetlb.{size}.{peak}") or value)
    return found


def _pressure(path: Path) -> dict[tuple[str, str], int]:
    """Microseconds stalled (Documentation/accounting/psi.rst)."""
    found = {}
    for what in ("cpu", "memory", "io"):
        for line in _text(path / f"{what}.pressure").splitlines():
            kind, *fields = line.split()
            totals = [field.removeprefix("total=") for field in fields if field.startswith("total=")]
            if totals and totals[0].isdigit():
                found[what, kind] = int(totals[0])
    return found


def block_io_v2(text: str) -> list[BlockDevice]:
    """From io.stat: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`."""
    found = []
    for line in text.splitlines():
        number, *fields = line.split()
        major, _, minor = number.partition(":")
        values = {key: int(value) for key, _, value in (f.partition("=") for f in fields) if value.isdigit()}
        if values and major.isdigit() and minor.isdigit():
            found.append(
                BlockDevice(
                    device=_device_name(int(major), int(minor)),
                    major=int(major),
                    minor=int(minor),
                    read_bytes=values.get("rbytes", 0),
                    written_bytes=values.get("wbytes", 0),
                    reads=values.get("rios", 0),
                    writes=values.get("wios", 0),
                )
            )
    return found


def _block_io_v1(directory: Path) -> list[BlockDevice]:
    return block_io_v1(*(_recursive(directory, name) for name in ("io_service_bytes", "io_serviced")))


def _recursive(directory: Path, name: str) -> str:
    base = f"blkio.throttle.{name}"
    return _text(directory / f"{base}_recursive") or _text(directory / base)


def block_io_v1(sizes: str, counts: str) -> list[BlockDevice]:
    """From the throttle files: `8:0 Read 4096`, a line an operation."""
    found: dict[str, BlockDevice] = {}
    for text, fields in ((sizes, ("read_bytes", "written_bytes")), (counts, ("reads", "writes"))):
        for line in text.splitlines():
            words = line.split()
            if len(words) != 3 or words[1] not in ("Read", "Write"):
                continue
            major, _, minor = words[0].partition(":")
            item = found.get(words[0])
            if item is None:
                name = _device_name(int(major), int(minor))
                item = found[words[0]] = BlockDevice(device=name, major=int(major), minor=int(minor))
            setattr(item, fields[words[1] == "Write"], int(words[2]))
    return list(found.values())


def _device_name(major: int, minor: int) -> str:
    """`/dev/sda` by its numbers; what sysfs does not know keeps an empty name."""
    try:
        return "/dev/" + os.path.basename(os.readlink(f"/sys/dev/block/{major}:{minor}"))
    except OSError:
        return ""


def disk(directory: str) -> Disk:
    """The file system below a directory. Raises OSError."""
    info, device = os.statvfs(directory), os.stat(directory).st_dev
    name = _device_name(os.major(device), os.minor(device))
    return Disk(name, info.f_blocks * info.f_frsize, info.f_files, info.f_ffree)
