"""Fetches what an explanation needs, and finds who explains the kind that was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import msgspec

from lab import admin
from lab.cluster import Cluster
from lab.errors import LabError
from lab.explain.endings import explain_deletion, explain_namespace
from lab.explain.finding import Finding
from lab.explain.limits import explain_autoscaler, explain_budget, explain_node, explain_quota
from lab.explain.network import explain_ingress, explain_service
from lab.explain.pods import explain_pod
from lab.explain.snapshot import Object, Snapshot
from lab.explain.volumes import explain_claim
from lab.explain.workloads import explain_deployment, explain_job, explain_replicas
from machinery.api import errors, kinds
from machinery.api.kinds import Kind
from machinery.client.api_client import ApiClient
from machinery.component import tls
from protos.cutaway.v1 import scheduler_pb2, scheduler_pb2_grpc

ASK_SECONDS = 5.0
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
_SHORT = {
    "po": "pods", "deploy": "deployments", "rs": "replicasets", "sts": "statefulsets", "ds": "daemonsets",
    "svc": "services", "rc": "replicationcontrollers", "ing": "ingresses", "pvc": "persistentvolumeclaims",
    "ns": "namespaces", "no": "nodes", "quota": "resourcequotas", "pdb": "poddisruptionbudgets",
    "hpa": "horizontalpodautoscalers",
}  # fmt: skip


def kind_of(word: str) -> Kind:
    """The kind that a person means by "pod", "pods", "po" or "Pod". Raises LabError with what can be explained."""
    wanted = _SHORT.get(word.lower(), word.lower())
    for kind in _LOOKED_AT:
        if kind.kind in _EXPLAINERS and wanted in (kind.plural, kind.kind.lower()):
            return kind
    raise LabError(f"{word!r} can't be explained", f"these can: {', '.join(kind.lower() for kind in _EXPLAINERS)}")


async def explain(cluster: Cluster, kind: Kind, namespace: str, name: str) -> tuple[Finding, ...]:
    """The chain of causes of one object; empty if it is as desired. Raises LabError if it does not exist."""
    client = await admin.client(cluster)
    try:
        snapshot = await _take(client)
        namespace = namespace if kind.namespaced else ""
        subject = snapshot.get(kind.kind, namespace, name)
        if subject is None:
            raise LabError(f"{kind.kind.lower()} {namespace}/{name} does not exist")
        await _ask_scheduler(cluster, snapshot, namespace)
    except errors.ServiceUnavailable as error:
        raise LabError(f"the apiserver does not answer ({error})", "`cutaway status` shows what is ill") from error
    finally:
        await client.close()
    # What is on its way out is not mended any more: what keeps it is what counts.
    return explain_deletion(snapshot, kind.kind, subject) or _EXPLAINERS[kind.kind](snapshot, subject)


async def _take(client: ApiClient) -> Snapshot:
    listings = await asyncio.gather(*(client.list(kind, decode=msgspec.json.decode) for kind in _LOOKED_AT))
    return Snapshot({kind.kind: list(listing.items) for kind, listing in zip(_LOOKED_AT, listings, strict=True)})


async def _ask_scheduler(cluster: Cluster, snapshot: Snapshot, namespace: str) -> None:
    """Have the scheduler judge every pod of the namespace that has no node; if it can't be asked, the pods' conditions
    tell."""
    waiting = [p for p in snapshot.all("Pod", namespace) if not p["spec"].get("nodeName")][:20]
    if not waiting:
        return
    mine = admin.identity(cluster)
    files = tls.TlsFiles(ca_file=str(mine.ca_file), cert_file=str(mine.cert_file), key_file=str(mine.key_file))
    address = f"127.0.0.1:{cluster.port(10359)}"
    async with grpc.aio.secure_channel(address, tls.channel_credentials(files)) as channel:
        stub: Any = scheduler_pb2_grpc.SchedulerStub(channel)
        for pod in waiting:
            request = scheduler_pb2.ExplainRequest(namespace=namespace, pod=pod["metadata"]["name"])
            try:
                answer = await stub.Explain(request, timeout=ASK_SECONDS)
            except grpc.aio.AioRpcError:
                return
            if not answer.chosen_node:
                key = f"{namespace}/{pod['metadata']['name']}"
                snapshot.scheduling[key] = (answer.summary, list(answer.remedies))
