"""The Container Device Interface (CNCF CDI 0.8): devices by name, as files in specification directories say.

A name is `vendor.com/class=device`; its file lists what a container needs for it: device nodes, mounts, variables,
hooks, groups. A later directory of the list wins over an earlier one for the same name.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from cri.errors import InvalidArgument

_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[\w-]+)=([\w.:-]+)")
_HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")

Edits = dict[str, Any]


def edits(names: Sequence[str], directories: Iterable[str]) -> list[Edits]:
    """The container edits of devices: for each of their files the common ones once, then those of each device.

    Raises InvalidArgument for a name that no file has, and for a file of such a name that can't be read.
    """
    known, broken = _read(directories)
    out: list[Edits] = []
    common: set[int] = set()
    for name in names:
        if not _NAME.fullmatch(name):
            raise InvalidArgument(f"CDI_devices: {name!r} is not of the form vendor/class=device")
        if name not in known:
            hint = f" ({'; '.join(broken)})" if broken else ""
            raise InvalidArgument(f"CDI_devices: unresolvable CDI device {name}{hint}")
        document, device = known[name]
        if id(document) not in common:
            common.add(id(document))
            out.append(document.get("containerEdits") or {})
        out.append(device.get("containerEdits") or {})
    return [each for each in out if each]


def _read(directories: Iterable[str]) -> tuple[dict[str, tuple[Edits, Edits]], list[str]]:
    known: dict[str, tuple[Edits, Edits]] = {}
    broken: list[str] = []
    for directory in directories:
        for path in sorted(Path(directory).glob("*")):
            if path.suffix not in (".json", ".yaml", ".yml"):
                continue
            try:
                document = yaml.safe_load(path.read_text())
                kind, devices = document["kind"], document.get("devices") or ()
                known |= {f"{kind}={device['name']}": (document, device) for device in devices}
            except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
                broken.append(f"{path}: {error!r}")
    return known, broken


def apply(spec: dict[str, Any], changes: Iterable[Edits]) -> None:
    """Make the changes in an OCI runtime specification. Raises InvalidArgument for a device that is not there."""
    process, linux = spec["process"], spec["linux"]
    for change in changes:
        for entry in change.get("env") or ():
            name = entry.partition("=")[0]
            process["env"] = [each for each in process["env"] if each.partition("=")[0] != name] + [entry]
        for node in change.get("deviceNodes") or ():
            _add_device(linux, node)
        for mount in change.get("mounts") or ():
            _add_mount(spec, mount)
        for hook in change.get("hooks") or ():
            _add_hook(spec, hook)
        for group in change.get("additionalGids") or ():
            groups = process["user"].setdefault("additionalGids", [])
            if group and group not in groups:
                groups.append(group)


def _add_device(linux: dict[str, Any], node: dict[str, Any]) -> None:
    path = node["path"]
    host = node.get("hostPath") or path
    found: dict[str, Any] = {"path": path}
    if node.get("type") and (node.get("major") is not None or node["type"] == "p"):
        found |= {"type": node["type"], "major": node.get("major", 0), "minor": node.get("minor", 0)}
    else:
        try:
            info = os.stat(host)
        except OSError as error:
            raise InvalidArgument(f"CDI_devices: device node {host}: {error.strerror}") from error
        kind = "c" if stat.S_ISCHR(info.st_mode) else "b" if stat.S_ISBLK(info.st_mode) else ""
        if not kind:
            raise InvalidArgument(f"CDI_devices: {host} is not a device")
        found |= {"type": kind, "major": os.major(info.st_rdev), "minor": os.minor(info.st_rdev)}
        found |= {"uid": info.st_uid, "gid": info.st_gid, "fileMode": stat.S_IMODE(info.st_mode)}
    found |= {key: node[key] for key in ("fileMode", "uid", "gid") if node.get(key) is not None}
    linux["devices"] = [each for each in linux.get("devices") or () if each["path"] != path] + [found]
    if found["type"] in ("b", "c"):
        rule = {"allow": True, "type": found["type"], "major": found["major"], "minor": found["minor"]}
        linux["resources"].setdefault("devices", []).append({**rule, "access": node.get("permissions") or "rwm"})


def _add_mount(spec: dict[str, Any], mount: dict[str, Any]) -> None:
    inside = mount["containerPath"]
    made = {
        "destination": inside,
        "source": mount["hostPath"],
        "type": mount.get("type") or "bind",
        "options": mount.get("options") or ["rbind", "nosuid", "nodev", "rprivate"],
    }
    spec["mounts"] = [each for each in spec["mounts"] if each["destination"] != inside] + [made]


def _add_hook(spec: dict[str, Any], hook: dict[str, Any]) -> None:
    name = hook["hookName"]
    if name not in _HOOKS:
        raise InvalidArgument(f"CDI_devices: {name!r} is not one of the hooks {', '.join(_HOOKS)}")
    made = {key: hook[key] for key in ("path", "args", "env", "timeout") if hook.get(key) is not None}
    spec.setdefault("hooks", {}).setdefault(name, []).append(made)
