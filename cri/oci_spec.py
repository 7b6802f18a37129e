"""A container's OCI runtime spec from its CRI config, its image's config and facts about the node: pure.

All that needs I/O (users of the image, host paths, devices, what the kernel has) is in `SpecInput`, gathered by
`container_create`.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from cri_api.v1 import api_pb2 as cri

from cri import oci_mounts, oci_parts, oci_resources, oci_security
from cri.config import Config
from cri.errors import InvalidArgument
from cri.id_maps import IdMap

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class User(msgspec.Struct, frozen=True):
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class Device(msgspec.Struct, frozen=True):
    path: str
    kind: str
    """`c` or `b`."""
    major: int
    minor: int
    mode: int
    uid: int
    gid: int
    access: str = "rwm"


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What this node's kernel has and lets us do."""

    capabilities: frozenset[str]
    cgroup_v2: bool
    swap_accounting: bool
    apparmor: bool
    apparmor_default: str
    """The default profile's name; "" where it could not be loaded."""
    architecture: str
    hostname: str
    oom_score_adj_min: int
    """The lowest that may be set: -1000 with CAP_SYS_RESOURCE, else the runtime's own."""


class SpecInput(msgspec.Struct, kw_only=True):
    container_id: str
    sandbox_id: str
    config: cri.ContainerConfig
    sandbox: cri.PodSandboxConfig
    image_config: dict[str, Any]
    """The `config` object of the OCI image configuration."""
    user: User
    mount_sources: Sequence[str]
    """The resolved host path of each of `config.mounts`."""
    devices: Sequence[Device]
    namespaces: dict[str, str]
    """Namespaces to join by OCI type, by path; "" makes a new one."""
    hostname_file: str
    resolv_conf: str
    shm: str
    ids: IdMap | None = None
    """The map of the pod's user namespace, if it has one."""
    root: str = "rootfs"
    """The root file system: below the task's directory, or an absolute path."""
    locked: dict[str, tuple[str, ...]] = {}
    """With `ids`: by mount source, the options of its file system that the pod's users may not take off."""
    seccomp_document: bytes = b""
    node: NodeFacts
    settings: Config


def container_spec(given: SpecInput) -> dict[str, Any]:
    """Raises InvalidArgument for a request that can't be a container."""
    config, node = given.config, given.node
    context = config.linux.security_context
    sets = oci_security.capabilities(context, node.capabilities)
    spec: dict[str, Any] = {
        "ociVersion": oci_parts.OCI_VERSION,
        "process": _process(given, sets),
        "root": {"path": given.root, "readonly": context.readonly_rootfs},
        "mounts": _mounts(given),
        "annotations": {
            oci_parts.GROUP_ANNOTATION: given.sandbox_id,
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.container-name": config.metadata.name,
            "io.kubernetes.cri.sandbox-name": given.sandbox.metadata.name,
            "io.kubernetes.cri.sandbox-namespace": given.sandbox.metadata.namespace,
            "io.kubernetes.cri.sandbox-uid": given.sandbox.metadata.uid,
        },
        "linux": _linux(given, sets["bounding"]),
    }
    return spec


def process_args(config: cri.ContainerConfig, image_config: dict[str, Any]) -> list[str]:
    """`command` replaces the image's entrypoint and its arguments; `args` replaces the arguments only."""
    command, args = list(config.command), list(config.args)
    if not command:
        command = list(image_config.get("Entrypoint") or [])
        args = args or list(image_config.get("Cmd") or [])
    if not command and not args:
        raise InvalidArgument(f"container {config.metadata.name}: no command: neither the pod nor the image names one")
    return command + args


def environment(given: SpecInput) -> list[str]:
    """PATH and HOSTNAME, then the image's variables, then the container's; the last of a name wins."""
    hostname = given.sandbox.hostname or given.node.hostname
    entries = [_PATH, f"HOSTNAME={hostname}"]
    if given.config.tty:
        entries.append("TERM=xterm")
    entries += [str(entry) for entry in given.image_config.get("Env") or []]
    entries += [f"{pair.key}={pair.value}" for pair in given.config.envs]
    by_name: dict[str, str] = {}
    for entry in entries:
        by_name[entry.partition("=")[0]] = entry
    return list(by_name.values())


def _process(given: SpecInput, sets: dict[str, list[str]]) -> dict[str, Any]:
    config, context = given.config, given.config.linux.security_context
    process: dict[str, Any] = {
        "terminal": config.tty,
        "args": process_args(config, given.image_config),
        "cwd": config.working_dir or given.image_config.get("WorkingDir") or "/",
        "env": environment(given),
        "user": {"uid": given.user.uid, "gid": given.user.gid, "additionalGids": list(given.user.groups)},
        "capabilities": sets,
        "noNewPrivileges": context.no_new_privs,
        "oomScoreAdj": max(config.linux.resources.oom_score_adj, given.node.oom_score_adj_min),
    }
    profile = oci_security.apparmor_profile(context, given.node.apparmor, given.node.apparmor_default)
    if profile:
        process["apparmorProfile"] = profile
    return process


def _mounts(given: SpecInput) -> list[oci_mounts.Mount]:
    config = given.config
    privileged = config.linux.security_context.privileged
    readonly = "ro" if config.linux.security_context.readonly_rootfs else "rw"
    own = [
        oci_mounts.bind(given.hostname_file, "/etc/hostname", readonly),
        oci_mounts.bind(given.resolv_conf, "/etc/resolv.conf", readonly),
        oci_mounts.bind(given.shm, "/dev/shm", "rw"),  # noqa: S108 — the container's
    ]
    if given.namespaces.get("network") is None:
        own.append(oci_mounts.bind("/etc/hosts", "/etc/hosts", "ro"))
    requested = [
        oci_mounts.from_request(mount, source) for mount, source in zip(config.mounts, given.mount_sources, strict=True)
    ]
    mounts = oci_mounts.arranged(oci_mounts.base(privileged=privileged), own, requested)
    return [oci_mounts.with_locked(mount, given.locked.get(mount["source"], ())) for mount in mounts]


def _linux(given: SpecInput, capabilities: Sequence[str]) -> dict[str, Any]:
    config, node = given.config, given.node
    context = config.linux.security_context
    resources = oci_resources.linux_resources(config.linux.resources, swap_accounting=node.swap_accounting)
    rules: list[dict[str, Any]] = [{"allow": context.privileged, "access": "rwm"}]
    if not context.privileged:
        rules += [
            {"allow": True, "type": device.kind, "major": device.major, "minor": device.minor, "access": device.access}
            for device in given.devices
        ]
    linux: dict[str, Any] = {
        "cgroupsPath": oci_parts.cgroups_path(given.sandbox.linux.cgroup_parent, given.container_id, given.settings),
        "namespaces": [
            {"type": kind, "path": path} if path else {"type": kind} for kind, path in given.namespaces.items()
        ],
        "resources": {**resources, "devices": rules},
        "devices": [
            {
                "path": device.path,
                "type": device.kind,
                "major": device.major,
                "minor": device.minor,
                "fileMode": device.mode,
                "uid": device.uid,
                "gid": device.gid,
            }
            for device in given.devices
        ],
    }
    if given.ids:
        linux |= {"uidMappings": given.ids.oci, "gidMappings": given.ids.oci}
    if not context.privileged:
        linux["maskedPaths"] = list(context.masked_paths)
        linux["readonlyPaths"] = list(context.readonly_paths)
    propagation = oci_mounts.root_propagation(config.mounts)
    if propagation:
        linux["rootfsPropagation"] = propagation
    profile = oci_security.seccomp_profile(context, given.settings.seccomp_default)
    seccomp = oci_security.seccomp_spec(profile, given.seccomp_document, capabilities, node.architecture)
    if seccomp:
        linux["seccomp"] = seccomp
    return linux
