"""Capabilities, seccomp and AppArmor of a container: pure decisions from the request and what the node has."""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from cri_api.v1 import api_pb2 as cri

from cri import seccomp
from cri.errors import InvalidArgument

_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
    "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP "
    "MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
ALL = tuple(f"CAP_{name}" for name in _NAMES.split())
"""In the order of their numbers (capabilities(7))."""

DEFAULT = tuple(
    f"CAP_{name}"
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ]
)


def from_mask(mask: int) -> tuple[str, ...]:
    """The names of a bit mask as in /proc/PID/status."""
    return tuple(name for number, name in enumerate(ALL) if mask >> number & 1)


def capabilities(context: cri.LinuxContainerSecurityContext, available: Collection[str]) -> dict[str, list[str]]:
    """The capability sets of a process.

    `available` is what this node may give (the runtime's own bounding set): a privileged container gets all of it,
    "ALL" means it. Inheritable stays empty, except for ambient ones, which must be in both.
    """
    if context.privileged:
        names = [name for name in ALL if name in available]
        return {"bounding": names, "effective": names, "permitted": names}
    added = [_name(text) for text in context.capabilities.add_capabilities]
    dropped = [_name(text) for text in context.capabilities.drop_capabilities]
    ambient = [_name(text) for text in context.capabilities.add_ambient_capabilities]
    chosen: set[str] = set(available) if "CAP_ALL" in added else set(DEFAULT)
    if "CAP_ALL" in dropped:
        chosen = set(available) if "CAP_ALL" in added else set()
    chosen |= {name for name in (*added, *ambient) if name != "CAP_ALL"}
    chosen -= {name for name in dropped if name != "CAP_ALL"}
    names = [name for name in ALL if name in chosen]
    result = {"bounding": names, "effective": names, "permitted": names}
    if ambient:
        kept = [name for name in names if name in ambient or "CAP_ALL" in ambient]
        result |= {"ambient": kept, "inheritable": kept}
    return result


def _name(text: str) -> str:
    """With its prefix. One that the kernel does not know is neither given nor refused, as runc has it."""
    name = text.upper()
    return name if name.startswith("CAP_") else f"CAP_{name}"


class Profile(msgspec.Struct, frozen=True):
    """Which profile: `unconfined`, `default`, or `localhost` with a file or profile name."""

    kind: str
    reference: str = ""


def _profile(given: cri.SecurityProfile, present: bool, legacy: str, unset: str) -> Profile:
    if present:
        kinds = cri.SecurityProfile.ProfileType
        if given.profile_type == kinds.RuntimeDefault:
            return Profile("default")
        if given.profile_type == kinds.Localhost:
            return Profile("localhost", given.localhost_ref)
        return Profile("unconfined")
    if legacy in ("runtime/default", "docker/default"):
        return Profile("default")
    if legacy.startswith("localhost/"):
        return Profile("localhost", legacy.removeprefix("localhost/"))
    if legacy == "unconfined":
        return Profile("unconfined")
    return Profile("default") if unset == "RuntimeDefault" and not legacy else Profile("unconfined")


def seccomp_profile(context: cri.LinuxContainerSecurityContext, unset: str) -> Profile:
    if context.privileged:
        return Profile("unconfined")
    return _profile(context.seccomp, context.HasField("seccomp"), context.seccomp_profile_path, unset)


def seccomp_spec(profile: Profile, document: bytes, names: Sequence[str], architecture: str) -> dict[str, Any] | None:
    """The `linux.seccomp` of a spec; `document` is the file of a localhost profile."""
    if profile.kind == "unconfined":
        return None
    if profile.kind == "default":
        return seccomp.default_profile(names, architecture)
    try:
        return seccomp.from_document(msgspec.json.decode(document), names, architecture)
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidArgument(f"seccomp profile {profile.reference}: {error}") from error


def apparmor_profile(context: cri.LinuxContainerSecurityContext, enabled: bool, default_name: str) -> str:
    """The AppArmor profile's name, or "" for none."""
    if context.privileged:
        return ""
    profile = _profile(context.apparmor, context.HasField("apparmor"), context.apparmor_profile, "RuntimeDefault")
    if profile.kind == "localhost":
        if not enabled:
            raise InvalidArgument(f"AppArmor profile {profile.reference!r}: this node's kernel has no AppArmor enabled")
        return profile.reference
    return default_name if enabled and profile.kind == "default" else ""
