"""What this machine is and has: figures for the Node's status. Reads /proc and /etc, writes nothing."""

from __future__ import annotations

import os
import platform
import socket
from functools import cache
from pathlib import Path

Json = dict[str, object]
_MI = 1 << 20


def default_ip() -> str:
    """The address that packets to the world leave from; loopback on a machine without a route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documentation: nothing is sent
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def memory_bytes() -> int:
    return _meminfo("MemTotal")


def memory_available_bytes() -> int:
    return _meminfo("MemAvailable")


def swap_bytes() -> tuple[int, int]:
    """(all, free) of the machine's swap."""
    return _meminfo("SwapTotal"), _meminfo("SwapFree")


def _meminfo(name: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def disk(path: str) -> tuple[int, int, int, int]:
    """(bytes, bytes available, inodes, inodes free) of the file system that holds the path."""
    info = os.statvfs(path)
    return info.f_blocks * info.f_frsize, info.f_bavail * info.f_frsize, info.f_files, info.f_ffree


def pids_max() -> int:
    """How many processes and threads the machine can have."""
    return min(int(Path(f"/proc/sys/kernel/{name}").read_text()) for name in ("pid_max", "threads-max"))


def tasks() -> int:
    """Processes and threads of the whole machine: loadavg's `running/all`."""
    return int(Path("/proc/loadavg").read_text().split()[3].split("/")[1])


def cpus() -> int:
    return os.cpu_count() or 1


def capacity(root_dir: str, max_pods: int, given: dict[str, str]) -> dict[str, str]:
    """The node's capacity in canonical quantities."""
    total, _, _, _ = disk(root_dir)
    measured = {
        "cpu": str(cpus()),
        "memory": f"{memory_bytes() // 1024}Ki",
        "ephemeral-storage": f"{total // 1024}Ki",
        "pods": str(max_pods),
    }
    return {**measured, **given}


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _os_image() -> str:
    for line in _first_line("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return "Linux"


def architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


@cache
def node_info(runtime_version: str, kubelet_version: str) -> dict[str, str]:
    """`status.nodeInfo`."""
    return {
        "machineID": _first_line("/etc/machine-id"),
        "systemUUID": _first_line("/sys/class/dmi/id/product_uuid") or _first_line("/etc/machine-id"),
        "bootID": _first_line("/proc/sys/kernel/random/boot_id"),
        "kernelVersion": platform.release(),
        "osImage": _os_image(),
        "containerRuntimeVersion": runtime_version,
        "kubeletVersion": kubelet_version,
        "kubeProxyVersion": kubelet_version,
        "operatingSystem": "linux",
        "architecture": architecture(),
    }


def resolver(path: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """(servers, searches, options) of a resolv.conf."""
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    for line in _first_line(path).splitlines():
        words = line.split("#")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] == "search":
            searches = [word for word in words[1:] if word != "."]
        elif words[0] == "options":
            options.extend(words[1:])
    return tuple(servers), tuple(searches), tuple(options)
