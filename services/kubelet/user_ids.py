"""Which ids of this node are the users of which pod with `hostUsers: false` (KEP-127).

Every such pod has a range of 65536 ids to itself. It is written down in the pod's directory, in upstream's form, before
anything runs with it; so a restarted kubelet, of either make, knows the ranges in use, and a range is free again when
the pod's directory is gone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from machinery.component import logs

log = logs.get("kubelet")

IDS_PER_POD = 65536
FIRST_ID = IDS_PER_POD  # below are the node's own users
_ID_MAX = (1 << 32) - 1
_FILE = "userns"
_SUBIDS_OWNER = "kubelet"


class _Mapping(msgspec.Struct, rename="camel"):
    host_id: int
    container_id: int
    length: int


class _Record(msgspec.Struct, rename="camel"):
    uid_mappings: list[_Mapping]
    gid_mappings: list[_Mapping]


class NoIdsLeft(Exception):
    """Every range of this node belongs to a pod."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """The ids that pods may have: `count` ranges from `first` on."""

    first: int
    count: int


def ranges(first_id: int, max_pods: int, subuid: str = "", subgid: str = "") -> Ranges:
    """The node's ranges: what /etc/subuid and /etc/subgid give the user `kubelet`, else one for each of `max_pods`.

    Pure; the two files' text is handed in. Raises ValueError for what can't be used, naming the file.
    """
    given, groups = _delegated(subuid, "/etc/subuid"), _delegated(subgid, "/etc/subgid")
    if given is None and groups is None:
        first, count = first_id, max_pods
    elif given is None or groups != given:
        raise ValueError(f"/etc/subuid and /etc/subgid must give {_SUBIDS_OWNER} the same range, once")
    else:
        first, length = given
        if first % IDS_PER_POD or length % IDS_PER_POD:
            raise ValueError(f"/etc/subuid: the range of {_SUBIDS_OWNER} must begin and end at a multiple of 65536")
        count = length // IDS_PER_POD
        if count < max_pods:
            raise ValueError(f"/etc/subuid: the range of {_SUBIDS_OWNER} has room for {count} of {max_pods} pods")
    if first < FIRST_ID or first + count * IDS_PER_POD - 1 > _ID_MAX:
        raise ValueError(
            f"user ids {first} to {first + count * IDS_PER_POD - 1} are not all between 65536 and 2^32 - 1"
        )
    return Ranges(first, count)


def _delegated(text: str, where: str) -> tuple[int, int] | None:
    """(first, length) of the one range of our user in a subuid(5) file."""
    found = [line.split(":") for line in text.splitlines() if line.split(":")[0] == _SUBIDS_OWNER]
    if not found:
        return None
    if len(found) != 1 or len(found[0]) != 3 or not all(word.strip().isdigit() for word in found[0][1:]):
        raise ValueError(f"{where}: one line {_SUBIDS_OWNER}:FIRST:COUNT is needed")
    return int(found[0][1]), int(found[0][2])


def of_node(first_id: int, max_pods: int) -> Ranges:
    """`ranges` by this node's own files."""
    texts = []
    for path in ("/etc/subuid", "/etc/subgid"):
        try:
            texts.append(Path(path).read_text(encoding="utf-8", errors="replace"))
        except OSError:
            texts.append("")
    return ranges(first_id, max_pods, *texts)


class UserIds:
    """The ranges of this node's pods. What is on disk is the record; memory holds a copy."""

    def __init__(self, pods: Path, available: Ranges) -> None:
        self._pods = pods
        self._available = available
        self._taken: dict[str, int] = {}

    def load(self, uids: Iterable[str]) -> None:
        """Read back the ranges of pods that have a directory here."""
        for uid in uids:
            first = self._read(uid)
            if first is None:
                continue
            holder = next((u for u, taken in self._taken.items() if taken == first), None)
            if holder is not None:
                log.error("two pods have the same user ids", first_id=first, pods=[holder, uid])
            self._taken[uid] = first

    def of(self, uid: str) -> int:
        """The first id of a pod's range: the one it has, or a free one. Raises NoIdsLeft, OSError."""
        known = self._taken.get(uid)
        if known is not None:
            return known
        first = self._read(uid)
        if first is None:
            first = self._free()
            self._write(uid, first)
        self._taken[uid] = first
        return first

    def release(self, uid: str) -> None:
        """The pod's directory is gone."""
        self._taken.pop(uid, None)

    def _free(self) -> int:
        used = set(self._taken.values())
        for number in range(self._available.count):
            first = self._available.first + number * IDS_PER_POD
            if first not in used:
                return first
        raise NoIdsLeft(f"no user ids are left for the pod: all {self._available.count} ranges of this node are taken")

    def _read(self, uid: str) -> int | None:
        path = self._pods / uid / _FILE
        try:
            record = msgspec.json.decode(path.read_bytes(), type=_Record)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            log.error("a pod's user ids can't be read", path=str(path), error=str(error))
            return None
        return record.uid_mappings[0].host_id if record.uid_mappings else None

    def _write(self, uid: str, first: int) -> None:
        mapping = [_Mapping(first, 0, IDS_PER_POD)]
        path = self._pods / uid / _FILE
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        temporary = path.with_name(f".{_FILE}.new")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640), "wb") as file:
            file.write(msgspec.json.encode(_Record(mapping, mapping)))
            file.flush()
            # After a power failure no other pod may be given ids that own files on this disk.
            os.fsync(file.fileno())
        os.replace(temporary, path)
