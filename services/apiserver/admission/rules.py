"""Which writes a webhook or an admission policy is for: operations, resources, scope, selectors. Pure.

Semantics: `admissionregistration.k8s.io/v1` RuleWithOperations and MatchResources.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from machinery.api.selectors import from_label_selector
from services.apiserver.registry.resource import Registry, Resource
from services.apiserver.write_context import WriteContext

GROUP = "admissionregistration.k8s.io"
EXEMPT = frozenset(
    f"{plural}.{GROUP}"
    for plural in (
        "validatingwebhookconfigurations", "mutatingwebhookconfigurations", "validatingadmissionpolicies",
        "validatingadmissionpolicybindings", "mutatingadmissionpolicies", "mutatingadmissionpolicybindings",
    )
)  # fmt: skip
"""What decides about admission is not subject to it: nobody can lock the cluster's administrator out."""

REVIEW_GROUPS = frozenset(("authentication.k8s.io", "authorization.k8s.io"))
"""Their resources are reviews, all of them. Webhooks see these, policies do not, as upstream has it: a wrong expression
would keep every component that asks who somebody is from its work."""


def rule_matches(rule: Mapping[str, Any], ctx: WriteContext, row: Resource) -> bool:
    """Whether one rule is about this write, seen as an object of `row`."""
    return (
        _contains(rule.get("operations"), ctx.operation)
        and _contains(rule.get("apiGroups"), row.group)
        and _contains(rule.get("apiVersions"), row.version)
        and any(_resource_matches(pattern, row.plural, ctx.subresource) for pattern in rule.get("resources") or ())
        and _scope_matches(rule.get("scope"), row)
        and (not rule.get("resourceNames") or ctx.name in rule["resourceNames"])
    )


def _contains(values: Iterable[str] | None, wanted: str) -> bool:
    return any(value in ("*", wanted) for value in values or ())


def _resource_matches(pattern: str, plural: str, subresource: str) -> bool:
    resource, slash, wanted = pattern.partition("/")
    if resource not in ("*", plural):
        return False
    if not slash:
        return not subresource
    return bool(wanted == "*" or wanted == subresource)


def _scope_matches(scope: str | None, row: Resource) -> bool:
    if scope in (None, "", "*"):
        return True
    return row.namespaced is (scope == "Namespaced") or (row.storage == "namespaces" and scope == "Cluster")


def matching_row(
    rules: Iterable[Mapping[str, Any]], policy: str, ctx: WriteContext, registry: Registry
) -> Resource | None:
    """As what a write matches any of the rules: the row that it came by or, unless the policy is Exact, another version
    of the same."""
    rules = list(rules)
    if any(rule_matches(rule, ctx, ctx.resource) for rule in rules):
        return ctx.resource
    if policy == "Exact" or not ctx.resource.storage:
        return None
    for row in registry.all():
        is_other = row.storage == ctx.resource.storage and row is not ctx.resource
        if is_other and any(rule_matches(rule, ctx, row) for rule in rules):
            return row
    return None


def namespace_selected(selector: Mapping[str, Any] | None, ctx: WriteContext) -> bool:
    """Whether the object's namespace is selected; a namespace is judged by its own labels, cluster-scoped objects
    always are."""
    if not selector or not (selector.get("matchLabels") or selector.get("matchExpressions")):
        return True
    if ctx.resource.storage == "namespaces":
        source = ctx.old if ctx.operation == "DELETE" else ctx.obj
        labels = (source or {}).get("metadata", {}).get("labels") or {}
    elif ctx.resource.namespaced:
        namespace = ctx.lookup.get("namespaces", "", ctx.namespace)
        labels = (namespace or {}).get("metadata", {}).get("labels") or {}
    else:
        return True
    return from_label_selector(dict(selector)).matches(labels)


def object_selected(selector: Mapping[str, Any] | None, ctx: WriteContext) -> bool:
    """Whether the new or the old state of the object is selected."""
    if not selector or not (selector.get("matchLabels") or selector.get("matchExpressions")):
        return True
    parsed = from_label_selector(dict(selector))
    states = [ctx.old] if ctx.operation == "DELETE" else [ctx.obj, ctx.old]
    return any(state is not None and parsed.matches(state.get("metadata", {}).get("labels") or {}) for state in states)


def resources_match(constraints: Mapping[str, Any] | None, ctx: WriteContext, registry: Registry) -> Resource | None:
    """`matchConstraints` or `matchResources` of a policy or its binding: the row as which the write matches, or
    None."""
    if constraints is None:
        return ctx.resource
    if not namespace_selected(constraints.get("namespaceSelector"), ctx):
        return None
    if not object_selected(constraints.get("objectSelector"), ctx):
        return None
    policy = constraints.get("matchPolicy") or "Equivalent"
    if matching_row(constraints.get("excludeResourceRules") or (), policy, ctx, registry) is not None:
        return None
    rules = constraints.get("resourceRules")
    if not rules:
        return ctx.resource
    return matching_row(rules, policy, ctx, registry)
