"""Judges placements by the rules of the Kubernetes API, from plain objects, one pod and one node at a time.

Written against the rules and not against the scheduler: it shares no code with it, so that an error would have to be
made twice.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

Obj = dict[str, Any]

_SUFFIXES = {"m": Fraction(1, 1000), "": Fraction(1), "k": Fraction(1000), "M": Fraction(10**6), "G": Fraction(10**9)}
_SUFFIXES |= {"Ki": Fraction(2**10), "Mi": Fraction(2**20), "Gi": Fraction(2**30)}


def number(text: str) -> Fraction:
    digits = text.rstrip("mkMGTKi")
    return Fraction(digits) * _SUFFIXES[text[len(digits) :]]


def requests(pod: Obj) -> dict[str, Fraction]:
    total: dict[str, Fraction] = {"pods": Fraction(1)}
    for container in pod["spec"]["containers"]:
        for name, text in container.get("resources", {}).get("requests", {}).items():
            total[name] = total.get(name, Fraction(0)) + number(text)
    return total


def labels(obj: Obj) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def expression_holds(expression: Obj, found: dict[str, str]) -> bool:
    key, operator, values = expression["key"], expression["operator"], expression.get("values") or []
    match operator:
        case "In":
            return found.get(key) in values and key in found
        case "NotIn":
            return key not in found or found[key] not in values
        case "Exists":
            return key in found
        case "DoesNotExist":
            return key not in found
        case "Gt" | "Lt":
            if key not in found or not found[key].lstrip("-").isdigit():
                return False
            left, right = int(found[key]), int(values[0])
            return left > right if operator == "Gt" else left < right
    raise AssertionError(operator)


def selected(selector: Obj | None, found: dict[str, str]) -> bool:
    if selector is None:
        return False
    return all(found.get(k) == v for k, v in (selector.get("matchLabels") or {}).items()) and all(
        expression_holds(e, found) for e in selector.get("matchExpressions") or []
    )


def tolerated(pod: Obj, taint: Obj) -> bool:
    for toleration in pod["spec"].get("tolerations") or []:
        if toleration.get("effect") not in (None, "", taint["effect"]):
            continue
        if toleration.get("operator", "Equal") == "Exists":
            if toleration.get("key") in (None, "", taint["key"]):
                return True
        elif toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", ""):
            return True
    return False


def node_is_wanted(pod: Obj, node: Obj) -> bool:
    spec, found = pod["spec"], labels(node)
    if any(found.get(k) != v for k, v in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    fields = {"metadata.name": node["metadata"]["name"]}
    return any(
        all(expression_holds(e, found) for e in term.get("matchExpressions") or [])
        and all(expression_holds(e, fields) for e in term.get("matchFields") or [])
        for term in required["nodeSelectorTerms"]
        if term.get("matchExpressions") or term.get("matchFields")
    )


class World:
    """Nodes, and pods by the node that they are on."""

    def __init__(self, nodes: list[Obj]) -> None:
        self.nodes = {node["metadata"]["name"]: node for node in nodes}
        self.pods: list[tuple[Obj, str]] = []

    def place(self, pod: Obj, node: str) -> None:
        self.pods.append((pod, node))

    def _domain(self, node: str, key: str) -> str | None:
        return labels(self.nodes[node]).get(key)

    def why_not(self, pod: Obj, name: str) -> list[str]:
        """Every rule that this placement would break."""
        node = self.nodes[name]
        rules = {
            "unschedulable": self._schedulable, "taint": self._taints, "node affinity": node_is_wanted,
            "resources": self._resources, "ports": self._ports, "spread": self._spread, "pod affinity": self._affinity,
            "pod anti-affinity": self._anti_affinity, "their anti-affinity": self._their_anti_affinity,
        }  # fmt: skip
        return [rule for rule, holds in rules.items() if not holds(pod, node)]

    def _schedulable(self, pod: Obj, node: Obj) -> bool:
        taint = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
        return not node.get("spec", {}).get("unschedulable") or tolerated(pod, taint)

    def _taints(self, pod: Obj, node: Obj) -> bool:
        taints = node.get("spec", {}).get("taints") or []
        return all(tolerated(pod, t) for t in taints if t["effect"] in ("NoSchedule", "NoExecute"))

    def _resources(self, pod: Obj, node: Obj) -> bool:
        used = requests(pod)
        for other, where in self.pods:
            if where == node["metadata"]["name"]:
                for name, value in requests(other).items():
                    if name in used:
                        used[name] += value
        offered = node["status"]["allocatable"]
        return all(value <= number(offered.get(name, "0")) for name, value in used.items())

    def _ports(self, pod: Obj, node: Obj) -> bool:
        def taken(obj: Obj) -> list[tuple[str, int, str]]:
            return [
                (port.get("protocol", "TCP"), port["hostPort"], port.get("hostIP") or "0.0.0.0")
                for container in obj["spec"]["containers"]
                for port in container.get("ports") or []
                if port.get("hostPort")
            ]

        there = [port for other, where in self.pods if where == node["metadata"]["name"] for port in taken(other)]
        return not any(
            mine[:2] == theirs[:2] and (mine[2] == theirs[2] or "0.0.0.0" in (mine[2], theirs[2]))
            for mine in taken(pod)
            for theirs in there
        )

    def _spread(self, pod: Obj, node: Obj) -> bool:
        hard = [
            c for c in pod["spec"].get("topologySpreadConstraints") or [] if c["whenUnsatisfiable"] == "DoNotSchedule"
        ]
        keys = [c["topologyKey"] for c in hard]
        eligible = [
            name
            for name, other in self.nodes.items()
            if node_is_wanted(pod, other) and all(key in labels(other) for key in keys)
        ]
        for constraint in hard:
            key = constraint["topologyKey"]
            domain = self._domain(node["metadata"]["name"], key)
            if domain is None:
                return False
            counts = {self._domain(name, key): 0 for name in eligible}
            for other, where in self.pods:
                same = other["metadata"]["namespace"] == pod["metadata"]["namespace"]
                if where in eligible and same and selected(constraint["labelSelector"], labels(other)):
                    counts[self._domain(where, key)] += 1
            least = min(counts.values(), default=0)
            if len(counts) < constraint.get("minDomains", 1):
                least = 0
            mine = int(selected(constraint["labelSelector"], labels(pod)))
            if counts.get(domain, 0) + mine - least > constraint["maxSkew"]:
                return False
        return True

    def _terms(self, pod: Obj, kind: str) -> list[Obj]:
        affinity = (pod["spec"].get("affinity") or {}).get(kind) or {}
        return affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or []

    def _means(self, term: Obj, holder: Obj, other: Obj) -> bool:
        namespaces = term.get("namespaces") or [holder["metadata"]["namespace"]]
        return other["metadata"]["namespace"] in namespaces and selected(term.get("labelSelector"), labels(other))

    def _affinity(self, pod: Obj, node: Obj) -> bool:
        terms = self._terms(pod, "podAffinity")
        if not terms:
            return True
        name = node["metadata"]["name"]
        if any(self._domain(name, term["topologyKey"]) is None for term in terms):
            return False
        company = [where for other, where in self.pods if all(self._means(term, pod, other) for term in terms)]
        together = all(
            any(self._domain(where, t["topologyKey"]) == self._domain(name, t["topologyKey"]) for where in company)
            for t in terms
        )
        nobody = not any(self._domain(where, t["topologyKey"]) is not None for where in company for t in terms)
        return together or (nobody and all(self._means(term, pod, pod) for term in terms))

    def _anti_affinity(self, pod: Obj, node: Obj) -> bool:
        return not any(
            self._means(term, pod, other) and self._same_domain(term, node, where)
            for term in self._terms(pod, "podAntiAffinity")
            for other, where in self.pods
        )

    def _their_anti_affinity(self, pod: Obj, node: Obj) -> bool:
        return not any(
            self._means(term, other, pod) and self._same_domain(term, node, where)
            for other, where in self.pods
            for term in self._terms(other, "podAntiAffinity")
        )

    def _same_domain(self, term: Obj, node: Obj, where: str) -> bool:
        domain = labels(node).get(term["topologyKey"])
        return domain is not None and domain == self._domain(where, term["topologyKey"])
