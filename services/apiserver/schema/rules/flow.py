"""Priority and fairness: FlowSchemas and PriorityLevelConfigurations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from machinery.api.errors import Cause
from services.apiserver.flow import standard
from services.apiserver.schema import causes, names

Obj = dict[str, Any]

PRECEDENCE_MAX = 10_000
QUEUES_MAX = 10_000_000
HASH_BITS_MAX = 60
"""What the number of possible hands may need of a flow's hash."""
_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch")
_SUBJECTS = {"User": "user", "Group": "group", "ServiceAccount": "serviceAccount"}


def schema(obj: Obj) -> list[Cause]:
    """A FlowSchema."""
    spec, name = obj.get("spec") or {}, obj["metadata"].get("name")
    found: list[Cause] = []
    precedence = spec.get("matchingPrecedence") or 0
    here = "spec.matchingPrecedence"
    if precedence <= 0:
        found.append(causes.invalid(here, precedence, "must be a positive value"))
    if precedence > PRECEDENCE_MAX:
        found.append(causes.invalid(here, precedence, f"must not be greater than {PRECEDENCE_MAX}"))
    if precedence == 1 and name != standard.EXEMPT:
        found.append(causes.invalid(here, precedence, "only the schema named 'exempt' may have matchingPrecedence 1"))
    method = spec.get("distinguisherMethod")
    if method is not None and method.get("type") not in ("ByUser", "ByNamespace"):
        here = "spec.distinguisherMethod.type"
        found.append(causes.not_supported(here, method.get("type", ""), ("ByNamespace", "ByUser")))
    level = (spec.get("priorityLevelConfiguration") or {}).get("name")
    here = "spec.priorityLevelConfiguration.name"
    if not level:
        found.append(causes.required(here, "must reference a priority level"))
    else:
        found += [causes.invalid(here, level, why) for why in names.dns_subdomain(level)]
    for index, rule in enumerate(spec.get("rules") or ()):
        found += _rule(rule, f"spec.rules[{index}]")
    fixed = next((one["spec"] for one in standard.schemas() if one["metadata"]["name"] == name), None)
    if name in standard.MANDATORY and spec != fixed:
        found.append(causes.invalid("spec", spec, f"spec of '{name}' must equal the fixed value"))
    return found


def _rule(rule: Obj, path: str) -> list[Cause]:
    found: list[Cause] = []
    subjects = rule.get("subjects") or ()
    if not subjects:
        found.append(causes.required(f"{path}.subjects", "subjects must contain at least one value"))
    for index, subject in enumerate(subjects):
        found += _subject(subject, f"{path}.subjects[{index}]")
    resources, paths = rule.get("resourceRules") or (), rule.get("nonResourceRules") or ()
    if not resources and not paths:
        detail = "at least one of resourceRules and nonResourceRules has to be non-empty"
        found.append(causes.required(path, detail))
    for index, one in enumerate(resources):
        here = f"{path}.resourceRules[{index}]"
        found += _verbs(one, here)
        found += _wild(one, here, "apiGroups", "resource rules must supply at least one api group", "api groups")
        found += _wild(one, here, "resources", "resource rules must supply at least one resource", "resources")
        if one.get("namespaces") or not one.get("clusterScope"):
            detail = "resource rules that are not cluster scoped must supply at least one namespace"
            found += _wild(one, here, "namespaces", detail, "namespaces")
    for index, one in enumerate(paths):
        here = f"{path}.nonResourceRules[{index}]"
        found += _verbs(one, here)
        detail = "nonResourceURLs must contain at least one value"
        found += _wild(one, here, "nonResourceURLs", detail, "non-resource URLs")
        for number, url in enumerate(one.get("nonResourceURLs") or ()):
            if url != "*" and not url.startswith("/"):
                found.append(causes.invalid(f"{here}.nonResourceURLs[{number}]", url, "must start with slash"))
    return found


def _subject(subject: Obj, path: str) -> list[Cause]:
    kind = subject.get("kind")
    own = _SUBJECTS.get(str(kind))
    if own is None:
        return [causes.not_supported(f"{path}.kind", kind or "", _SUBJECTS)]
    found = [
        causes.forbidden(f"{path}.{field}", f"{field} is forbidden when subject kind is not '{other}'")
        for other, field in _SUBJECTS.items()
        if field != own and subject.get(field) is not None
    ]
    value = subject.get(own)
    if value is None:
        return [*found, causes.required(f"{path}.{own}", f"{own} is required when subject kind is '{kind}'")]
    if not value.get("name"):
        found.append(causes.required(f"{path}.{own}.name"))
    if kind == "ServiceAccount" and not value.get("namespace"):
        detail = "must specify namespace for service account"
        found.append(causes.required(f"{path}.{own}.namespace", detail))
    return found


def _verbs(rule: Obj, path: str) -> list[Cause]:
    verbs = rule.get("verbs") or []
    found = _wild(rule, path, "verbs", "verbs must contain at least one value", "verbs")
    if "*" not in verbs and not set(verbs) <= set(_VERBS):
        found.append(causes.not_supported(f"{path}.verbs", verbs, _VERBS))
    return found


def _wild(rule: Obj, path: str, field: str, missing: str, others: str) -> list[Cause]:
    values: Sequence[Any] = rule.get(field) or []
    if not values:
        return [causes.required(f"{path}.{field}", missing)]
    if "*" in values and len(values) > 1:
        return [causes.invalid(f"{path}.{field}", values, f"if '*' is present, must not specify other {others}")]
    return []


def level(obj: Obj) -> list[Cause]:
    """A PriorityLevelConfiguration."""
    spec, name = obj.get("spec") or {}, obj["metadata"].get("name")
    kind, limited, exempt = spec.get("type"), spec.get("limited"), spec.get("exempt")
    found: list[Cause] = []
    if (name == standard.EXEMPT) != (kind == "Exempt"):
        found.append(causes.invalid("spec.type", kind, "must be 'Exempt' if and only if `name` is 'exempt'"))
    if kind == "Exempt":
        if limited is not None:
            found.append(causes.forbidden("spec.limited", "must be nil if the type is not Limited"))
        found += _numbers(exempt or {}, "spec.exempt")
    elif kind == "Limited":
        if exempt is not None:
            found.append(causes.forbidden("spec.exempt", "must be nil if the type is Limited"))
        if limited is None:
            found.append(causes.required("spec.limited", "must not be empty when type is Limited"))
        else:
            found += _numbers(limited, "spec.limited") + _response(limited)
    else:
        found.append(causes.not_supported("spec.type", kind or "", ("Exempt", "Limited")))
    fixed = next((one["spec"] for one in standard.levels() if one["metadata"]["name"] == name), None)
    if name == standard.CATCH_ALL and spec != fixed:
        found.append(causes.invalid("spec", spec, f"spec of '{name}' must equal the fixed value"))
    return found


def _numbers(value: Obj, path: str) -> list[Cause]:
    found: list[Cause] = []
    shares, lendable = value.get("nominalConcurrencyShares"), value.get("lendablePercent")
    if shares is not None and shares < 0:
        found.append(causes.invalid(f"{path}.nominalConcurrencyShares", shares, "must be a non-negative integer"))
    if lendable is not None and not 0 <= lendable <= 100:
        found.append(causes.invalid(f"{path}.lendablePercent", lendable, "must be between 0 and 100, inclusive"))
    borrowing = value.get("borrowingLimitPercent")
    if borrowing is not None and borrowing < 0:
        detail = "if specified, must be a non-negative integer"
        found.append(causes.invalid(f"{path}.borrowingLimitPercent", borrowing, detail))
    return found


def _response(limited: Obj) -> list[Cause]:
    here = "spec.limited.limitResponse"
    response = limited.get("limitResponse") or {}
    queuing = response.get("queuing")
    if response.get("type") == "Reject":
        detail = "must be nil if limited.limitResponse.type is not Limited"
        return [causes.forbidden(f"{here}.queuing", detail)] if queuing is not None else []
    if response.get("type") != "Queue":
        return [causes.not_supported(f"{here}.type", response.get("type") or "", ("Queue", "Reject"))]
    if queuing is None:
        detail = "must not be empty if limited.limitResponse.type is Limited"
        return [causes.required(f"{here}.queuing", detail)]
    here += ".queuing"
    found: list[Cause] = []
    length, queues, hand = (queuing.get(field) or 0 for field in ("queueLengthLimit", "queues", "handSize"))
    if length <= 0:
        found.append(causes.invalid(f"{here}.queueLengthLimit", length, "must be positive"))
    if queues <= 0:
        found.append(causes.invalid(f"{here}.queues", queues, "must be positive"))
    elif queues > QUEUES_MAX:
        found.append(causes.invalid(f"{here}.queues", queues, f"must not be greater than {QUEUES_MAX}"))
    if hand <= 0:
        found.append(causes.invalid(f"{here}.handSize", hand, "must be positive"))
    elif hand > queues:
        found.append(causes.invalid(f"{here}.handSize", hand, f"should not be greater than queues ({queues})"))
    elif _entropy_bits(queues, hand) > HASH_BITS_MAX:
        detail = (
            f"required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS_MAX}"
        )
        found.append(causes.invalid(f"{here}.handSize", hand, detail))
    return found


def _entropy_bits(deck: int, hand: int) -> int:
    """Bits that tell all hands apart. The loop is bounded: a hand of more than 60 needs more than 60 bits."""
    return math.ceil(sum(math.log2(deck - already) for already in range(min(hand, HASH_BITS_MAX + 1))))
