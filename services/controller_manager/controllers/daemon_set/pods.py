"""A DaemonSet's pods: pinned each to its node, and tolerant of what a daemon has to live with."""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from machinery.api import kinds
from services.controller_manager import node_fit, templates
from services.controller_manager.revisions import HASH_LABEL
from services.controller_manager.views.pod import Node, Pod, Toleration
from services.controller_manager.views.workloads import DaemonSet

_GENERATION_ANNOTATION = "deprecated.daemonset.template.generation"
_GENERATION_LABEL = "pod-template-generation"
_FIELD = "metadata.name"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"

# Daemons start before their node is ready and stay when it is in trouble: it may be they who help.
_TOLERATED = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
_TOLERATED_ON_HOST_NETWORK = (("node.kubernetes.io/network-unavailable", "NoSchedule"),)


def tolerations(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The template's tolerations and a daemon's own."""
    out = list(spec.get("tolerations") or [])
    more = _TOLERATED + (_TOLERATED_ON_HOST_NETWORK if spec.get("hostNetwork") else ())
    for key, effect in more:
        entry = {"key": key, "operator": "Exists", "effect": effect}
        if entry not in out:
            out.append(entry)
    return out


class Placement:
    """Which nodes a DaemonSet's template is for."""

    def __init__(self, daemon_set: DaemonSet) -> None:
        self.spec: dict[str, Any] = templates.decode(daemon_set.spec.template).get("spec") or {}
        self._tolerations = msgspec.convert(tolerations(self.spec), list[Toleration])

    def wants(self, node: Node) -> tuple[bool, bool]:
        """(a pod should be started there, a pod that is there may stay)."""
        if not node_fit.selected(self.spec, node):
            return False, False
        stays = node_fit.untolerated(node, self._tolerations, ("NoExecute",)) is None
        starts = node_fit.untolerated(node, self._tolerations, ("NoExecute", "NoSchedule")) is None
        return starts, stays


def target(pod: Pod) -> str:
    """The node that a daemon's pod is for, bound or not."""
    if pod.spec.nodeName:
        return pod.spec.nodeName
    affinity = ((pod.spec.affinity or {}).get("nodeAffinity") or {}).get(_REQUIRED) or {}
    for term in affinity.get("nodeSelectorTerms") or ():
        for entry in term.get("matchFields") or ():
            if entry.get("key") == _FIELD and entry.get("operator") == "In" and len(entry.get("values") or ()) == 1:
                return str(entry["values"][0])
    return ""


def new_pod(daemon_set: DaemonSet, template: dict[str, Any], node: str, revision_hash: str) -> dict[str, Any]:
    """A pod for one node. The scheduler binds it; the pin leaves it no choice."""
    obj = templates.pod_from(template, kinds.DAEMON_SET, daemon_set.metadata)
    labels = {**obj["metadata"].get("labels", {}), HASH_LABEL: revision_hash}
    if generation := daemon_set.metadata.annotations.get(_GENERATION_ANNOTATION):
        labels[_GENERATION_LABEL] = generation
    obj["metadata"]["labels"] = labels
    spec = obj["spec"]
    spec["tolerations"] = tolerations(spec)
    affinity = copy.deepcopy(spec.get("affinity") or {})
    node_affinity = affinity.setdefault("nodeAffinity", {})
    pin = {"matchFields": [{"key": _FIELD, "operator": "In", "values": [node]}]}
    terms = (node_affinity.get(_REQUIRED) or {}).get("nodeSelectorTerms") or [{}]
    # The pin joins every alternative of the template, so that what else it demands still holds.
    pinned = [{**{k: v for k, v in term.items() if k != "matchFields"}, **pin} for term in terms]
    node_affinity[_REQUIRED] = {"nodeSelectorTerms": pinned}
    spec["affinity"] = affinity
    return obj
