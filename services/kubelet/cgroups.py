"""The cgroup tree of pods, on cgroup v1 (one tree a controller) and v2 (one tree):

    <root>/kubepods                      everything of Kubernetes on this node
    ├── pod<uid>                         a Guaranteed pod
    ├── burstable/pod<uid>
    └── besteffort/pod<uid>

With the systemd driver the same tree is slices, `kubepods-burstable-pod<uid>.slice`, made by systemd through the
runtime.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

from lightkube.models import core_v1

from machinery.component import logs
from services.kubelet import qos

log = logs.get("kubelet")

MOUNT = Path("/sys/fs/cgroup")
_V1_CONTROLLERS = (
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "pids",
    "blkio",
    "devices",
    "freezer",
    "hugetlb",
    "systemd",
    # The v2 tree that hybrid hosts mount beside v1: runc puts containers there too.
    "unified",
    "net_cls",
    "perf_event",
    "rdma",
    "misc",
)
_MEMORY_MAX = "max"
_PIDS_MAX = "max"


def is_v2(mount: Path = MOUNT) -> bool:
    return (mount / "cgroup.controllers").exists()


def has_swap_controller(mount: Path = MOUNT, own: str | None = None) -> bool:
    """Whether cgroup v2 limits swap here: the root has no such file, so this process' own cgroup is looked at."""
    if not is_v2(mount):
        return False
    if own is None:
        own = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip()
    if own.strip("/"):
        return (mount / own.strip("/") / "memory.swap.max").exists()
    return any(mount.glob("*/memory.swap.max"))


class Cgroups:
    """Makes, limits and removes the cgroups of pods. With `enabled=False` (hollow nodes) it does nothing."""

    def __init__(
        self,
        root: str = "/",
        *,
        driver: str = "cgroupfs",
        pods_pids_limit: int = -1,
        mount: Path = MOUNT,
        enabled: bool = True,
    ) -> None:
        self.root = "/" + root.strip("/") if root.strip("/") else ""
        self.driver = driver
        self.v2 = is_v2(mount)
        self._mount = mount
        self._pids_limit = pods_pids_limit
        self._enabled = enabled
        self._quiet = False
        self._burstable_shares = 0  # as last written; 0 is not yet

    def pod_path(self, pod: core_v1.Pod) -> str:
        """The pod's cgroup as the runtime takes it for `cgroup_parent`."""
        quality = qos.qos_class(pod).lower()
        uid = pod.metadata.uid or ""
        if self.driver == "systemd":
            middle = "" if quality == "guaranteed" else f"-{quality}"
            return f"kubepods{middle}-pod{uid.replace('-', '_')}.slice"
        middle = "" if quality == "guaranteed" else f"/{quality}"
        return f"{self.root}/kubepods{middle}/pod{uid}"

    def _dirs(self, path: str) -> dict[str, Path]:
        """The directory of a cgroup in each hierarchy.

        On v1 a controller that is mounted together with another is one directory.
        """
        relative = path.lstrip("/")
        if self.v2:
            return {"": self._mount / relative}
        found: dict[str, Path] = {}
        seen: set[Path] = set()
        for controller in _V1_CONTROLLERS:
            base = self._mount / controller
            if base.is_dir() and (real := base.resolve()) not in seen:
                seen.add(real)
                found[controller] = base / relative
        return found

    def set_up_node(self, cpu_milli: int = 0, memory_bytes: int | None = None) -> str:
        """The top of the tree, with BestEffort at the floor of cpu shares. Idempotent.

        All pods together get what the node has less what is reserved of it, and no more memory. Returns what the kernel
        refused of that, empty if nothing.
        """
        if not self._enabled or self.driver == "systemd":
            return ""
        for path in ("/kubepods", "/kubepods/burstable", "/kubepods/besteffort"):
            self._make(self.root + path)
        self._write_cpu(f"{self.root}/kubepods/besteffort", qos.shares_of(0), -1)
        top = f"{self.root}/kubepods"
        if cpu_milli:
            self._write_cpu(top, qos.shares_of(cpu_milli), None)
        # Pods that run already may use more than a new limit lets them: that is the evictor's to mend.
        return self._write_memory(top, memory_bytes)

    def set_up_pod(self, pod: core_v1.Pod, *, quiet: bool = False) -> str:
        """The pod's cgroup with its limits; what the sandbox takes as its parent.

        `quiet` is for the first of two tries around a resize: a parent can't shrink below what its children still have.
        """
        self._quiet = quiet
        path = self.pod_path(pod)
        if self._enabled and self.driver != "systemd":
            self._make(path)
            resources = qos.pod_resources(pod)
            self._write_cpu(path, resources.cpu_shares, resources.cpu_quota_us)
            self._write_memory(path, resources.memory_limit_bytes)
            if self._pids_limit > 0:
                self._write(path, "pids", "pids.max", str(self._pids_limit))
        return path

    def set_qos_shares(self, pods: Iterable[core_v1.Pod], *, again: bool = False) -> None:
        """The Burstable pods together weigh what they request together; BestEffort ones are always at the floor.

        Writes what has changed since the last call; `again` writes anyway, over what anyone else wrote in between.
        """
        if not self._enabled or self.driver == "systemd":
            return
        shares = qos.burstable_shares(pods)
        if shares == self._burstable_shares and not again:
            return
        self._write_cpu(f"{self.root}/kubepods/burstable", shares, None)
        self._write_cpu(f"{self.root}/kubepods/besteffort", qos.shares_of(0), None)
        self._burstable_shares = shares

    def remove_pod(self, pod: core_v1.Pod) -> bool:
        """Remove the pod's cgroup and what the runtime left below. False if a process is still in it."""
        return self.remove_path(self.pod_path(pod))

    def remove_path(self, path: str) -> bool:
        if not self._enabled or self.driver == "systemd":
            return True
        results = [_remove_below(directory) for directory in self._dirs(path).values()]
        return all(results)

    def known_pods(self) -> dict[str, str]:
        """Cgroup path by pod uid, of all that are there."""
        found: dict[str, str] = {}
        if not self._enabled or self.driver == "systemd":
            return found
        for middle in ("/kubepods", "/kubepods/burstable", "/kubepods/besteffort"):
            for directory in self._dirs(self.root + middle).values():
                for child in directory.glob("pod*"):
                    found[child.name.removeprefix("pod")] = f"{self.root}{middle}/{child.name}"
        return found

    def _make(self, path: str) -> None:
        if self.v2:
            self._make_v2(path)
            return
        for controller, directory in self._dirs(path).items():
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            if controller == "cpuset":
                self._inherit_cpuset(directory)

    def _make_v2(self, path: str) -> None:
        """On v2 a parent must hand each controller down before a child can use it."""
        directory = self._mount
        for name in Path(path.lstrip("/")).parts:
            _hand_down(directory)
            directory /= name
            directory.mkdir(mode=0o755, exist_ok=True)

    def _inherit_cpuset(self, directory: Path) -> None:
        """A new v1 cpuset is empty and takes no process until it has its parent's cpus and memory nodes."""
        base = self._mount / "cpuset"
        chain = [directory, *directory.parents]
        for current in reversed(chain[: chain.index(base)] if base in chain else [directory]):
            for name in ("cpuset.cpus", "cpuset.mems"):
                file = current / name
                if file.exists() and not file.read_text().strip():
                    file.write_text((current.parent / name).read_text())

    def _write(self, path: str, controller: str, name: str, value: str) -> str:
        """Write a setting; why it could not be, if so."""
        directory = self._dirs(path).get("" if self.v2 else controller)
        if directory is None:
            return ""
        try:
            (directory / name).write_text(value)
        except OSError as error:
            if not self._quiet:
                log.warning("cgroup setting can not be written", setting=name, cgroup=path, error=str(error))
            return f"{directory / name}: {error.strerror}"
        return ""

    def _write_cpu(self, path: str, shares: int, quota_us: int | None) -> None:
        if self.v2:
            self._write(path, "cpu", "cpu.weight", str(qos.weight_of_shares(shares)))
            if quota_us is not None:
                quota = "max" if quota_us < 0 else str(quota_us)
                self._write(path, "cpu", "cpu.max", f"{quota} {qos.CPU_PERIOD_US}")
            return
        self._write(path, "cpu", "cpu.shares", str(shares))
        directory = self._dirs(path).get("cpu")
        if quota_us is not None and directory is not None and (directory / "cpu.cfs_quota_us").exists():
            self._write(path, "cpu", "cpu.cfs_period_us", str(qos.CPU_PERIOD_US))
            self._write(path, "cpu", "cpu.cfs_quota_us", str(quota_us))

    def _write_memory(self, path: str, limit_bytes: int | None) -> str:
        if limit_bytes is None:
            return ""
        return self._write(path, "memory", "memory.max" if self.v2 else "memory.limit_in_bytes", str(limit_bytes))


def _hand_down(directory: Path) -> None:
    """Give every controller of a cgroup to its children.

    One that can't be given is missing below and keeps back no other: the kernel takes all names of one write or none.
    """
    controllers = (directory / "cgroup.controllers").read_text().split()
    handed = (directory / "cgroup.subtree_control").read_text().split()
    for controller in controllers:
        if controller not in handed:
            with contextlib.suppress(OSError):
                (directory / "cgroup.subtree_control").write_text(f"+{controller}")


def _remove_below(directory: Path) -> bool:
    """rmdir a cgroup from its leaves up. The kernel needs a moment after the last process is gone."""
    if not directory.is_dir():
        return True
    for root, names, _ in os.walk(directory, topdown=False):
        for name in names:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(root, name))
    for _ in range(3):
        try:
            directory.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            time.sleep(0.002)
        else:
            return True
    return False
