"""VolumeBinding.

A pod goes where its volumes can be used; volumes that wait for their first consumer are given to the chosen node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from machinery.api import kinds, selectors
from machinery.api.errors import ApiError, Conflict
from machinery.component import logs
from services.scheduler.cluster_state import ClusterState
from services.scheduler.columns import Array
from services.scheduler.framework import SKIP, ClusterEvent, Hint, Plugin, Rejected, Rows
from services.scheduler.objects import NodeSelector, Requirement
from services.scheduler.plugins.node_affinity import Terms
from services.scheduler.pod_info import PodInfo
from services.scheduler.volumes import (
    NO_PROVISIONER,
    SELECTED_NODE,
    Claim,
    PersistentVolume,
    StorageClass,
    Volumes,
    suits,
)

CONFLICT = "node(s) had volume node affinity conflict"
NOT_FOUND = "node(s) didn't find available persistent volumes to bind"
NO_VOLUME = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
IMMEDIATE = "pod has unbound immediate PersistentVolumeClaims"

BIND_SECONDS_MAX = 600.0
"""How long a pod's volumes may take to be provisioned before it is scheduled anew: upstream's bindTimeoutSeconds."""

log = logs.get("volume_binding")


class _Data:
    """The pod's claims, sorted by what they need."""

    def __init__(self) -> None:
        self.bound: list[PersistentVolume | None] = []
        self.delayed: list[tuple[Claim, StorageClass]] = []


class VolumeBinding(Plugin):
    """Arguments: `bindTimeoutSeconds`."""

    def __init__(self, arguments: dict[str, Any] | None = None, handle: Any = None) -> None:
        super().__init__(arguments, handle)
        self.timeout_seconds = float(self.arguments.get("bindTimeoutSeconds") or BIND_SECONDS_MAX)
        # Volumes that a decision gave to a claim and that the watch does not show as taken yet: name -> claim key.
        self._promised: dict[str, str] = {}

    @property
    def _volumes(self) -> Volumes | None:
        return getattr(self.handle, "volumes", None)

    def events(self) -> dict[ClusterEvent, Hint | None]:
        resources = ("PersistentVolumeClaim", "PersistentVolume", "StorageClass", "CSINode")
        changes: dict[ClusterEvent, Hint | None] = {
            ClusterEvent(resource, action): _concerns for resource in resources for action in ("Add", "Update")
        }
        return changes | {ClusterEvent("Node", "Add"): None, ClusterEvent("Node", "Update"): _labels_changed}

    # --- filtering ----------------------------------------------------------------------------------------------------

    def prepare(self, pod: PodInfo, state: ClusterState) -> Any:
        names = pod.claims
        volumes = self._volumes
        if not names or volumes is None:
            return SKIP
        data = _Data()
        for name in names:
            claim = volumes.claim(pod.namespace, name)
            if claim is None:
                return Rejected(f'persistentvolumeclaim "{name}" not found')
            if claim.metadata.deletionTimestamp is not None:
                return Rejected(f'persistentvolumeclaim "{name}" is being deleted')
            if claim.bound:
                data.bound.append(volumes.volume(claim.spec.volumeName or ""))
                continue
            storage_class = volumes.storage_class(claim)
            if storage_class is None or not storage_class.delayed or claim.spec.volumeName:
                return Rejected(IMMEDIATE)
            data.delayed.append((claim, storage_class))
        return data

    def filter(self, data: _Data, state: ClusterState, rows: Rows) -> Array:
        out = np.zeros(state.size, dtype=np.uint64)
        everything = slice(0, state.size)
        for volume in data.bound:
            if volume is None:
                out |= np.uint64(4)
            else:
                out[~_usable(volume, state, everything)] |= np.uint64(1)
        for claim, storage_class in data.delayed:
            out[~self._obtainable(claim, storage_class, state)] |= np.uint64(2)
        return out[rows]

    def _obtainable(self, claim: Claim, storage_class: StorageClass, state: ClusterState) -> Array:
        """On which rows the claim can have a volume: one that is there and usable, or one that is made."""
        everything = slice(0, state.size)
        out = np.zeros(state.size, dtype=bool)
        for volume in self._candidates(claim):
            out |= _usable(volume, state, everything)
        if storage_class.provisioner and storage_class.provisioner != NO_PROVISIONER:
            out |= _allowed(storage_class, state)
        return out

    def _candidates(self, claim: Claim) -> list[PersistentVolume]:
        """Volumes for the claim, smallest first."""
        assert self._volumes is not None
        selector = claim.spec.selector
        chosen = selectors.everything() if selector is None else selectors.from_label_selector(selector)
        key = f"{claim.metadata.namespace}/{claim.metadata.name}"
        found = [
            volume
            for volume in self._volumes.available()
            if self._promised.get(volume.metadata.name, key) == key and suits(volume, claim, chosen.matches)
        ]
        return sorted(found, key=lambda volume: (volume.spec.claimRef is None, volume.size, volume.metadata.name))

    def reasons(self, data: Any, state: ClusterState) -> Sequence[str]:
        return (CONFLICT, NOT_FOUND, NO_VOLUME)

    def remedy(self, data: _Data, state: ClusterState, row: int) -> str:
        return f"fits on {state.name(row)} if the volumes of the pod's claims can be used there"

    # --- binding ------------------------------------------------------------------------------------------------------

    def pre_bind_needed(self, pod: PodInfo, node: str) -> bool:
        """Whether a claim of the pod still waits for its first consumer."""
        volumes = self._volumes
        claims = [volumes.claim(pod.namespace, name) for name in pod.claims] if volumes else []
        return any(claim is not None and not claim.bound for claim in claims)

    async def pre_bind(self, pod: PodInfo, node: str) -> str | None:
        """Give each delayed claim its volume or its node, and wait until its controller has bound it."""
        volumes = self._volumes
        assert volumes is not None
        client, state = self.handle.writer, self.handle.state
        row = state.row_of.get(node)
        if row is None:
            return f"node {node} is gone"
        try:
            for name in pod.claims:
                claim = volumes.claim(pod.namespace, name)
                if claim is not None and not claim.bound:
                    await self._give(client, claim, node, row, state)
        except Conflict:
            return "a volume or claim has changed meanwhile"
        except ApiError as err:
            return f"binding volumes: {err.message}"
        return await self._wait(pod, volumes)

    async def _give(self, client: Any, claim: Claim, node: str, row: int, state: ClusterState) -> None:
        metadata = claim.metadata
        for volume in self._candidates(claim):
            if not _usable(volume, state, np.array([row]))[0]:
                continue
            key = f"{metadata.namespace}/{metadata.name}"
            self._promised[volume.metadata.name] = key
            reference = {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": metadata.namespace,
                "name": metadata.name, "uid": metadata.uid,
            }  # fmt: skip
            patch = {
                "metadata": {"resourceVersion": volume.metadata.resourceVersion},
                "spec": {"claimRef": reference},
            }
            try:
                await client.patch(kinds.PERSISTENT_VOLUME, volume.metadata.name, "", patch)
            finally:
                self._promised.pop(volume.metadata.name, None)
            return
        patch = {"metadata": {"uid": metadata.uid, "annotations": {SELECTED_NODE: node}}}
        await client.patch(kinds.PERSISTENT_VOLUME_CLAIM, metadata.name, metadata.namespace, patch)

    async def _wait(self, pod: PodInfo, volumes: Volumes) -> str | None:
        """Until every claim is bound.

        A provisioner that gives up takes the node's name off the claim: then try elsewhere.
        """
        try:
            async with asyncio.timeout(self.timeout_seconds):
                while True:
                    changed = self.handle.volumes_changed()
                    claims = [(name, volumes.claim(pod.namespace, name)) for name in pod.claims]
                    for name, claim in claims:
                        if claim is None or claim.metadata.deletionTimestamp is not None:
                            return f'persistentvolumeclaim "{name}" is gone'
                    if all(claim is not None and claim.bound for _, claim in claims):
                        return None
                    await changed.wait()
        except TimeoutError:
            return f"volumes were not bound within {self.timeout_seconds:g} s"


def _usable(volume: PersistentVolume, state: ClusterState, rows: Rows) -> Array:
    required = volume.spec.nodeAffinity.required if volume.spec.nodeAffinity else None
    if required is None:
        return np.ones(len(state.valid[rows]), dtype=bool)
    return Terms(required, state)(state, rows)


def _allowed(storage_class: StorageClass, state: ClusterState) -> Array:
    """Rows on which the class may provision."""
    out = np.zeros(state.size, dtype=bool)
    if not storage_class.allowedTopologies:
        return ~out
    from services.scheduler.objects import NodeSelectorTerm

    for term in storage_class.allowedTopologies:
        wanted = [Requirement(key=r.key, operator="In", values=r.values) for r in term.matchLabelExpressions or ()]
        selector = NodeSelector([NodeSelectorTerm(matchExpressions=wanted)])
        out |= Terms(selector, state)(state, slice(0, state.size)) if wanted else True
    return out


def _concerns(pod: PodInfo, old: Any, new: Any) -> bool:
    """Whether a changed claim is the pod's; volumes and classes may be anybody's."""
    return not isinstance(new, Claim) or (new.metadata.namespace == pod.namespace and new.metadata.name in pod.claims)


def _labels_changed(pod: PodInfo, old: Any, new: Any) -> bool:
    return old is None or new is None or old.metadata.labels != new.metadata.labels
