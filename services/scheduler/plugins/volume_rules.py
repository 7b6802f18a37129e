"""Three small rules about volumes.

ReadWriteOncePod claims, zones of volumes, and how many volumes a node can attach.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from services.scheduler.cluster_state import ClusterState, Matches, PodCounter
from services.scheduler.columns import Array, Lookup
from services.scheduler.framework import SKIP, ClusterEvent, Hint, Plugin, Rows
from services.scheduler.objects import Node
from services.scheduler.pod_info import PodInfo
from services.scheduler.volumes import Claim, PersistentVolume, Volumes

RWOP_REASON = (
    "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
)
ZONE_REASON = "node(s) had no available volume zone"
LIMIT_REASON = "node(s) exceed max volume count"

ZONE_LABELS = (
    "topology.kubernetes.io/zone", "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region",
)  # fmt: skip


def _claims(plugin: Plugin, pod: PodInfo) -> list[Claim]:
    volumes: Volumes | None = getattr(plugin.handle, "volumes", None)
    if volumes is None:
        return []
    found = [volumes.claim(pod.namespace, name) for name in pod.claims]
    return [claim for claim in found if claim is not None]


def _bound_volumes(plugin: Plugin, pod: PodInfo) -> list[PersistentVolume]:
    found = [plugin.handle.volumes.volume(c.spec.volumeName) for c in _claims(plugin, pod) if c.spec.volumeName]
    return [volume for volume in found if volume is not None]


class VolumeRestrictions(Plugin):
    """A ReadWriteOncePod claim is used by one pod at a time."""

    preemptible = True

    def events(self) -> dict[ClusterEvent, Hint | None]:
        return {ClusterEvent("Pod", "Delete"): _shares_claim}

    def prepare(self, pod: PodInfo, state: ClusterState) -> Any:
        alone = [c.metadata.name for c in _claims(self, pod) if "ReadWriteOncePod" in (c.spec.accessModes or ())]
        if not alone:
            return SKIP
        namespace = pod.namespace

        def counter(name: str) -> PodCounter:
            def matches() -> Matches:
                return lambda other: int(other.namespace == namespace and name in other.claims)

            return state.counter(("claim", namespace, name), matches)

        return [counter(name) for name in alone]

    def filter(self, data: list[PodCounter], state: ClusterState, rows: Rows) -> Array:
        # One user anywhere keeps every node from it; on the user's own node its eviction would help.
        taken = any(counter.counts[: state.size].any() for counter in data)
        return np.full(state.size, int(taken), dtype=np.uint64)[rows]

    def reasons(self, data: Any, state: ClusterState) -> Sequence[str]:
        return (RWOP_REASON,)


class VolumeZone(Plugin):
    """A volume that carries a zone's or region's label is used there only."""

    def events(self) -> dict[ClusterEvent, Hint | None]:
        return {
            ClusterEvent("Node", "Add"): None, ClusterEvent("Node", "Update"): _zone_changed,
            ClusterEvent("PersistentVolumeClaim", "Update"): _is_of_pod,
            ClusterEvent("PersistentVolume", "Update"): None,
        }  # fmt: skip

    def prepare(self, pod: PodInfo, state: ClusterState) -> Any:
        wanted = []
        for volume in _bound_volumes(self, pod) if pod.claims and hasattr(self.handle, "volumes") else ():
            for label in ZONE_LABELS:
                text = (volume.metadata.labels or {}).get(label)
                if text:
                    # Several zones are written with two underscores between them.
                    wanted.append((label, frozenset(text.split("__"))))
        return wanted or SKIP

    def filter(self, data: list[tuple[str, frozenset[str]]], state: ClusterState, rows: Rows) -> Array:
        out = np.zeros(len(state.valid[rows]), dtype=bool)
        for label, zones in data:
            out |= ~Lookup(state.column(label), zones.__contains__, False, bool)(rows)
        return out.astype(np.uint64)

    def reasons(self, data: Any, state: ClusterState) -> Sequence[str]:
        return (ZONE_REASON,)


class NodeVolumeLimits(Plugin):
    """CSINode says how many volumes of a driver a node can attach."""

    preemptible = True

    def events(self) -> dict[ClusterEvent, Hint | None]:
        return {
            ClusterEvent("Pod", "Delete"): _used_claims,
            ClusterEvent("CSINode", "Add"): None,
            ClusterEvent("CSINode", "Update"): None,
        }

    def prepare(self, pod: PodInfo, state: ClusterState) -> Any:
        if not pod.claims or not hasattr(self.handle, "volumes"):
            return SKIP
        wanted = {v.spec.csi.volumeHandle: v.spec.csi.driver for v in _bound_volumes(self, pod) if v.spec.csi}
        limits = self._limits(set(wanted.values()))
        return (wanted, limits) if limits else SKIP

    def _limits(self, drivers: set[str]) -> dict[tuple[str, str], int]:
        return {
            (node.metadata.name, driver.name): driver.allocatable["count"]
            for node in self.handle.volumes.csi_nodes.lister
            for driver in node.spec.drivers
            if driver.name in drivers and driver.allocatable and "count" in driver.allocatable
        }

    def filter(self, data: tuple[dict[str, str], dict[tuple[str, str], int]], state: ClusterState, rows: Rows) -> Array:
        wanted, limits = data
        out = np.zeros(state.size, dtype=np.uint64)
        for (name, driver), limit in limits.items():
            row = state.row_of.get(name)
            if row is None:
                continue
            present = {
                volume.spec.csi.volumeHandle
                for pod in state.pods_of(row)
                for volume in _bound_volumes(self, pod)
                if volume.spec.csi and volume.spec.csi.driver == driver
            }
            more = {handle for handle, of in wanted.items() if of == driver} - present
            if more and len(present) + len(more) > limit:
                out[row] = 1
        return out[rows]

    def reasons(self, data: Any, state: ClusterState) -> Sequence[str]:
        return (LIMIT_REASON,)


def _shares_claim(pod: PodInfo, old: PodInfo | None, new: Any) -> bool:
    return old is not None and old.namespace == pod.namespace and bool(set(old.claims) & set(pod.claims))


def _used_claims(pod: PodInfo, old: PodInfo | None, new: Any) -> bool:
    return old is not None and bool(old.claims)


def _is_of_pod(pod: PodInfo, old: Any, new: Claim) -> bool:
    return new.metadata.namespace == pod.namespace and new.metadata.name in pod.claims


def _zone_changed(pod: PodInfo, old: Node | None, new: Node | None) -> bool:
    if old is None or new is None:
        return True
    before, after = old.metadata.labels or {}, new.metadata.labels or {}
    return any(before.get(label) != after.get(label) for label in ZONE_LABELS)
