"""Configuration and access: config maps, secrets, roles and bindings, certificates, leases."""

from __future__ import annotations

from services.apiserver.rest.columns.formats import NONE, created, human_duration
from services.apiserver.rest.columns.layout import Cells, Columns, Object


def _config_map(obj: Object) -> Cells:
    return [obj["metadata"]["name"], len(obj.get("data") or ()) + len(obj.get("binaryData") or ()), created(obj)]


def _secret(obj: Object) -> Cells:
    return [obj["metadata"]["name"], obj.get("type", ""), len(obj.get("data") or ()), created(obj)]


def _created_at(obj: Object) -> Cells:
    return [obj["metadata"]["name"], obj["metadata"].get("creationTimestamp", "")]


def _binding(obj: Object) -> Cells:
    ref = obj.get("roleRef") or {}
    subjects: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in obj.get("subjects") or ():
        name = subject.get("name", "")
        if subject.get("kind") == "ServiceAccount":
            name = f"{subject.get('namespace', '')}/{name}"
        subjects.setdefault(subject.get("kind", ""), []).append(name)
    joined = [", ".join(subjects[kind]) for kind in ("User", "Group", "ServiceAccount")]
    return [obj["metadata"]["name"], f"{ref.get('kind', '')}/{ref.get('name', '')}", created(obj), *joined]


def _signing_request(obj: Object) -> Cells:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    types = {c.get("type") for c in status.get("conditions") or ()}
    states = [
        shown
        for condition, shown in (("Approved", "Approved"), ("Denied", "Denied"), ("Failed", "Failed"))
        if condition in types
    ]
    text = ",".join(states) or "Pending"
    if status.get("certificate"):
        text += ",Issued"
    seconds = spec.get("expirationSeconds")
    duration = NONE if seconds is None else human_duration(seconds)
    return [
        obj["metadata"]["name"],
        created(obj),
        spec.get("signerName", NONE),
        spec.get("username", ""),
        duration,
        text,
    ]


def _lease(obj: Object) -> Cells:
    return [obj["metadata"]["name"], (obj.get("spec") or {}).get("holderIdentity") or "", created(obj)]


_BINDING = "Name, Role, Age, Users*, Groups*, ServiceAccounts*"
_CREATED = "Name, Created At:date"

TABLES = {
    "configmaps": Columns("Name, Data, Age", _config_map),
    "secrets": Columns("Name, Type, Data, Age", _secret),
    "roles.rbac.authorization.k8s.io": Columns(_CREATED, _created_at),
    "clusterroles.rbac.authorization.k8s.io": Columns(_CREATED, _created_at),
    "rolebindings.rbac.authorization.k8s.io": Columns(_BINDING, _binding),
    "clusterrolebindings.rbac.authorization.k8s.io": Columns(_BINDING, _binding),
    "certificatesigningrequests.certificates.k8s.io": Columns(
        "Name, Age, SignerName, Requestor, RequestedDuration, Condition", _signing_request
    ),
    "leases.coordination.k8s.io": Columns("Name, Holder, Age", _lease),
    "customresourcedefinitions.apiextensions.k8s.io": Columns(_CREATED, _created_at),
}
