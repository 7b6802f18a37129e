"""Fetches what an explanation needs, and finds who explains the kind that was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import msgspec

from machinery.api import errors, kind_words, kinds
from machinery.api.kinds import Kind
from machinery.client.api_client import ApiClient
from machinery.component import logs, tls
from protos.cutaway.v1 import scheduler_pb2, scheduler_pb2_grpc
from services.controller_manager.explain.endings import explain_deletion, explain_namespace
from services.controller_manager.explain.finding import Finding
from services.controller_manager.explain.limits import explain_autoscaler, explain_budget, explain_node, explain_quota
from services.controller_manager.explain.network import explain_ingress, explain_service
from services.controller_manager.explain.pods import explain_pod
from services.controller_manager.explain.snapshot import Object, Snapshot
from services.controller_manager.explain.volumes import explain_claim
from services.controller_manager.explain.workloads import explain_deployment, explain_job, explain_replicas

log = logs.get("explain")

ASK_SECONDS = 5.0
PODS_ASKED_MAX = 20
"""Of a namespace's pods without a node."""
# Everything that some explanation looks at.
_LOOKED_AT = (
    kinds.POD, kinds.REPLICA_SET, kinds.DEPLOYMENT, kinds.STATEFUL_SET, kinds.DAEMON_SET, kinds.JOB, kinds.SERVICE,
    kinds.REPLICATION_CONTROLLER, kinds.ENDPOINT_SLICE, kinds.EVENT, kinds.NODE, kinds.PERSISTENT_VOLUME_CLAIM,
    kinds.STORAGE_CLASS, kinds.CONFIG_MAP, kinds.SECRET, kinds.INGRESS, kinds.INGRESS_CLASS, kinds.RESOURCE_QUOTA,
    kinds.POD_DISRUPTION_BUDGET, kinds.HORIZONTAL_POD_AUTOSCALER, kinds.NAMESPACE,
    kinds.VALIDATING_WEBHOOK_CONFIGURATION, kinds.MUTATING_WEBHOOK_CONFIGURATION,
)  # fmt: skip

_EXPLAINERS: dict[str, Callable[[Snapshot, Object], tuple[Finding, ...]]] = {
    "Pod": explain_pod,
    "Deployment": explain_deployment,
    "Service": explain_service,
    "Ingress": explain_ingress,
    "PersistentVolumeClaim": explain_claim,
    "Job": explain_job,
    "Namespace": explain_namespace,
    "Node": explain_node,
    "ResourceQuota": explain_quota,
    "PodDisruptionBudget": explain_budget,
    "HorizontalPodAutoscaler": explain_autoscaler,
} | {
    kind: lambda snapshot, owner, kind=kind: explain_replicas(snapshot, kind, owner)  # type: ignore[misc]
    for kind in ("ReplicaSet", "StatefulSet", "ReplicationController", "DaemonSet")
}


class Explainer:
    """Answers from a snapshot that it takes for each question. `schedulers`: where the scheduler may be asked."""

    def __init__(self, client: ApiClient, schedulers: list[str], files: tls.TlsFiles | None) -> None:
        self._client = client
        self._schedulers = schedulers
        self._files = files

    async def explain(self, word: str, namespace: str, name: str) -> tuple[Finding, ...]:
        """The chain of causes of one object; empty if it is as desired. Raises NotFound, BadRequest (nobody explains
        this kind)."""
        kind = kind_of(word)
        snapshot = await _take(self._client)
        namespace = namespace if kind.namespaced else ""
        subject = snapshot.get(kind.kind, namespace, name)
        if subject is None:
            raise errors.not_found(kind.group, kind.plural, name)
        await self._ask_scheduler(snapshot, namespace)
        # What is on its way out is not mended any more: what keeps it is what counts.
        return explain_deletion(snapshot, kind.kind, subject) or _EXPLAINERS[kind.kind](snapshot, subject)

    async def _ask_scheduler(self, snapshot: Snapshot, namespace: str) -> None:
        """Have the scheduler judge every pod of the namespace that has no node; if it can't be asked, the pods'
        conditions tell."""
        waiting = [p for p in snapshot.all("Pod", namespace) if not p["spec"].get("nodeName")][:PODS_ASKED_MAX]
        if not waiting or self._files is None:
            return
        for address in self._schedulers:
            async with grpc.aio.secure_channel(address, tls.channel_credentials(self._files)) as channel:
                stub: Any = scheduler_pb2_grpc.SchedulerStub(channel)
                try:
                    for pod in waiting:
                        request = scheduler_pb2.ExplainRequest(namespace=namespace, pod=pod["metadata"]["name"])
                        answer = await stub.Explain(request, timeout=ASK_SECONDS)
                        if not answer.chosen_node:
                            key = f"{namespace}/{pod['metadata']['name']}"
                            snapshot.scheduling[key] = (answer.summary, list(answer.remedies))
                except grpc.aio.AioRpcError as error:
                    log.warning("the scheduler can't be asked", address=address, error=str(error.details()))
                    continue
            return


def kind_of(word: str) -> Kind:
    """The kind that is meant by "pod", "pods", "po" or "Pod". Raises BadRequest with what can be explained."""
    found = kind_words.named(word, (kind for kind in _LOOKED_AT if kind.kind in _EXPLAINERS))
    if found is None:
        can = ", ".join(kind.lower() for kind in _EXPLAINERS)
        raise errors.BadRequest(f"{word!r} can't be explained; these can: {can}")
    return found


async def _take(client: ApiClient) -> Snapshot:
    listings = await asyncio.gather(*(client.list(kind, decode=msgspec.json.decode) for kind in _LOOKED_AT))
    return Snapshot({kind.kind: list(listing.items) for kind, listing in zip(_LOOKED_AT, listings, strict=True)})
