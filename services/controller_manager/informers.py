"""One informer a kind, shared by all controllers that look at it, holding views and not whole objects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from machinery.api import kinds, objects
from machinery.api.kinds import Kind
from machinery.client.api_client import ApiClient
from machinery.client.informer import Informer, Lister, wait_synced
from services.controller_manager.views import addresses, cluster, devices, meta, pod, workloads
from services.controller_manager.views.sharing import Sharing

VIEWS: dict[Kind, type[Any]] = {
    kinds.POD: pod.Pod,
    kinds.NODE: pod.Node,
    kinds.LEASE: pod.Lease,
    kinds.DEPLOYMENT: workloads.Deployment,
    kinds.REPLICA_SET: workloads.ReplicaSet,
    kinds.REPLICATION_CONTROLLER: workloads.ReplicationController,
    kinds.DAEMON_SET: workloads.DaemonSet,
    kinds.STATEFUL_SET: workloads.StatefulSet,
    kinds.CONTROLLER_REVISION: workloads.ControllerRevision,
    kinds.JOB: workloads.Job,
    kinds.CRON_JOB: workloads.CronJob,
    kinds.HORIZONTAL_POD_AUTOSCALER: workloads.HorizontalPodAutoscaler,
    kinds.SERVICE: cluster.Service,
    kinds.ENDPOINTS: cluster.Endpoints,
    kinds.ENDPOINT_SLICE: cluster.EndpointSlice,
    kinds.NAMESPACE: cluster.Namespace,
    kinds.SECRET: cluster.Secret,
    kinds.PERSISTENT_VOLUME: cluster.PersistentVolume,
    kinds.PERSISTENT_VOLUME_CLAIM: cluster.PersistentVolumeClaim,
    kinds.STORAGE_CLASS: cluster.StorageClass,
    kinds.POD_DISRUPTION_BUDGET: cluster.PodDisruptionBudget,
    kinds.RESOURCE_QUOTA: cluster.ResourceQuota,
    kinds.CERTIFICATE_SIGNING_REQUEST: cluster.CertificateSigningRequest,
    kinds.CLUSTER_ROLE: cluster.ClusterRole,
    kinds.RESOURCE_CLAIM: devices.ResourceClaim,
    kinds.RESOURCE_CLAIM_TEMPLATE: devices.ResourceClaimTemplate,
    kinds.RESOURCE_SLICE: devices.ResourceSlice,
    kinds.DEVICE_TAINT_RULE: devices.DeviceTaintRule,
    kinds.SERVICE_CIDR: addresses.ServiceCidr,
    kinds.CUSTOM_RESOURCE_DEFINITION: cluster.CustomResourceDefinition,
}

OWNER = "owner"
NODE = "node"
CLAIM = "claim"
SERVICE = "service"


def orphans_of(namespace: str) -> str:
    """The OWNER index's value for objects of a namespace that nobody controls."""
    return f"orphans/{namespace}"


def _by_owner(obj: Any) -> Iterable[str]:
    owner = obj.metadata.controller
    return (owner.uid,) if owner else (orphans_of(obj.metadata.namespace),)


def claims_of(obj: Any) -> Iterable[str]:
    """The keys of the PersistentVolumeClaims that a pod uses."""
    for volume in obj.spec.volumes:
        if volume.persistentVolumeClaim is not None:
            yield f"{obj.metadata.namespace}/{volume.persistentVolumeClaim.claimName}"
        elif volume.ephemeral is not None:
            yield f"{obj.metadata.namespace}/{obj.metadata.name}-{volume.name}"


def _by_node(obj: Any) -> Iterable[str]:
    return (obj.spec.nodeName,)


def _by_service(obj: Any) -> Iterable[str]:
    name = obj.metadata.labels.get("kubernetes.io/service-name")
    return (f"{obj.metadata.namespace}/{name}",) if name else ()


INDEXERS: dict[Kind, dict[str, Callable[[Any], Iterable[str]]]] = {
    kinds.POD: {OWNER: _by_owner, NODE: _by_node, CLAIM: claims_of},
    kinds.REPLICA_SET: {OWNER: _by_owner},
    kinds.JOB: {OWNER: _by_owner},
    kinds.CONTROLLER_REVISION: {OWNER: _by_owner},
    kinds.RESOURCE_CLAIM: {OWNER: _by_owner},
    kinds.ENDPOINT_SLICE: {SERVICE: _by_service},
}


def view_decoder(kind: Kind) -> Callable[[bytes], Any]:
    """What makes a view of a stored object; of a kind without one its metadata alone."""
    return msgspec.json.Decoder(VIEWS.get(kind, meta.Partial)).decode


def _shared(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    share = Sharing()
    return lambda raw: share(decode(raw))


class Informers:
    """Informers by kind. They are made when first asked for, and run from `start` on (or at once, if that was before).

    Kinds without a view are held by their metadata alone.
    """

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._informers: dict[Kind, Informer[Any]] = {}
        self._selected: dict[tuple[Kind, str], Informer[Any]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._running: dict[Kind, asyncio.Task[None]] = {}

    def of(self, kind: Kind) -> Informer[Any]:
        """The informer of a kind."""
        informer = self._informers.get(kind)
        if informer is None:
            decode = _shared(view_decoder(kind)) if kind is kinds.POD else view_decoder(kind)
            informer = Informer(self._client, kind, decode=decode, indexers=INDEXERS.get(kind))
            self._informers[kind] = informer
            if self._tasks is not None:
                self._run(kind, informer)
        return informer

    def selected(self, kind: Kind, view: type[Any], field_selector: str) -> Informer[Any]:
        """An informer of its own for a few objects of a kind of which more is needed than the shared view holds."""
        informer = self._selected.get((kind, field_selector))
        if informer is None:
            decode = msgspec.json.Decoder(view).decode
            informer = Informer(self._client, kind, field_selector=field_selector, decode=decode)
            self._selected[kind, field_selector] = informer
            if self._tasks is not None:
                self._tasks.create_task(informer.run(), name=f"informer {kind} {field_selector}")
        return informer

    @staticmethod
    def decode(kind: Kind, obj: Any) -> Any:
        """An object that the client answered, as the view of its kind."""
        return view_decoder(kind)(objects.encode(obj))

    def lister(self, kind: Kind) -> Lister[Any]:
        """The objects of a kind."""
        return self.of(kind).lister

    def known(self, kind: Kind) -> bool:
        """Whether anybody has asked for this kind."""
        return kind in self._informers

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Run all informers as tasks of this group."""
        self._tasks = tasks
        for kind, informer in self._informers.items():
            self._run(kind, informer)
        for (kind, selector), informer in self._selected.items():
            tasks.create_task(informer.run(), name=f"informer {kind} {selector}")

    def _run(self, kind: Kind, informer: Informer[Any]) -> None:
        assert self._tasks is not None
        self._running[kind] = self._tasks.create_task(informer.run(), name=f"informer {kind}")

    async def synced(self, timeout: float | None = None) -> None:
        """Wait until each informer that there is now has the whole state of its kind."""
        await wait_synced(*self._informers.values(), *self._selected.values(), timeout=timeout)

    def drop(self, kind: Kind) -> None:
        """Stop following a kind that is served no more."""
        self._informers.pop(kind, None)
        task = self._running.pop(kind, None)
        if task is not None:
            task.cancel()

    def revision(self, kind: Kind) -> int:
        """The revision up to which the kind is known here."""
        informer = self._informers.get(kind)
        return informer.revision if informer else 0
