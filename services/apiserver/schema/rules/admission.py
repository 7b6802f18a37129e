"""Admission webhooks and policies: on what they are asked, and expressions that compile."""

from __future__ import annotations

from typing import Any

from machinery.api.errors import Cause
from services.apiserver.schema import causes, names
from services.apiserver.schema.rules import selectors

Obj = dict[str, Any]

ADMISSION_VARIABLES = ("authorizer", "namespaceObject", "object", "oldObject", "params", "request", "variables")
"""What the expressions of admission policies and match conditions may name."""


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


def admission_policy(obj: Obj) -> list[Cause]:
    """A ValidatingAdmissionPolicy: it judges something, on something, by expressions that compile."""
    spec = obj.get("spec") or {}
    found: list[Cause] = []
    if not spec.get("validations") and not spec.get("auditAnnotations"):
        detail = "validations or auditAnnotations must be non-empty; at least one of them must be specified"
        found.append(causes.required("spec.validations", detail))
    found += _what_it_is_for(spec)
    for index, one in enumerate(spec.get("validations") or ()):
        here = f"spec.validations[{index}]"
        found += _expression(one.get("expression"), f"{here}.expression", "bool")
        found += _expression(one.get("messageExpression"), f"{here}.messageExpression", "string")
    for index, one in enumerate(spec.get("auditAnnotations") or ()):
        found += _expression(one.get("valueExpression"), f"spec.auditAnnotations[{index}].valueExpression", "string")
    return found + _variables_and_conditions(spec)


def mutating_admission_policy(obj: Obj) -> list[Cause]:
    """A MutatingAdmissionPolicy: it changes something, on something, by expressions that compile."""
    spec = obj.get("spec") or {}
    found = _what_it_is_for(spec)
    if not spec.get("mutations"):
        found.append(causes.required("spec.mutations", "mutations must contain at least one item"))
    for index, one in enumerate(spec.get("mutations") or ()):
        here, sort = f"spec.mutations[{index}]", one.get("patchType") or ""
        if sort not in _MUTATIONS:
            found.append(
                causes.not_supported(f"{here}.patchType", sort, sorted(_MUTATIONS))
                if sort
                else causes.required(f"{here}.patchType")
            )
            continue
        for other, (field, wanted) in _MUTATIONS.items():
            given = one.get(field)
            if other != sort:
                if given is not None:
                    detail = f"must not be specified when patchType is {sort}"
                    found.append(causes.invalid(f"{here}.{field}", "{" + field + "}", detail))
            elif not (given or {}).get("expression"):
                found.append(causes.required(f"{here}.{field}.expression"))
            else:
                found += _mutation(given["expression"], f"{here}.{field}.expression", wanted)
    return found + _variables_and_conditions(spec)


_MUTATIONS = {"ApplyConfiguration": ("applyConfiguration", "map"), "JSONPatch": ("jsonPatch", "list")}
"""patchType -> (the field that goes with it, what its expression gives once its literals are maps)."""


def _mutation(source: str, path: str, wanted: str) -> list[Cause]:
    from machinery import cel
    from services.apiserver.schema.cel_objects import as_maps

    try:
        kind = cel.compile(as_maps(source), ADMISSION_VARIABLES).type_name.lower()
    except cel.CelError as error:
        return [causes.invalid(path, source, str(error))]
    if kind != "dyn" and not kind.startswith(wanted):
        return [causes.invalid(path, source, f"must evaluate to {'Object' if wanted == 'map' else 'list(JSONPatch)'}")]
    return []


def _what_it_is_for(spec: Obj) -> list[Cause]:
    found: list[Cause] = []
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
    return found


def _variables_and_conditions(spec: Obj) -> list[Cause]:
    found: list[Cause] = []
    for index, one in enumerate(spec.get("variables") or ()):
        found += _expression(one.get("expression"), f"spec.variables[{index}].expression", "dyn")
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
    from machinery import cel

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
