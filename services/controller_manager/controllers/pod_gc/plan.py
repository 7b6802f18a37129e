"""Pods that nobody else will ever remove: ended ones beyond a threshold, and those whose node is no more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from machinery.api import kinds
from services.controller_manager.actions import Action, Delete, Patch, Plan
from services.controller_manager.pods import disruption_conditions, is_terminal
from services.controller_manager.views.pod import Node, Pod

TERMINATED_MAX = 12_500
# A node that is not in the cache may have just joined.
QUARANTINE_SECONDS = 40.0
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def plan(
    pods: Sequence[Pod], nodes: Sequence[Node], gone: set[str], now: datetime, maximum: int = TERMINATED_MAX
) -> Plan:
    """One sweep. `gone` are names of nodes that have been missing for the quarantine and were looked up once more."""
    out = Plan()
    by_name = {node.metadata.name: node for node in nodes}
    ended = [pod for pod in pods if is_terminal(pod)]
    excess = len(ended) - maximum
    if maximum > 0 and excess > 0:
        ended.sort(key=lambda pod: (pod.metadata.creationTimestamp or _EPOCH, pod.metadata.name))
        for pod in ended[:excess]:
            out.actions.append(_delete(pod))
    for pod in pods:
        node = by_name.get(pod.spec.nodeName)
        if pod.spec.nodeName in gone:
            out.actions += _failed_first(pod, "PodGC: node no longer exists", now)
        elif (not pod.spec.nodeName and pod.metadata.deletionTimestamp is not None) or (
            pod.metadata.deletionTimestamp is not None and node is not None and _out_of_service(node)
        ):
            out.actions += _failed_first(pod, None, now)
    return out


def unknown_nodes(pods: Iterable[Pod], nodes: Iterable[Node]) -> set[str]:
    """Names that pods are bound to and no node has."""
    names = {node.metadata.name for node in nodes}
    return {pod.spec.nodeName for pod in pods if pod.spec.nodeName and pod.spec.nodeName not in names}


def _out_of_service(node: Node) -> bool:
    ready = next((entry for entry in node.status.conditions if entry.type == "Ready"), None)
    tainted = any(taint.key == OUT_OF_SERVICE for taint in node.spec.taints)
    return tainted and (ready is None or ready.status != "True")


def _failed_first(pod: Pod, message: str | None, now: datetime) -> list[Action]:
    """A pod that had not ended is marked Failed before it goes, so that its Job counts it."""
    meta = pod.metadata
    actions: list[Action] = []
    if not is_terminal(pod):
        status: dict[str, object] = {"phase": "Failed"}
        if message is not None:
            status["conditions"] = disruption_conditions(pod, "DeletionByPodGC", message, now)
        actions.append(
            Patch(
                kinds.POD, meta.namespace, meta.name, {"status": status}, "status", uid=meta.uid, revision=meta.revision
            )
        )
    actions.append(_delete(pod))
    return actions


def _delete(pod: Pod) -> Delete:
    meta = pod.metadata
    return Delete(kinds.POD, meta.namespace, meta.name, uid=meta.uid, grace_period_seconds=0)
