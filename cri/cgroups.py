"""Reading usage from cgroup files, version 1 and 2. Blocking file reads of a few microseconds each."""

import re
from pathlib import Path

import msgspec

ROOT = Path("/sys/fs/cgroup")
_PROC_CGROUP = re.compile(r"^\d+:([^:]*):(.*)$")


class Usage(msgspec.Struct, kw_only=True):
    """What a cgroup has used; None where the kernel does not say."""

    cpu_nanoseconds: int | None = None
    memory_usage: int | None = None
    memory_working_set: int | None = None
    memory_rss: int | None = None
    memory_limit: int | None = None
    page_faults: int | None = None
    major_page_faults: int | None = None
    swap_usage: int | None = None
    swap_available: int | None = None
    processes: int | None = None


def paths_of(pid: int) -> dict[str, Path]:
    """The cgroup directories of a process: by controller on version 1, under "" on version 2."""
    result: dict[str, Path] = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines():
        match = _PROC_CGROUP.match(line)
        if not match:
            continue
        controllers, path = match.groups()
        if not controllers:
            if (ROOT / "cgroup.controllers").exists():
                result[""] = ROOT / path.lstrip("/")
            continue
        for name in controllers.split(","):
            directory = ROOT / name.removeprefix("name=")
            result[name] = directory / path.lstrip("/")
    return result


def paths_below(parent: str) -> dict[str, Path]:
    """The directories of a cgroup by its path (a pod's, which holds no process of its own)."""
    relative = parent.strip("/")
    if (ROOT / "cgroup.controllers").exists():
        return {"": ROOT / relative}
    return {name: ROOT / name / relative for name in ("cpuacct", "memory", "pids")}


def read(paths: dict[str, Path]) -> Usage:
    return _read_v2(paths[""]) if "" in paths else _read_v1(paths)


def number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
        return int(text) if text.isdigit() else None
    except OSError:
        return None


def table(path: Path) -> dict[str, int]:
    try:
        pairs = (line.split() for line in path.read_text(encoding="ascii").splitlines())
        return {fields[0]: int(fields[1]) for fields in pairs if len(fields) == 2 and fields[1].isdigit()}
    except OSError:
        return {}


def _working_set(usage: int | None, inactive_file: int | None) -> int | None:
    """Memory that can't simply be dropped: usage without the inactive part of the page cache (as cAdvisor has it)."""
    return None if usage is None else max(0, usage - (inactive_file or 0))


def _read_v1(paths: dict[str, Path]) -> Usage:
    memory = paths.get("memory", Path("/nonexistent"))
    stat = table(memory / "memory.stat")
    usage = number(memory / "memory.usage_in_bytes")
    both = number(memory / "memory.memsw.usage_in_bytes")
    limit = number(memory / "memory.limit_in_bytes")
    return Usage(
        cpu_nanoseconds=number(paths.get("cpuacct", Path("/nonexistent")) / "cpuacct.usage"),
        memory_usage=usage,
        memory_working_set=_working_set(usage, stat.get("total_inactive_file")),
        memory_rss=stat.get("total_rss"),
        # "No limit" is the largest multiple of the page size.
        memory_limit=limit if limit is not None and limit < 1 << 62 else None,
        page_faults=stat.get("total_pgfault"),
        major_page_faults=stat.get("total_pgmajfault"),
        swap_usage=max(0, both - usage) if both is not None and usage is not None else None,
        processes=number(paths.get("pids", Path("/nonexistent")) / "pids.current"),
    )


def _read_v2(path: Path) -> Usage:
    stat = table(path / "memory.stat")
    usage = number(path / "memory.current")
    microseconds = table(path / "cpu.stat").get("usage_usec")
    swap, swap_max = number(path / "memory.swap.current"), number(path / "memory.swap.max")
    return Usage(
        cpu_nanoseconds=microseconds * 1000 if microseconds is not None else None,
        memory_usage=usage,
        memory_working_set=_working_set(usage, stat.get("inactive_file")),
        memory_rss=stat.get("anon"),
        memory_limit=number(path / "memory.max"),
        page_faults=stat.get("pgfault"),
        major_page_faults=stat.get("pgmajfault"),
        swap_usage=swap,
        swap_available=swap_max - swap if swap is not None and swap_max is not None else None,
        processes=number(path / "pids.current"),
    )


def oom_kills_below(paths: dict[str, Path]) -> int | None:
    """How often the kernel killed in a cgroup for lack of memory; None where it does not count."""
    if "memory" in paths:
        return table(paths["memory"] / "memory.oom_control").get("oom_kill")
    return table(paths[""] / "memory.events").get("oom_kill") if "" in paths else None


def interface_fields(text: str) -> dict[str, list[int]]:
    """The counters of each interface, from a /proc/…/net/dev file's text."""
    result: dict[str, list[int]] = {}
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        fields = rest.split()
        if colon and len(fields) >= 12:
            result[name.strip()] = [int(field) for field in fields]
    return result


def interfaces(text: str) -> dict[str, tuple[int, int, int, int]]:
    """(rx bytes, rx errors, tx bytes, tx errors) by interface, from a /proc/…/net/dev file's text."""
    return {name: (f[0], f[2], f[8], f[10]) for name, f in interface_fields(text).items()}
