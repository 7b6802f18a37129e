"""Looks whether this machine can run real nodes, and says what to do where it can't."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from lab.nodes import CNI_PLUGIN_DIRECTORIES, cni_plugin_directory

# Program -> Debian's and Ubuntu's package.
PROGRAMS = {
    "containerd": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "iptables": "iptables",
}
# What containers, bridges and rules need of a root that is itself in a container: (bit, name) of linux/capability.h.
CAPABILITIES = {21: "SYS_ADMIN", 12: "NET_ADMIN", 13: "NET_RAW", 27: "MKNOD"}
DISK_BYTES_MIN = 1 << 30
# What logs, certificates and a small database need, where there are no images.
HOLLOW_DISK_BYTES_MIN = 64 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `way_out` is empty where all is well."""

    subject: str
    ok: bool
    message: str
    way_out: str = ""


def examine(home: Path) -> list[Finding]:
    """Everything that real nodes need, in the order in which one would mend it."""
    return [_root(), _capabilities(), *_programs(), _cni(), _cgroups(), disk(home)]


def first_obstacle(home: Path) -> Finding | None:
    """The first thing that keeps real nodes from running here; None if nothing does."""
    return next((finding for finding in examine(home) if not finding.ok), None)


def _root() -> Finding:
    if os.geteuid() == 0:
        return Finding("root", True, "running as root")
    return Finding("root", False, "real nodes need root", "use sudo, or `cutaway up --hollow` for simulated nodes")


def _capabilities() -> Finding:
    status = Path("/proc/self/status").read_text()
    effective = int(next(line for line in status.splitlines() if line.startswith("CapEff")).split()[1], 16)
    missing = [name for bit, name in CAPABILITIES.items() if not effective >> bit & 1]
    if not missing:
        return Finding("capabilities", True, "all that is needed")
    return Finding(
        "capabilities", False, f"missing: {', '.join(missing)}", "start this container with --cap-add for each"
    )


def _programs() -> list[Finding]:
    findings = []
    for program, package in PROGRAMS.items():
        path = shutil.which(program)
        if path:
            findings.append(Finding(program, True, path))
        else:
            findings.append(
                Finding(program, False, f"{program} is not installed", f"`apt-get install {package}`, or `make up`")
            )
    return findings


def _cni() -> Finding:
    directory = cni_plugin_directory()
    if directory:
        return Finding("CNI plugins", True, str(directory))
    where = " or ".join(CNI_PLUGIN_DIRECTORIES)
    return Finding(
        "CNI plugins", False, f"none in {where}", "`apt-get install containernetworking-plugins`, or `make up`"
    )


def _cgroups() -> Finding:
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return Finding("cgroups", True, "version 2")
    if Path("/sys/fs/cgroup/memory").is_dir():
        return Finding("cgroups", True, "version 1")
    return Finding(
        "cgroups", False, "/sys/fs/cgroup is not mounted", "mount it, or start this container with --cgroupns=host"
    )


def disk(home: Path, *, bytes_min: int = DISK_BYTES_MIN) -> Finding:
    """Whether there is room for a cluster's folder."""
    place = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(place).free
    text = f"{free / (1 << 20):,.0f} MiB free for {home}"
    if free >= bytes_min:
        return Finding("disk", True, text)
    wanted = f"free at least {bytes_min >> 20:,} MiB, or choose another place with CUTAWAY_HOME"
    return Finding("disk", False, f"the disk is too full: {text}", wanted)
