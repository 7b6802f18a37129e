"""The OCI spec of the process that holds a shared pid namespace: pure."""

from typing import Any

from cri import oci_parts
from cri.config import Config
from cri.state import Sandbox


def spec(sandbox: Sandbox, config: Config, root: str = "rootfs") -> dict[str, Any]:
    namespaces: list[dict[str, str]] = [{"type": "pid"}, {"type": "mount"}]
    options = sandbox.namespace_options
    host_network = sandbox.record.host_network
    for kind, name, joined in (
        ("network", "net", not host_network),
        ("uts", "uts", not host_network),
        ("ipc", "ipc", options.ipc != oci_parts.NODE),
    ):
        if joined:
            namespaces.append({"type": kind, "path": str(sandbox.state / name)})
    mappings = {}
    if sandbox.ids:
        namespaces.append({"type": "user", "path": str(sandbox.state / "user")})
        mappings = {"uidMappings": sandbox.ids.oci, "gidMappings": sandbox.ids.oci}
    return {
        "ociVersion": oci_parts.OCI_VERSION,
        "root": {"path": root, "readonly": True},
        "process": {
            "args": ["/pause"],
            "cwd": "/",
            "env": ["PATH=/"],
            "user": {"uid": 65535, "gid": 65535},
            "noNewPrivileges": True,
            "capabilities": {},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            # runc makes its device nodes there; the root itself is read-only.
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
        ],
        "annotations": {oci_parts.GROUP_ANNOTATION: sandbox.id},
        "linux": {
            **mappings,
            "namespaces": namespaces,
            "cgroupsPath": oci_parts.cgroups_path(sandbox.config.linux.cgroup_parent, sandbox.id, config),
            "resources": {"devices": [{"allow": False, "access": "rwm"}], "cpu": {"shares": 2}},
            "maskedPaths": list(oci_parts.MASKED_PATHS),
            "readonlyPaths": list(oci_parts.READONLY_PATHS),
        },
    }
