"""Which FlowSchema a request belongs to: of those that match, the one with the lowest matchingPrecedence, then by name.
Pure.

Semantics: `flowcontrol.apiserver.k8s.io/v1`, https://kubernetes.io/docs/concepts/cluster-administration/flow-control/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from services.apiserver.request import User

Obj = Mapping[str, Any]

_SERVICE_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Asked:
    """What schemas look at. `namespace` is empty for what has none; `path` counts only where `is_resource` is not."""

    user: User
    verb: str
    is_resource: bool
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    path: str = ""


def in_order(schemas: Iterable[Obj]) -> list[Obj]:
    """Schemas as they are tried."""
    return sorted(schemas, key=lambda schema: (schema["spec"].get("matchingPrecedence", 0), schema["metadata"]["name"]))


def first_match(schemas: Iterable[Obj], asked: Asked) -> Obj | None:
    """The first of the schemas, which are in order, that matches."""
    return next((schema for schema in schemas if matches(schema, asked)), None)


def matches(schema: Obj, asked: Asked) -> bool:
    """Whether one of a schema's rules is about the request."""
    return any(
        any(_is_subject(subject, asked.user) for subject in rule.get("subjects") or ())
        and (
            any(_is_resource(one, asked) for one in rule.get("resourceRules") or ())
            if asked.is_resource
            else any(_is_path(one, asked) for one in rule.get("nonResourceRules") or ())
        )
        for rule in schema["spec"].get("rules") or ()
    )


def looks_at_namespaces(schemas: Iterable[Obj]) -> bool:
    """Whether any schema tells namespaces apart. If none does, requests in all namespaces are alike."""
    return any(
        list(one.get("namespaces") or ()) not in ([], ["*"])
        for schema in schemas
        for rule in schema["spec"].get("rules") or ()
        for one in rule.get("resourceRules") or ()
    )


def distinguisher(method: str, user: str, namespace: str) -> str:
    """What tells flows of one schema apart. `method` is ByUser, ByNamespace or empty."""
    if method == "ByUser":
        return user
    return namespace if method == "ByNamespace" else ""


def _is_subject(subject: Obj, user: User) -> bool:
    kind = subject.get("kind")
    if kind == "User":
        return (subject.get("user") or {}).get("name") in ("*", user.name)
    if kind == "Group":
        name = (subject.get("group") or {}).get("name")
        return name == "*" or name in user.groups
    if kind == "ServiceAccount":
        account = subject.get("serviceAccount") or {}
        if not user.name.startswith(_SERVICE_ACCOUNT):
            return False
        namespace, _, name = user.name[len(_SERVICE_ACCOUNT) :].partition(":")
        return bool(namespace == account.get("namespace") and account.get("name") in ("*", name))
    return False


def _contains(values: Iterable[str] | None, wanted: str) -> bool:
    return any(value in ("*", wanted) for value in values or ())


def _is_resource(rule: Obj, asked: Asked) -> bool:
    wanted = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
    return (
        _contains(rule.get("verbs"), asked.verb)
        and _contains(rule.get("apiGroups"), asked.group)
        and _contains(rule.get("resources"), wanted)
        and (_contains(rule.get("namespaces"), asked.namespace) if asked.namespace else bool(rule.get("clusterScope")))
    )


def _is_path(rule: Obj, asked: Asked) -> bool:
    return _contains(rule.get("verbs"), asked.verb) and any(
        pattern in ("*", asked.path) or (pattern.endswith("/*") and asked.path.startswith(pattern[:-1]))
        for pattern in rule.get("nonResourceURLs") or ()
    )
