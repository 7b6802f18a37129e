"""The values that field selectors and watch indices see, per kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.apiserver.schema.definitions import KindLike

Obj = dict[str, Any]
_Path = tuple[str, ...]
_META: tuple[str, ...] = ("metadata.name", "metadata.namespace")


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)


def _reader(paths: dict[str, _Path], zeros: dict[str, str]) -> Callable[[Obj, dict[str, str]], None]:
    def read(obj: Obj, out: dict[str, str]) -> None:
        for field, path in paths.items():
            value: Any = obj
            for step in path:
                value = value.get(step) if isinstance(value, dict) else None
                if value is None:
                    break
            out[field] = zeros.get(field, "") if value is None else _text(value)

    return read


def _paths(*fields: str) -> dict[str, _Path]:
    return {field: tuple(field.split(".")) for field in fields}


def _pod_ip(obj: Obj, out: dict[str, str]) -> None:
    """The first of status.podIPs; older writers set only status.podIP."""
    status = obj.get("status") or {}
    ips = status.get("podIPs")
    out["status.podIP"] = (ips[0].get("ip") or "") if ips else (status.get("podIP") or "")


_EVENT = _paths(
    "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
    "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath",
    "reason", "reportingComponent", "type",
) | {"source": ("source", "component")}  # fmt: skip
_NEW_EVENT: dict[str, _Path] = (
    {field: path for field, path in _EVENT.items() if not field.startswith("involved")}
    | {
        f"regarding.{part}": ("regarding", part)
        for part in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    }
    | {"reportingController": ("reportingController",)}
)

_FIELDS: dict[tuple[str, str], dict[str, _Path]] = {
    ("", "Pod"): _paths(
        "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
        "status.phase", "status.nominatedNodeName",
    ),
    ("", "Event"): _EVENT,
    ("events.k8s.io", "Event"): _NEW_EVENT,
    ("", "Node"): _paths("spec.unschedulable"),
    ("", "Secret"): _paths("type"),
    ("", "Namespace"): _paths("status.phase"),
    ("", "Service"): _paths("spec.clusterIP", "spec.type"),
    ("", "ReplicationController"): _paths("status.replicas"),
    ("apps", "ReplicaSet"): _paths("status.replicas"),
    ("batch", "Job"): {"status.successful": ("status", "succeeded")},
    ("certificates.k8s.io", "CertificateSigningRequest"): _paths("spec.signerName"),
    ("certificates.k8s.io", "ClusterTrustBundle"): _paths("spec.signerName"),
    ("resource.k8s.io", "ResourceSlice"): _paths("spec.nodeName", "spec.driver"),
}  # fmt: skip
_ZEROS: dict[str, str] = {
    "spec.hostNetwork": "false",
    "spec.unschedulable": "false",
    "status.replicas": "0",
    "status.successful": "0",
}
_READERS: dict[tuple[str, str], Callable[[Obj, dict[str, str]], None]] = {
    key: _reader(paths, _ZEROS) for key, paths in _FIELDS.items()
}


def field_values(kind: KindLike, obj: Obj) -> dict[str, str]:
    """Every selectable field of an object of a built-in kind, as text."""
    metadata = obj.get("metadata") or {}
    out = {"metadata.name": metadata.get("name") or "", "metadata.namespace": metadata.get("namespace") or ""}
    read = _READERS.get((kind.group, kind.kind))
    if read is not None:
        read(obj, out)
        if kind.kind == "Pod" and not kind.group:
            _pod_ip(obj, out)
        elif kind.kind == "Event" and not out["source"]:
            out["source"] = out.get("reportingComponent") or out.get("reportingController") or ""
    return out


def supported(kind: KindLike) -> frozenset[str]:
    """The fields by which objects of a kind can be selected."""
    fields = frozenset(_FIELDS.get((kind.group, kind.kind), ())) | frozenset(_META)
    return fields | {"status.podIP"} if (kind.group, kind.kind) == ("", "Pod") else fields


def not_supported(field: str) -> str:
    """The message of the BadRequest for a field selector that asks for another field."""
    return f"field label not supported: {field}"
