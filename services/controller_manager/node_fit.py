"""Whether a pod may be on a node, by what its template says: name, selector, required affinity, taints."""

from __future__ import annotations

from typing import Any

from machinery.api.taints import tolerates
from services.controller_manager.views.pod import Node, Taint, Toleration


def selected(spec: dict[str, Any], node: Node) -> bool:
    """Node name, node selector and required node affinity of a pod spec."""
    if spec.get("nodeName") and spec["nodeName"] != node.metadata.name:
        return False
    labels = node.metadata.labels
    if any(labels.get(name) != value for name, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(term_matches(term, node) for term in required.get("nodeSelectorTerms") or ())


def term_matches(term: dict[str, Any], node: Node) -> bool:
    """One nodeSelectorTerm; an empty one matches nothing."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    return all(_matches(entry, node.metadata.labels.get(entry["key"])) for entry in expressions) and all(
        entry["key"] == "metadata.name" and _matches(entry, node.metadata.name) for entry in fields
    )


def _matches(entry: dict[str, Any], value: str | None) -> bool:
    values: list[str] = list(entry.get("values") or ())
    match entry.get("operator"):
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value is None or value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            try:
                left, right = int(value or ""), int(values[0])
            except (ValueError, IndexError):
                return False
            return left > right if operator == "Gt" else left < right
    return False


def untolerated(node: Node, tolerations: list[Toleration], effects: tuple[str, ...]) -> Taint | None:
    """The first taint of one of these effects that nothing tolerates."""
    for taint in node.spec.taints:
        if taint.effect in effects and not any(tolerates(each, taint) for each in tolerations):
            return taint
    return None
