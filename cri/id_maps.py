"""A pod's user namespace as the CRI asks for it: which ids of the pod are which ids of the node. Pure.

The rules are those of containerd's plugin: one mapping, equal for users and groups, that begins at the pod's root.
"""

from collections.abc import Sequence

import msgspec
from cri_api.v1 import api_pb2 as cri

from cri.errors import InvalidArgument

_ID_MAX = (1 << 32) - 2  # 2**32 - 1 is "no id"


class IdMap(msgspec.Struct, frozen=True):
    """Ids 0 to `length` - 1 of the pod are `host_id` and on of the node."""

    host_id: int
    length: int

    @property
    def line(self) -> str:
        """As /proc/PID/uid_map takes it."""
        return f"0 {self.host_id} {self.length}\n"

    @property
    def oci(self) -> list[dict[str, int]]:
        return [{"containerID": 0, "hostID": self.host_id, "size": self.length}]


def of_pod(options: cri.NamespaceOption) -> IdMap | None:
    """The pod's map, or None where it uses the node's users. Raises InvalidArgument."""
    if not options.HasField("userns_options"):
        return None
    wanted = options.userns_options
    if wanted.mode == cri.NODE:
        if wanted.uids or wanted.gids:
            raise InvalidArgument("userns_options: mode NODE takes no mappings")
        return None
    if wanted.mode != cri.POD:
        mode = cri.NamespaceMode.Name(wanted.mode)
        raise InvalidArgument(f"userns_options.mode: {mode} is not supported, only POD and NODE")
    uids, gids = _single(wanted.uids, "uids"), _single(wanted.gids, "gids")
    if uids != gids:
        raise InvalidArgument("userns_options: uids and gids must be mapped alike")
    if options.network == cri.NODE:
        raise InvalidArgument("userns_options: a pod on the node's network can't have a user namespace of its own")
    return uids


def _single(mappings: Sequence[cri.IDMapping], name: str) -> IdMap:
    where = f"userns_options.{name}"
    if len(mappings) != 1:
        raise InvalidArgument(f"{where}: exactly one mapping is supported, not {len(mappings)}")
    given = mappings[0]
    if given.container_id != 0:
        raise InvalidArgument(f"{where}[0].container_id: {given.container_id} is not 0: the pod's root must be mapped")
    if given.length < 1 or given.host_id + given.length - 1 > _ID_MAX:
        raise InvalidArgument(f"{where}[0]: {given.length} ids from {given.host_id} on are not a range of ids")
    return IdMap(given.host_id, given.length)


def of_mount(mount: cri.Mount, pod: IdMap | None) -> bool:
    """Whether the mount shows its files' owners as ids of the pod. Raises InvalidArgument."""
    if not mount.uidMappings and not mount.gidMappings:
        return False
    if pod is None:
        raise InvalidArgument(f"mounts: {mount.container_path}: mapped ids need a pod with a user namespace")
    uids = _single(mount.uidMappings, "uids")
    if uids != pod or _single(mount.gidMappings, "gids") != pod:
        raise InvalidArgument(f"mounts: {mount.container_path}: its ids must be mapped as the pod's are")
    return True
