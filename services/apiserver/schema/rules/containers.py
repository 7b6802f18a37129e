"""Containers: names, ports, environment, mounts, probes, resources, lifecycle, security."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from machinery.api.errors import Cause
from machinery.api.quantity import parse_quantity
from services.apiserver.schema import causes, names

Obj = dict[str, Any]

_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_FIELD_PATHS = frozenset(
    {
        "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
        "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
    }
)  # fmt: skip
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_STANDARD_RESOURCES = frozenset({"cpu", "memory", "ephemeral-storage", "storage"})
_NOT_OVERCOMMITTED_PREFIX = "hugepages-"


def container(
    one: Obj, path: str, volumes: Mapping[str, Obj], claims: Collection[str] = (), *, ports: bool = True
) -> list[Cause]:
    """One container of any sort."""
    found: list[Cause] = []
    image = one.get("image")
    if not image:
        found.append(causes.required(f"{path}.image"))
    elif image != image.strip():
        found.append(causes.invalid(f"{path}.image", image, "must not have leading or trailing whitespace"))
    if ports and one.get("ports"):
        found += _ports(one["ports"], f"{path}.ports")
    if one.get("env"):
        found += _env(one["env"], f"{path}.env", volumes)
    if one.get("envFrom"):
        found += _env_from(one["envFrom"], f"{path}.envFrom")
    if one.get("volumeMounts"):
        found += _mounts(one, f"{path}.volumeMounts", volumes)
    if one.get("volumeDevices"):
        found += _devices(one["volumeDevices"], f"{path}.volumeDevices", volumes)
    resources = one.get("resources")
    if resources:
        found += resource_requirements(resources, f"{path}.resources", claims)
    security = one.get("securityContext")
    if security:
        found += _security(security, f"{path}.securityContext")
    return found


def hooks_and_probes(one: Obj, path: str, grace_seconds: int | None) -> list[Cause]:
    """Lifecycle and probes of a container that runs beside the others."""
    found: list[Cause] = []
    lifecycle = one.get("lifecycle")
    if lifecycle:
        for hook in ("postStart", "preStop"):
            if lifecycle.get(hook) is not None:
                found += _handler(
                    lifecycle[hook], f"{path}.lifecycle.{hook}", ("exec", "httpGet", "tcpSocket", "sleep")
                )
                sleep = lifecycle[hook].get("sleep")
                if sleep and grace_seconds is not None and sleep.get("seconds", 0) > grace_seconds:
                    detail = (
                        "must be non-negative and less than terminationGracePeriodSeconds "
                        f"({grace_seconds}) when not zero"
                    )
                    found.append(causes.invalid(f"{path}.lifecycle.{hook}.sleep", sleep["seconds"], detail))
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = one.get(name)
        if probe is not None:
            found += _probe(probe, f"{path}.{name}", name)
    return found


def _ports(ports: list[Obj], path: str) -> list[Cause]:
    found: list[Cause] = []
    seen: set[str] = set()
    for index, port in enumerate(ports):
        name = port.get("name")
        if name:
            if name in seen:
                found.append(causes.duplicate(f"{path}[{index}].name", name))
            seen.add(name)
        if not port.get("protocol"):
            found.append(causes.required(f"{path}[{index}].protocol"))
    return found


def _env(env: list[Obj], path: str, volumes: Mapping[str, Obj]) -> list[Cause]:
    found: list[Cause] = []
    for index, variable in enumerate(env):
        source = variable.get("valueFrom")
        if source is None:
            continue
        here = f"{path}[{index}].valueFrom"
        given = [name for name in _SOURCES if source.get(name) is not None]
        if not given:
            options = "`fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
            found.append(causes.invalid(here, "", f"must specify one of: {options}"))
        elif variable.get("value"):
            found.append(causes.invalid(here, "", "may not be specified when `value` is not empty"))
        elif len(given) > 1:
            found.append(causes.invalid(here, "", "may not have more than one field specified at a time"))
        if source.get("fieldRef") is not None:
            found += field_ref(source["fieldRef"], f"{here}.fieldRef", _FIELD_PATHS)
        if source.get("resourceFieldRef") is not None:
            found += resource_field_ref(source["resourceFieldRef"], f"{here}.resourceFieldRef", in_volume=False)
        for name in ("configMapKeyRef", "secretKeyRef"):
            reference = source.get(name)
            if reference is not None and not reference.get("name"):
                found.append(causes.required(f"{here}.{name}.name"))
        if source.get("fileKeyRef") is not None:
            found += _file_key_ref(source["fileKeyRef"], f"{here}.fileKeyRef", volumes)
    return found


def _file_key_ref(reference: Obj, path: str, volumes: Mapping[str, Obj]) -> list[Cause]:
    """A variable from a file: only in a volume that nobody but the pod's own containers writes."""
    found: list[Cause] = []
    volume = reference.get("volumeName")
    if not volume:
        found.append(causes.required(f"{path}.volumeName"))
    elif volume not in volumes:
        found.append(causes.not_found(f"{path}.volumeName", volume))
    elif volumes[volume].get("emptyDir") is None:
        detail = "referenced volume must be of type emptyDir"
        found.append(causes.invalid(f"{path}.volumeName", volume, detail))
    file = reference.get("path")
    if not file:
        found.append(causes.required(f"{path}.path"))
    elif ".." in file.split("/"):
        found.append(causes.invalid(f"{path}.path", file, "must not contain '..'"))
    if not reference.get("key"):
        found.append(causes.required(f"{path}.key"))
    return found


def field_ref(reference: Obj, path: str, supported: Collection[str]) -> list[Cause]:
    """A downward API reference to a field of the pod."""
    field = reference.get("fieldPath") or ""
    base, bracket, subscript = field.partition("['")
    if bracket and base in ("metadata.annotations", "metadata.labels") and subscript.endswith("']"):
        key = subscript[:-2]
        return [causes.invalid(path, key, why) for why in names.qualified_name(key.lower())]
    if field and field not in supported:
        return [causes.not_supported(f"{path}.fieldPath", field, supported)]
    return []


def resource_field_ref(reference: Obj, path: str, *, in_volume: bool) -> list[Cause]:
    """A downward API reference to a container's resources."""
    found: list[Cause] = []
    if in_volume and not reference.get("containerName"):
        found.append(causes.required(f"{path}.containerName"))
    resource = reference.get("resource") or ""
    supported = {f"{side}.{name}" for side in ("limits", "requests") for name in ("cpu", "memory", "ephemeral-storage")}
    if resource and resource not in supported and not resource.partition(".")[2].startswith("hugepages-"):
        found.append(causes.not_supported(f"{path}.resource", resource, supported))
    return found


def _env_from(sources: list[Obj], path: str) -> list[Cause]:
    found: list[Cause] = []
    for index, source in enumerate(sources):
        here = f"{path}[{index}]"
        given = [name for name in ("configMapRef", "secretRef") if source.get(name) is not None]
        if not given:
            found.append(causes.invalid(here, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(given) > 1:
            found.append(causes.invalid(here, "", "may not have more than one field specified at a time"))
        found += [causes.required(f"{here}.{name}.name") for name in given if not source[name].get("name")]
        prefix = source.get("prefix")
        if prefix:
            found += [causes.invalid(f"{here}.prefix", prefix, why) for why in names.env_name(prefix)]
    return found


def _mounts(one: Obj, path: str, volumes: Mapping[str, Obj]) -> list[Cause]:
    found: list[Cause] = []
    seen: set[str] = set()
    for index, mount in enumerate(one["volumeMounts"]):
        here = f"{path}[{index}]"
        name = mount.get("name")
        if name and name not in volumes:
            found.append(causes.not_found(f"{here}.name", name))
        where = mount.get("mountPath")
        if where:
            if where in seen:
                found.append(causes.invalid(f"{here}.mountPath", where, "must be unique"))
            seen.add(where)
        for field in ("subPath", "subPathExpr"):
            if mount.get(field):
                found += local_path(mount[field], f"{here}.{field}")
        if mount.get("subPath") and mount.get("subPathExpr"):
            found.append(
                causes.invalid(
                    f"{here}.subPathExpr", mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive"
                )
            )
        if mount.get("mountPropagation") == "Bidirectional" and not (one.get("securityContext") or {}).get(
            "privileged"
        ):
            detail = "Bidirectional mount propagation is available only to privileged containers"
            found.append(causes.forbidden(f"{here}.mountPropagation", detail))
        if mount.get("recursiveReadOnly") in ("Enabled", "IfPossible") and not mount.get("readOnly"):
            detail = "may only be specified when readOnly is true"
            found.append(causes.forbidden(f"{here}.recursiveReadOnly", detail))
    return found


def local_path(value: str, path: str) -> list[Cause]:
    """A path that stays below where it starts."""
    found: list[Cause] = []
    if value.startswith("/"):
        found.append(causes.invalid(path, value, "must be a relative path"))
    if ".." in value.replace("\\", "/").split("/"):
        found.append(causes.invalid(path, value, "must not contain '..'"))
    return found


def _devices(devices: list[Obj], path: str, volumes: Mapping[str, Obj]) -> list[Cause]:
    found: list[Cause] = []
    for index, device in enumerate(devices):
        name = device.get("name")
        volume = volumes.get(name or "")
        if name and volume is None:
            found.append(causes.not_found(f"{path}[{index}].name", name))
        elif volume is not None and "persistentVolumeClaim" not in volume and "ephemeral" not in volume:
            detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            found.append(causes.invalid(f"{path}[{index}].name", name, detail))
    return found


def _handler(handler: Obj, path: str, allowed: Collection[str]) -> list[Cause]:
    found: list[Cause] = []
    given = [name for name in _HANDLERS if name in allowed and handler.get(name) is not None]
    for name in given[1:]:
        found.append(causes.forbidden(f"{path}.{name}", "may not specify more than 1 handler type"))
    if not given:
        found.append(causes.required(path, "must specify a handler type"))
    if handler.get("exec") is not None and not handler["exec"].get("command"):
        found.append(causes.required(f"{path}.exec.command"))
    for name in ("httpGet", "tcpSocket"):
        action = handler.get(name)
        if action is not None:
            found += port_or_name(action.get("port", 0), f"{path}.{name}.port")
    for index, header in enumerate((handler.get("httpGet") or {}).get("httpHeaders") or ()):
        header_name = header.get("name") or ""
        at = f"{path}.httpGet.httpHeaders[{index}].name"
        found += [causes.invalid(at, header_name, why) for why in names.http_header_name(header_name)]
    return found


def port_or_name(port: int | str, path: str) -> list[Cause]:
    """A port by number or by name."""
    if isinstance(port, int):
        if 1 <= port <= 65535:
            return []
        return [causes.invalid(path, port, "must be between 1 and 65535, inclusive")]
    return [causes.invalid(path, port, why) for why in names.port_name(port)]


def _probe(probe: Obj, path: str, name: str) -> list[Cause]:
    found = _handler(probe, path, ("exec", "httpGet", "tcpSocket", "grpc"))
    if name != "readinessProbe" and probe.get("successThreshold", 1) != 1:
        found.append(causes.invalid(f"{path}.successThreshold", probe["successThreshold"], "must be 1"))
    if name == "readinessProbe" and probe.get("terminationGracePeriodSeconds") is not None:
        detail = "must not be set for readinessProbes"
        value = probe["terminationGracePeriodSeconds"]
        found.append(causes.invalid(f"{path}.terminationGracePeriodSeconds", value, detail))
    return found


def resource_requirements(resources: Obj, path: str, claims: Collection[str] = ()) -> list[Cause]:
    """Requests and limits: known names, no negative amounts, requests within limits."""
    found: list[Cause] = []
    limits = resources.get("limits") or {}
    requests = resources.get("requests") or {}
    for side, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            here = causes.at_key(f"{path}.{side}", name)
            found += resource_name(name, here)
            if amount[0] == "-":
                found.append(causes.invalid(here, amount, "must be greater than or equal to 0"))
            elif "/" in name or name.startswith(_NOT_OVERCOMMITTED_PREFIX):
                found += _whole(name, amount, here)
    for name, amount in requests.items():
        limit = limits.get(name)
        here = causes.at_key(f"{path}.requests", name)
        if limit is not None:
            if amount != limit and parse_quantity(amount) > parse_quantity(limit):
                detail = f"must be less than or equal to {name} limit of {limit}"
                found.append(causes.invalid(f"{path}.requests", amount, detail))
            elif amount != limit and _extended(name) and parse_quantity(amount) != parse_quantity(limit):
                found.append(causes.invalid(f"{path}.requests", amount, f"must be equal to {name} limit of {limit}"))
        elif _extended(name):
            detail = "Limit must be set for non overcommitable resources"
            found.append(causes.required(causes.at_key(f"{path}.limits", name), detail))
    for index, claim in enumerate(resources.get("claims") or ()):
        if claim.get("name") not in claims:
            found.append(causes.not_found(f"{path}.claims[{index}].name", claim.get("name")))
    return found


def _extended(name: str) -> bool:
    return ("/" in name and not name.startswith("kubernetes.io/")) or name.startswith(_NOT_OVERCOMMITTED_PREFIX)


def _whole(name: str, amount: str, path: str) -> list[Cause]:
    if parse_quantity(amount).milli_value % 1000:
        return [causes.invalid(path, amount, "must be an integer")]
    return []


def resource_name(name: str, path: str) -> list[Cause]:
    """A container's resource: a standard one, huge pages, or a qualified name."""
    if name in _STANDARD_RESOURCES or name.startswith(_NOT_OVERCOMMITTED_PREFIX):
        return []
    problems = names.qualified_name(name)
    if problems:
        return [causes.invalid(path, name, why) for why in problems]
    if "/" not in name:
        detail = "must be a standard resource type or fully qualified"
        return [
            causes.invalid(path, name, detail),
            causes.invalid(path, name, "must be a standard resource for containers"),
        ]
    return []


def _security(security: Obj, path: str) -> list[Cause]:
    found: list[Cause] = []
    if security.get("allowPrivilegeEscalation") is False:
        if security.get("privileged"):
            detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            found.append(causes.invalid(path, security, detail))
        if "SYS_ADMIN" in ((security.get("capabilities") or {}).get("add") or ()):
            detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            found.append(causes.invalid(path, security, detail))
    return found + confinement(security, path)


def confinement(security: Obj, path: str) -> list[Cause]:
    """Seccomp and AppArmor profiles of a pod or container."""
    found: list[Cause] = []
    for name in ("seccompProfile", "appArmorProfile"):
        profile = security.get(name)
        if profile is None:
            continue
        local = profile.get("localhostProfile")
        at = f"{path}.{name}.localhostProfile"
        if profile.get("type") == "Localhost":
            if not local:
                found.append(
                    causes.required(
                        at,
                        "must be set when seccomp type is Localhost"
                        if name[0] == "s"
                        else "must be set when AppArmor type is Localhost",
                    )
                )
            elif name == "seccompProfile":
                found += local_path(local, at)
        elif local is not None:
            which = "seccomp type is Localhost" if name[0] == "s" else "AppArmor type is Localhost"
            found.append(causes.invalid(at, local, f"can only be set when {which}"))
    return found
