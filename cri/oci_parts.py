"""What every OCI spec of ours has in common: constants and paths. Pure."""

from cri_api.v1 import api_pb2 as cri

from cri.config import Config

OCI_VERSION = "1.0.2"
NODE = cri.NODE

# containerd-shim-runc-v2 runs all tasks that carry the same value here in one shim process.
GROUP_ANNOTATION = "io.kubernetes.cri.sandbox-id"

# What must not be seen or changed below /proc and /sys (upstream's default proc mount).
MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def cgroups_path(parent: str, container_id: str, config: Config) -> str:
    """Where a container's cgroup is: below the pod's, in the form of the cgroup driver in use."""
    if config.systemd_cgroup:
        slice_name = parent.rstrip("/").rsplit("/", 1)[-1] or "system.slice"
        return f"{slice_name}:cri-cutaway:{container_id}"
    return f"{parent.rstrip('/') or f'/{config.namespace}'}/{container_id}"


def cgroup_directory(parent: str, container_id: str, config: Config) -> str:
    """The same as a path below the cgroup file system, as runc makes it of `cgroups_path`.

    systemd keeps `a-b.slice` below `a.slice`.
    """
    if not config.systemd_cgroup:
        return cgroups_path(parent, container_id, config)
    slice_name = cgroups_path(parent, container_id, config).split(":", 1)[0]
    words = slice_name.removesuffix(".slice").split("-")
    slices = ["-".join(words[: count + 1]) + ".slice" for count in range(len(words))]
    return f"/{'/'.join(slices)}/cri-cutaway-{container_id}.scope"
