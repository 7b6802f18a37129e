"""RBAC, certificates, admission and scaling."""

from __future__ import annotations

from typing import Any

from machinery.api.errors import Cause
from services.apiserver.schema import causes, names
from services.apiserver.schema.rules import selectors

Obj = dict[str, Any]

_RBAC = "rbac.authorization.k8s.io"


def role(obj: Obj, *, namespaced: bool) -> list[Cause]:
    """A Role or ClusterRole's rules."""
    found: list[Cause] = []
    for index, rule in enumerate(obj.get("rules") or ()):
        here = f"rules[{index}]"
        if not rule.get("verbs"):
            found.append(causes.required(f"{here}.verbs", "verbs must contain at least one value"))
        if rule.get("nonResourceURLs"):
            if namespaced:
                detail = "namespaced rules cannot apply to non-resource URLs"
                found.append(causes.invalid(f"{here}.nonResourceURLs", rule["nonResourceURLs"], detail))
            if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
                detail = "rules cannot apply to both regular resources and non-resource URLs"
                found.append(causes.invalid(f"{here}.nonResourceURLs", rule["nonResourceURLs"], detail))
            continue
        if not rule.get("apiGroups"):
            found.append(causes.required(f"{here}.apiGroups", "resource rules must supply at least one api group"))
        if not rule.get("resources"):
            found.append(causes.required(f"{here}.resources", "resource rules must supply at least one resource"))
    aggregation = obj.get("aggregationRule")
    if aggregation is not None:
        if not aggregation.get("clusterRoleSelectors"):
            detail = "at least one clusterRoleSelector required if aggregationRule is non-nil"
            found.append(causes.required("aggregationRule.clusterRoleSelectors", detail))
        for index, selector in enumerate(aggregation.get("clusterRoleSelectors") or ()):
            found += selectors.label_selector(selector, f"aggregationRule.clusterRoleSelectors[{index}]")
    return found


def binding(obj: Obj, *, namespaced: bool) -> list[Cause]:
    """A RoleBinding or ClusterRoleBinding."""
    found: list[Cause] = []
    reference = obj.get("roleRef") or {}
    if reference.get("apiGroup") not in (_RBAC, None, ""):
        found.append(causes.not_supported("roleRef.apiGroup", reference["apiGroup"], (_RBAC,)))
    if not namespaced and reference.get("kind") == "Role":
        found.append(causes.not_supported("roleRef.kind", "Role", ("ClusterRole",)))
    name = reference.get("name")
    if name:
        found += [causes.invalid("roleRef.name", name, why) for why in names.path_segment(name)]
    for index, subject in enumerate(obj.get("subjects") or ()):
        here = f"subjects[{index}]"
        group, kind = subject.get("apiGroup") or "", subject.get("kind")
        if kind == "ServiceAccount":
            if subject.get("name"):
                found += [
                    causes.invalid(f"{here}.name", subject["name"], why) for why in names.dns_subdomain(subject["name"])
                ]
            if group:
                found.append(causes.not_supported(f"{here}.apiGroup", group, ("",)))
            if not subject.get("namespace"):
                found.append(causes.required(f"{here}.namespace"))
        elif kind in ("User", "Group") and group != _RBAC:
            found.append(causes.not_supported(f"{here}.apiGroup", group, (_RBAC,)))
    return found


def update_binding(new: Obj, old: Obj) -> list[Cause]:
    """A binding keeps its role."""
    if new.get("roleRef") != old.get("roleRef"):
        return [causes.invalid("roleRef", new.get("roleRef"), "cannot change roleRef")]
    return []


def signing_request(obj: Obj) -> list[Cause]:
    """A CertificateSigningRequest: signer and usages. The request itself is judged where it can be parsed."""
    spec = obj.get("spec") or {}
    found: list[Cause] = []
    if not spec.get("usages"):
        found.append(causes.required("spec.usages"))
    signer = spec.get("signerName") or ""
    if signer:
        domain, slash, path = signer.partition("/")
        if not slash or not path or "." not in domain:
            detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
            found.append(causes.invalid("spec.signerName", signer, detail))
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < 600:
        found.append(
            causes.invalid(
                "spec.expirationSeconds", seconds, "may not specify a duration less than 600 seconds (10 minutes)"
            )
        )
    return found


def update_signing_request(new: Obj, old: Obj) -> list[Cause]:
    """What was asked for stays."""
    if new.get("spec") != old.get("spec"):
        return [causes.immutable("spec", new.get("spec"))]
    return []


def autoscaler(obj: Obj) -> list[Cause]:
    """A HorizontalPodAutoscaler: bounds, metrics, behaviour."""
    spec = obj.get("spec") or {}
    found: list[Cause] = []
    low, high = spec.get("minReplicas"), spec.get("maxReplicas") or 0
    if low is not None and 0 < high < low:
        detail = "must be greater than or equal to `minReplicas`"
        found.append(causes.invalid("spec.maxReplicas", high, detail))
    for index, metric in enumerate(spec.get("metrics") or ()):
        found += _metric(metric, f"spec.metrics[{index}]")
    behavior = spec.get("behavior") or {}
    for name in ("scaleUp", "scaleDown"):
        rules = behavior.get(name)
        if rules is not None and rules.get("policies") == []:
            found.append(causes.required(f"spec.behavior.{name}.policies", "must specify at least one Policy"))
    return found


_METRICS = {
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "External": "external",
}


def _metric(metric: Obj, path: str) -> list[Cause]:
    wanted = _METRICS.get(metric.get("type") or "")
    found: list[Cause] = []
    for name in _METRICS.values():
        if metric.get(name) is not None and name != wanted:
            found.append(causes.forbidden(f"{path}.{name}", "must populate the given metric source only"))
    if wanted is None:
        return found
    source = metric.get(wanted)
    if source is None:
        return [*found, causes.required(f"{path}.{wanted}", "must populate information for the given metric source")]
    target = source.get("target") or {}
    given = {name for name in ("value", "averageValue", "averageUtilization") if target.get(name) is not None}
    if not given:
        found.append(
            causes.required(
                f"{path}.{wanted}.target",
                "must set either a target raw value or a target utilization"
                if wanted == "resource"
                else "must set either a target value or averageValue",
            )
        )
    if (target.get("averageUtilization") or 1) < 1:
        at = f"{path}.{wanted}.target.averageUtilization"
        found.append(causes.invalid(at, target["averageUtilization"], "must be greater than 0"))
    return found
