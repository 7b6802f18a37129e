"""The mounts of a container, in the order in which they must be made: pure."""

from collections.abc import Sequence
from typing import Any

from cri_api.v1 import api_pb2 as cri

from cri.errors import InvalidArgument

_PROPAGATION = {
    cri.PROPAGATION_PRIVATE: "rprivate",
    cri.PROPAGATION_HOST_TO_CONTAINER: "rslave",
    cri.PROPAGATION_BIDIRECTIONAL: "rshared",
}

Mount = dict[str, Any]


def base(*, privileged: bool) -> list[Mount]:
    """/proc, /dev and /sys as every container has them."""
    access = "rw" if privileged else "ro"
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", access]},
        {
            "destination": "/sys/fs/cgroup",
            "type": "cgroup",
            "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", access],
        },
    ]


def bind(source: str, destination: str, *options: str) -> Mount:
    return {"destination": destination, "type": "bind", "source": source, "options": ["rbind", "rprivate", *options]}


def from_request(mount: cri.Mount, source: str) -> Mount:
    """A mount of the request whose host path (or image's root) was resolved to `source`."""
    if not mount.container_path.startswith("/"):
        raise InvalidArgument(f"mounts: container_path {mount.container_path!r} is not absolute")
    if mount.recursive_read_only and not mount.readonly:
        raise InvalidArgument(f"mounts: {mount.container_path}: recursive_read_only needs readonly")
    if mount.recursive_read_only and mount.propagation != cri.PROPAGATION_PRIVATE:
        raise InvalidArgument(f"mounts: {mount.container_path}: recursive_read_only needs private propagation")
    access = "rro" if mount.recursive_read_only else "ro" if mount.readonly else "rw"
    return {
        "destination": mount.container_path,
        "type": "bind",
        "source": source,
        "options": ["rbind", _PROPAGATION[mount.propagation], access],
    }


def with_locked(mount: Mount, options: Sequence[str]) -> Mount:
    """A read-only bind mount that keeps these options of what it shows.

    It takes a second mount(2) that names all flags anew, and in a user namespace the kernel refuses to drop any.
    """
    if mount["type"] != "bind" or not {"ro", "rro"} & set(mount["options"]):
        return mount
    return {**mount, "options": [*mount["options"], *options]}


def arranged(defaults: Sequence[Mount], own: Sequence[Mount], requested: Sequence[Mount]) -> list[Mount]:
    """All mounts, parents before children.

    A requested mount takes the place of ours at the same path. A tmpfs or bind at /dev hides what we would mount
    below it, so those stay and come after; the sort is stable.
    """
    taken = {_clean(mount["destination"]) for mount in requested}
    kept = [mount for mount in (*defaults, *own) if _clean(mount["destination"]) not in taken]
    return kept + sorted(requested, key=lambda mount: len([part for part in mount["destination"].split("/") if part]))


def root_propagation(mounts: Sequence[cri.Mount]) -> str:
    """The propagation that the container's root needs so that its mounts can have theirs."""
    wanted = {mount.propagation for mount in mounts}
    if cri.PROPAGATION_BIDIRECTIONAL in wanted:
        return "rshared"
    return "rslave" if cri.PROPAGATION_HOST_TO_CONTAINER in wanted else ""


def _clean(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
