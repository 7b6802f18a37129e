"""Watches claims, and the taints that drivers put on devices in their ResourceSlices."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from machinery.api import kinds
from services.controller_manager.actions import Plan
from services.controller_manager.controllers.device_taint_eviction import plan as planner
from services.controller_manager.controllers.resource_claim.plan import claim_name, is_pod
from services.controller_manager.pods import is_terminal
from services.controller_manager.reconciler import OfKind
from services.controller_manager.views.devices import Device, DeviceTaint, ResourceClaim, ResourceSlice, Result
from services.controller_manager.views.pod import Pod

PoolKey = tuple[str, str]


class DeviceTaintEvictionController(OfKind):
    """device-taint-eviction-controller"""

    name = "device-taint-eviction-controller"
    kind = kinds.POD

    def watch(self) -> None:
        """Slices and claims; a pod comes to its devices by its claims."""
        # By pool and slice; and when a taint that does not say so was seen first.
        self._pools: dict[PoolKey, dict[str, ResourceSlice]] = {}
        self._since: dict[DeviceTaint, datetime] = {}
        self.informers.of(kinds.POD)
        self.on(kinds.RESOURCE_SLICE, self._on_slice)
        self.on(kinds.RESOURCE_CLAIM, self._on_claim)

    def keys(self) -> list[str]:
        """Pods with claims."""
        return [pod.metadata.key for pod in self.lister(kinds.POD) if pod.spec.resourceClaims]

    def _on_slice(self, old: ResourceSlice | None, new: ResourceSlice | None) -> None:
        for each in (old, new):
            if each is not None:
                pool = self._pools.setdefault(each.pool, {})
                pool.pop(each.metadata.name, None)
        if new is not None:
            self._pools[new.pool][new.metadata.name] = new
        if _tainted(new) or _tainted(old):
            pools = {each.pool for each in (old, new) if each is not None}
            for claim in self.lister(kinds.RESOURCE_CLAIM):
                if any((result.driver, result.pool) in pools for result in _results(claim)):
                    self._add_users(claim)
        for each in (old, new):
            if each is not None and not self._pools.get(each.pool, True):
                del self._pools[each.pool]

    def _on_claim(self, old: ResourceClaim | None, new: ResourceClaim | None) -> None:
        if new is not None and _results(new):
            self._add_users(new)

    def _add_users(self, claim: ResourceClaim) -> None:
        for consumer in claim.status.reservedFor:
            if is_pod(consumer):
                self.add(f"{claim.metadata.namespace}/{consumer.name}")

    async def reconcile(self, key: str) -> Plan | None:
        """See `plan`."""
        pod: Pod | None = self.lister(kinds.POD).by_key(key)
        if pod is None or is_terminal(pod):
            return None
        moment = planner.leave_at(self._claims(pod), self._find, self._first_seen)
        return planner.plan(pod, moment, self.env.now())

    def _claims(self, pod: Pod) -> list[ResourceClaim]:
        names = [claim_name(pod, reference) for reference in pod.spec.resourceClaims]
        found = [self.lister(kinds.RESOURCE_CLAIM).get(pod.metadata.namespace, name) for name in names if name]
        uid = pod.metadata.uid
        return [c for c in found if c is not None and any(each.uid == uid for each in c.status.reservedFor)]

    def _find(self, result: Result) -> Device | None:
        """The device as its pool's newest slices have it."""
        slices = self._pools.get((result.driver, result.pool), {}).values()
        newest = max((each.spec.pool.generation for each in slices), default=0)
        return next(
            (
                device
                for each in slices
                if each.spec.pool.generation == newest
                for device in each.spec.devices
                if device.name == result.device
            ),
            None,
        )

    def _first_seen(self, taint: DeviceTaint) -> datetime:
        return self._since.setdefault(taint, self.env.now())


def _results(claim: ResourceClaim) -> tuple[Result, ...]:
    return claim.status.allocation.devices.results if claim.status.allocation is not None else ()


def _tainted(each: Any) -> bool:
    return each is not None and any(taint.effect == "NoExecute" for d in each.spec.devices for taint in d.taints)
