"""Label selectors over the proxy's own objects. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from services.kube_proxy.api import Requirement, Selector


def matches(selector: Selector, labels: Mapping[str, str] | None) -> bool:
    """Whether a selector chooses an object with these labels; an empty selector chooses everything."""
    labels = labels or {}
    if any(labels.get(key) != value for key, value in (selector.match_labels or {}).items()):
        return False
    return all(_holds(requirement, labels) for requirement in selector.match_expressions or ())


def _holds(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(requirement.key), requirement.values or ()
    match requirement.operator:
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    # An operator of the future: nothing is chosen that it might have left out.
    return False


def text(selector: Selector | None) -> str:
    """The same for selectors that mean the same; for names."""
    if selector is None:
        return "-"
    labels = sorted((selector.match_labels or {}).items())
    expressions = sorted((r.key, r.operator, sorted(r.values or ())) for r in selector.match_expressions or ())
    return f"{labels}{expressions}"
