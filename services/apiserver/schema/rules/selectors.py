"""Label selectors and node selectors."""

from __future__ import annotations

from typing import Any

from machinery.api.errors import Cause
from services.apiserver.schema import causes, names

Obj = dict[str, Any]


def label_selector(selector: Obj | None, path: str) -> list[Cause]:
    """The expressions of a label selector; its labels' syntax is among `constraints`."""
    if not selector:
        return []
    found: list[Cause] = []
    for index, one in enumerate(selector.get("matchExpressions") or ()):
        here = f"{path}.matchExpressions[{index}]"
        operator, values = one.get("operator"), one.get("values") or []
        if operator in ("In", "NotIn") and not values:
            found.append(causes.required(f"{here}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist") and values:
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            found.append(causes.forbidden(f"{here}.values", detail))
        elif operator and operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
            found.append(causes.invalid(f"{here}.operator", operator, "not a valid selector operator"))
        for place, value in enumerate(values):
            found += [causes.invalid(f"{here}.values[{place}]", value, why) for why in names.label_value(value)]
    return found


def is_empty(selector: Obj | None) -> bool:
    """Does a selector say nothing (and so select everything)?"""
    return not selector or not (selector.get("matchLabels") or selector.get("matchExpressions"))


def matches(selector: Obj, labels: dict[str, str]) -> bool:
    """Does a label selector match these labels?"""
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for one in selector.get("matchExpressions") or ():
        key, values = one.get("key"), one.get("values") or ()
        match one.get("operator"):
            case "In":
                fits = key in labels and labels[key] in values
            case "NotIn":
                fits = key not in labels or labels[key] not in values
            case "Exists":
                fits = key in labels
            case _:
                fits = key not in labels
        if not fits:
            return False
    return True


def node_selector(selector: Obj, path: str) -> list[Cause]:
    """A node selector's terms."""
    found: list[Cause] = []
    for index, term in enumerate(selector.get("nodeSelectorTerms") or ()):
        found += node_selector_term(term, f"{path}.nodeSelectorTerms[{index}]")
    return found


def node_selector_term(term: Obj, path: str) -> list[Cause]:
    """One term: expressions over labels, and fields, of which there is only metadata.name."""
    found: list[Cause] = []
    for index, one in enumerate(term.get("matchExpressions") or ()):
        here = f"{path}.matchExpressions[{index}]"
        operator, values = one.get("operator"), one.get("values") or []
        if operator in ("In", "NotIn") and not values:
            found.append(causes.required(f"{here}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist") and values:
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            found.append(causes.forbidden(f"{here}.values", detail))
        elif operator in ("Gt", "Lt") and len(values) != 1:
            detail = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            found.append(causes.required(f"{here}.values", detail))
        key = one.get("key") or ""
        if key:
            found += [causes.invalid(f"{here}.key", key, why) for why in names.qualified_name(key)]
    for index, one in enumerate(term.get("matchFields") or ()):
        here = f"{path}.matchFields[{index}]"
        if one.get("operator") not in ("In", "NotIn"):
            found.append(causes.invalid(f"{here}.operator", one.get("operator"), "not a valid selector operator"))
        elif len(one.get("values") or ()) != 1:
            detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            found.append(causes.required(f"{here}.values", detail))
        if one.get("key") != "metadata.name":
            found.append(causes.invalid(f"{here}.key", one.get("key"), "not a valid field selector key"))
    return found
