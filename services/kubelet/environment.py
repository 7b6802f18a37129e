"""A container's environment: variables in every form, `$(NAME)` expansion, Service variables. Pure.

The caller hands in what has to be fetched (`Sources`); a missing required source raises `MissingReference` with the
words that the container's status will show.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lightkube.models import core_v1

from machinery.api.quantity import parse_quantity
from services.kubelet import pod_spec, qos


class MissingReference(Exception):
    """Something that the container's configuration refers to is not there."""


# Any printable ASCII but "=" (RelaxedEnvironmentVariableValidation).
_ENV_NAME = re.compile(r"[ -<>-~]+\Z")


@dataclass(frozen=True, slots=True)
class Sources:
    """What variables can be taken from. The mappings hold a name's data, or None when no such object exists."""

    config_maps: Mapping[str, Mapping[str, str] | None] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, bytes] | None] = field(default_factory=dict)
    services: Iterable[core_v1.Service] = ()
    # (volume name, path, key) -> value, for fileKeyRef.
    read_file_key: Callable[[str, str, str], str | None] = lambda _volume, _path, _key: None


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What the downward API tells of the node and the addresses."""

    node_name: str
    host_ips: tuple[str, ...] = ()
    pod_ips: tuple[str, ...] = ()
    allocatable: Mapping[str, str] = field(default_factory=dict)


def references(container: pod_spec.AnyContainer) -> tuple[set[str], set[str]]:
    """Names of the config maps and of the secrets that the container's variables come from."""
    config_maps: set[str] = set()
    secrets: set[str] = set()
    for source in container.envFrom or ():
        if source.configMapRef:
            config_maps.add(source.configMapRef.name or "")
        if source.secretRef:
            secrets.add(source.secretRef.name or "")
    for variable in container.env or ():
        origin = variable.valueFrom
        if origin and origin.configMapKeyRef:
            config_maps.add(origin.configMapKeyRef.name or "")
        if origin and origin.secretKeyRef:
            secrets.add(origin.secretKeyRef.name or "")
    return config_maps, secrets


def build(pod: core_v1.Pod, container: pod_spec.AnyContainer, sources: Sources, node: NodeFacts) -> dict[str, str]:
    """The environment, in order: envFrom, then env, with the Services' variables below both."""
    service_vars = service_variables(sources.services, pod)
    result = dict(_from_whole_objects(pod, container, sources))
    own: dict[str, str] = {}
    for variable in container.env or ():
        if variable.valueFrom is None:
            value: str | None = expand(variable.value or "", lambda name: _lookup(name, own, result, service_vars))
        else:
            value = _from_reference(pod, container, variable, sources, node)
        if value is not None:
            own[variable.name] = value
    return {**service_vars, **result, **own}


def _lookup(name: str, *scopes: Mapping[str, str]) -> str | None:
    return next((scope[name] for scope in scopes if name in scope), None)


def expand(text: str, lookup: Callable[[str], str | None]) -> str:
    """Kubernetes' `$(NAME)` expansion: `$$` is a dollar, an unknown name stays as it was written."""
    out: list[str] = []
    i = 0
    while i < len(text):
        if text[i] != "$" or i + 1 >= len(text):
            out.append(text[i])
            i += 1
        elif text[i + 1] == "$":
            out.append("$")
            i += 2
        elif text[i + 1] == "(" and (end := text.find(")", i + 2)) != -1:
            value = lookup(text[i + 2 : end])
            out.append(text[i : end + 1] if value is None else value)
            i = end + 1
        else:
            out.append("$")
            i += 1
    return "".join(out)


def _from_whole_objects(
    pod: core_v1.Pod, container: pod_spec.AnyContainer, sources: Sources
) -> Iterable[tuple[str, str]]:
    for source in container.envFrom or ():
        prefix = source.prefix or ""
        if source.configMapRef:
            data = _whole(sources.config_maps, "configmap", source.configMapRef)
            pairs = list((data or {}).items())
        elif source.secretRef:
            data = _whole(sources.secrets, "secret", source.secretRef)
            pairs = [(name, _text(value)) for name, value in (data or {}).items()]
        else:
            continue
        for name, value in sorted(pairs):
            if _ENV_NAME.match(prefix + name):
                yield prefix + name, value


def _whole(
    objects: Mapping[str, Mapping[str, Any] | None],
    kind: str,
    reference: core_v1.ConfigMapEnvSource | core_v1.SecretEnvSource,
) -> Mapping[str, Any] | None:
    data = objects.get(reference.name or "")
    if data is None and not reference.optional:
        raise MissingReference(f'{kind} "{reference.name}" not found')
    return data


def _text(value: bytes | str) -> str:
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else value


def _from_reference(
    pod: core_v1.Pod, container: pod_spec.AnyContainer, variable: core_v1.EnvVar, sources: Sources, node: NodeFacts
) -> str | None:
    origin = variable.valueFrom
    if origin.fieldRef:
        return field_value(pod, origin.fieldRef.fieldPath, node)
    if origin.resourceFieldRef:
        return resource_value(pod, container, origin.resourceFieldRef, node)
    if origin.configMapKeyRef:
        return _key(sources.config_maps, "configmap", "ConfigMap", pod, origin.configMapKeyRef)
    if origin.secretKeyRef:
        return _key(sources.secrets, "secret", "Secret", pod, origin.secretKeyRef)
    if origin.fileKeyRef:
        ref = origin.fileKeyRef
        value = sources.read_file_key(ref.volumeName, ref.path, ref.key)
        if value is None and not ref.optional:
            raise MissingReference(f'environment variable key "{ref.key}" not found in file "{ref.path}"')
        return value
    return None


def _key(objects, kind: str, title: str, pod: core_v1.Pod, ref) -> str | None:  # type: ignore[no-untyped-def]
    data = objects.get(ref.name or "")
    if data is None:
        if ref.optional:
            return None
        raise MissingReference(f'{kind} "{ref.name}" not found')
    if ref.key not in data:
        if ref.optional:
            return None
        raise MissingReference(f"couldn't find key {ref.key} in {title} {pod.metadata.namespace}/{ref.name}")
    return _text(data[ref.key])


_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]\Z")


def field_value(pod: core_v1.Pod, path: str, node: NodeFacts) -> str:
    """The value of a downward API field path."""
    meta = pod.metadata
    match = _SUBSCRIPT.match(path)
    if match:
        return (getattr(meta, match[1]) or {}).get(match[2], "")
    if path in ("metadata.labels", "metadata.annotations"):
        return format_map(getattr(meta, path.removeprefix("metadata.")) or {})
    simple: dict[str, str] = {
        "metadata.name": meta.name or "",
        "metadata.namespace": meta.namespace or "",
        "metadata.uid": meta.uid or "",
        "spec.nodeName": node.node_name,
        "spec.serviceAccountName": pod.spec.serviceAccountName or "",
        "status.hostIP": node.host_ips[0] if node.host_ips else "",
        "status.hostIPs": ",".join(node.host_ips),
        "status.podIP": node.pod_ips[0] if node.pod_ips else "",
        "status.podIPs": ",".join(node.pod_ips),
    }
    if path not in simple:
        raise MissingReference(f"unsupported fieldPath: {path}")
    return simple[path]


def format_map(values: Mapping[str, str]) -> str:
    """Labels or annotations as a downward API file shows them: sorted `key="value"` lines, the value quoted."""
    return "\n".join(f"{name}={_quote(values[name])}" for name in sorted(values))


def _quote(text: str) -> str:
    escaped = (
        text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    )
    return f'"{escaped}"'


def resource_value(
    pod: core_v1.Pod, container: pod_spec.AnyContainer, ref: core_v1.ResourceFieldSelector, node: NodeFacts
) -> str:
    """A limit or request divided by the divisor, rounded up; without a limit, what the node can give."""
    target = pod_spec.find_container(pod, ref.containerName) if ref.containerName else container
    if target is None:
        raise MissingReference(f"container {ref.containerName} not found")
    side, _, name = ref.resource.partition(".")
    limits, requests = qos.effective_limits(pod, target), qos.requests(target)
    limit = limits.get(name) or node.allocatable.get(name, "0")
    value = limit if side == "limits" else requests.get(name, "0")
    divisor = parse_quantity(str(ref.divisor)) if ref.divisor not in (None, "", "0") else parse_quantity("1")
    divisor_milli = max(1, divisor.milli_value)
    return str(-(-parse_quantity(str(value)).milli_value // divisor_milli))


def service_variables(services: Iterable[core_v1.Service], pod: core_v1.Pod) -> dict[str, str]:
    """`NAME_SERVICE_HOST` and the rest, for the pod's namespace (unless switched off), and always for the
    apiserver's own Service.
    """
    links = pod.spec.enableServiceLinks is not False
    chosen: dict[str, core_v1.Service] = {}
    for service in services:
        address = service.spec.clusterIP if service.spec else None
        if not address or address == "None":
            continue
        name, namespace = service.metadata.name, service.metadata.namespace
        if namespace == pod.metadata.namespace and (links or name == "kubernetes"):
            chosen[name] = service
        elif namespace == "default" and name == "kubernetes":
            chosen.setdefault(name, service)
    out: dict[str, str] = {}
    for name, service in chosen.items():
        _one_service(out, name.upper().replace("-", "_"), service)
    return out


def _one_service(out: dict[str, str], prefix: str, service: core_v1.Service) -> None:
    address = service.spec.clusterIP
    bracketed = f"[{address}]" if ":" in address else address
    ports = service.spec.ports or []
    out[f"{prefix}_SERVICE_HOST"] = address
    for index, port in enumerate(ports):
        if index == 0:
            out[f"{prefix}_SERVICE_PORT"] = str(port.port)
            out[f"{prefix}_PORT"] = f"{(port.protocol or 'TCP').lower()}://{bracketed}:{port.port}"
        if port.name:
            out[f"{prefix}_SERVICE_PORT_{port.name.upper().replace('-', '_')}"] = str(port.port)
        protocol = port.protocol or "TCP"
        stem = f"{prefix}_PORT_{port.port}_{protocol.upper()}"
        out[stem] = f"{protocol.lower()}://{bracketed}:{port.port}"
        out[f"{stem}_PROTO"] = protocol.lower()
        out[f"{stem}_PORT"] = str(port.port)
        out[f"{stem}_ADDR"] = address
