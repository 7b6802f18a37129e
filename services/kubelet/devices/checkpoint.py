"""Which claims are prepared on this node, for which pods, with which devices: a file that outlives the kubelet.

Written before a driver is asked, so that what a driver may have done is always known and taken back.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

FILE = "device_claims.json"


class PreparedDevice(msgspec.Struct, frozen=True):
    """One device as its driver prepared it. No request names: it serves all of the claim's requests."""

    pool: str
    device: str
    cdi_ids: tuple[str, ...] = ()
    requests: tuple[str, ...] = ()
    share_id: str = ""


class PreparedClaim(msgspec.Struct):
    """A claim: who uses it here, and what each of its drivers gave (nothing before it is `prepared`)."""

    namespace: str
    name: str
    uid: str
    pods: set[str] = set()
    drivers: dict[str, list[PreparedDevice]] = {}
    prepared: bool = False


class _File(msgspec.Struct):
    version: int
    claims: list[PreparedClaim]


class BadCheckpoint(Exception):
    """The file can't be read. What is in it names devices that are in use, so it is not thrown away."""


def read(root: Path) -> dict[str, PreparedClaim]:
    """The claims by uid. Raises BadCheckpoint."""
    path = root / FILE
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return {}
    try:
        file = msgspec.json.decode(raw, type=_File)
    except msgspec.DecodeError as err:
        raise BadCheckpoint(f"{path}: {err}; drain the node and remove the file") from err
    return {claim.uid: claim for claim in file.claims}


def write(root: Path, claims: dict[str, PreparedClaim]) -> None:
    """Replace the file, durably. Raises OSError."""
    path = root / FILE
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(msgspec.json.encode(_File(1, list(claims.values()))))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
