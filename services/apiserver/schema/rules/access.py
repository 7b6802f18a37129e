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


def webhooks(obj: Obj) -> list[Cause]:
    """Webhook configurations."""
    found: list[Cause] = []
    taken: set[str] = set()
    for index, webhook in enumerate(obj.get("webhooks") or ()):
        here = f"webhooks[{index}]"
        name = webhook.get("name") or ""
        if name:
            problems = names.dns_subdomain(name)
            found += [causes.invalid(f"{here}.name", name, why) for why in problems]
            if not problems and name.count(".") < 2:
                detail = "should be a domain with at least three segments separated by dots"
                found.append(causes.invalid(f"{here}.name", name, detail))
            if name in taken:
                found.append(causes.duplicate(f"{here}.name", name))
            taken.add(name)
        if webhook.get("sideEffects") in ("Unknown", "Some"):
            at = f"{here}.sideEffects"
            found.append(causes.not_supported(at, webhook["sideEffects"], ("None", "NoneOnDryRun")))
        for field in ("namespaceSelector", "objectSelector"):
            found += selectors.label_selector(webhook.get(field), f"{here}.{field}")
        found += _client(webhook.get("clientConfig") or {}, f"{here}.clientConfig")
        found += _rules(webhook.get("rules") or [], f"{here}.rules")
        found += match_conditions(webhook.get("matchConditions") or [], f"{here}.matchConditions")
        known = webhook.get("admissionReviewVersions") or []
        if known and not {"v1", "v1beta1"} & set(known):
            detail = "must include at least one of v1, v1beta1"
            found.append(causes.invalid(f"{here}.admissionReviewVersions", known, detail))
    return found


def _client(config: Obj, path: str) -> list[Cause]:
    url, service = config.get("url"), config.get("service")
    if (url is None) == (service is None):
        return [causes.required(path, "exactly one of url or service is required")]
    if url is not None and not url.startswith("https://"):
        detail = "'https' is the only allowed URL scheme; desired format: https://host[/path]"
        return [causes.invalid(f"{path}.url", url, detail)]
    if service is not None and not 1 <= service.get("port", 443) <= 65535:
        detail = "port is not valid: must be between 1 and 65535, inclusive"
        return [causes.invalid(f"{path}.service.port", service["port"], detail)]
    return []


def _rules(rules: list[Obj], path: str) -> list[Cause]:
    found: list[Cause] = []
    for index, rule in enumerate(rules):
        here = f"{path}[{index}]"
        for field in ("operations", "apiGroups", "apiVersions", "resources"):
            values = rule.get(field) or []
            if not values:
                found.append(causes.required(f"{here}.{field}"))
            elif "*" in values and len(values) > 1 and field != "resources":
                detail = "if '*' is present, must not specify other values"
                found.append(causes.invalid(f"{here}.{field}", values, detail))
    return found


ADMISSION_VARIABLES = ("authorizer", "namespaceObject", "object", "oldObject", "params", "request", "variables")
"""What the expressions of admission policies and match conditions may name."""


def admission_policy(obj: Obj) -> list[Cause]:
    """A ValidatingAdmissionPolicy: it judges something, on something, by expressions that compile."""
    spec = obj.get("spec") or {}
    found: list[Cause] = []
    if not spec.get("validations") and not spec.get("auditAnnotations"):
        detail = "validations or auditAnnotations must be non-empty; at least one of them must be specified"
        found.append(causes.required("spec.validations", detail))
    if spec.get("matchConstraints") is None:
        found.append(causes.required("spec.matchConstraints"))
    elif not spec["matchConstraints"].get("resourceRules"):
        found.append(causes.required("spec.matchConstraints.resourceRules"))
    else:
        found += _rules(spec["matchConstraints"]["resourceRules"], "spec.matchConstraints.resourceRules")
    parameters = spec.get("paramKind")
    if parameters is not None:
        for field in ("apiVersion", "kind"):
            if not parameters.get(field):
                found.append(causes.required(f"spec.paramKind.{field}"))
    for index, one in enumerate(spec.get("validations") or ()):
        here = f"spec.validations[{index}]"
        found += _expression(one.get("expression"), f"{here}.expression", "bool")
        found += _expression(one.get("messageExpression"), f"{here}.messageExpression", "string")
    for index, one in enumerate(spec.get("variables") or ()):
        found += _expression(one.get("expression"), f"spec.variables[{index}].expression", "dyn")
    for index, one in enumerate(spec.get("auditAnnotations") or ()):
        found += _expression(one.get("valueExpression"), f"spec.auditAnnotations[{index}].valueExpression", "string")
    return found + match_conditions(spec.get("matchConditions") or [], "spec.matchConditions")


def match_conditions(conditions: list[Obj], path: str) -> list[Cause]:
    """When a webhook or policy is asked at all: at most 64, each named once, each an expression that compiles."""
    found: list[Cause] = []
    if len(conditions) > 64:
        found.append(causes.too_many(path, len(conditions), 64))
    taken: set[str] = set()
    for index, one in enumerate(conditions[:64]):
        here, name = f"{path}[{index}]", one.get("name") or ""
        if name:
            found += [causes.invalid(f"{here}.name", name, why) for why in names.qualified_name(name)]
        if name in taken:
            found.append(causes.duplicate(f"{here}.name", name))
        taken.add(name)
        found += _expression(one.get("expression"), f"{here}.expression", "bool")
    return found


def _expression(source: str | None, path: str, wanted: str) -> list[Cause]:
    if not source:
        return []
    # CEL is loaded only where there are expressions: it takes time and memory that most clusters never need.
    from services.apiserver.schema import cel

    try:
        kind = cel.compile(source, ADMISSION_VARIABLES).type_name.lower()
    except cel.CelError as error:
        return [causes.invalid(path, source, str(error))]
    if wanted != "dyn" and kind not in (wanted, "dyn"):
        return [causes.invalid(path, source, f"must evaluate to {wanted}")]
    return []


def admission_policy_binding(obj: Obj) -> list[Cause]:
    """What a binding does when its policy says no."""
    actions = (obj.get("spec") or {}).get("validationActions") or []
    found: list[Cause] = []
    if {"Deny", "Warn"} <= set(actions):
        detail = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API "
            "response and headers serves no purpose)"
        )
        found.append(causes.invalid("spec.validationActions", actions, detail))
    if len(set(actions)) != len(actions):
        found.append(causes.duplicate("spec.validationActions", actions))
    return found


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
