"""Watches claims, and the taints that drivers put on devices in their ResourceSlices and administrators by rules.

Keys: NS/NAME of a pod, NAME of a DeviceTaintRule.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from machinery.api import kinds
from machinery.api.device_taints import NO_EXECUTE
from services.controller_manager.actions import Plan
from services.controller_manager.controllers.device_taint_eviction import plan as planner
from services.controller_manager.controllers.device_taint_eviction import rule_status
from services.controller_manager.controllers.device_taint_eviction.rule_status import Extent
from services.controller_manager.controllers.resource_claim.plan import claim_names, has_claims, is_pod
from services.controller_manager.pods import is_terminal
from services.controller_manager.reconciler import OfKind, reference
from services.controller_manager.views.devices import (
    Device,
    DeviceTaint,
    DeviceTaintRule,
    ResourceClaim,
    ResourceSlice,
    Result,
)
from services.controller_manager.views.pod import Pod

PoolKey = tuple[str, str]


class DeviceTaintEvictionController(OfKind):
    """device-taint-eviction-controller"""

    name = "device-taint-eviction-controller"
    kind = kinds.POD

    def watch(self) -> None:
        """Slices, rules and claims; pods for which claims they have."""
        # By pool and slice; and when a taint that does not say so was seen first.
        self._pools: dict[PoolKey, dict[str, ResourceSlice]] = {}
        self._since: dict[DeviceTaint, datetime] = {}
        # By rule, the uids of the pods that it cost; and the rules with an effect on what runs.
        self._evicted: dict[str, set[str]] = {}
        self._evicting: list[DeviceTaintRule] = []
        self.on(kinds.POD, self._on_pod)
        self.on(kinds.RESOURCE_SLICE, self._on_slice)
        self.on(kinds.RESOURCE_CLAIM, self._on_claim)
        self.on(kinds.DEVICE_TAINT_RULE, self._on_rule)

    def keys(self) -> list[str]:
        """Pods with claims, and rules."""
        pods = [pod.metadata.key for pod in self.lister(kinds.POD) if has_claims(pod)]
        return [*pods, *self.lister(kinds.DEVICE_TAINT_RULE).keys()]

    def subject(self, key: str) -> dict[str, Any] | None:
        """The pod or the rule."""
        if "/" in key:
            return super().subject(key)
        rule = self.lister(kinds.DEVICE_TAINT_RULE).by_key(key)
        return reference(kinds.DEVICE_TAINT_RULE, rule.metadata) if rule is not None else None

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        # Its claims may have been seen before it, or before it said which they are.
        if new is not None and has_claims(new) and (old is None or claim_names(old) != claim_names(new)):
            self.add(new.metadata.key)

    def _on_rule(self, old: DeviceTaintRule | None, new: DeviceTaintRule | None) -> None:
        each = new or old
        assert each is not None
        if new is None:
            self._evicted.pop(each.metadata.uid, None)
        if old is not None and new is not None and old.spec == new.spec:
            return
        rules = self.lister(kinds.DEVICE_TAINT_RULE)
        self._evicting = [rule for rule in rules if rule.spec.taint.effect == NO_EXECUTE]
        if any(rule is not None and rule.spec.taint.effect == NO_EXECUTE for rule in (old, new)):
            for claim in self.lister(kinds.RESOURCE_CLAIM):
                if any(planner.concerns(r, result) for r in (old, new) if r for result in planner.results(claim)):
                    self._add_users(claim)
        self.add(each.metadata.name)

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
                if any((result.driver, result.pool) in pools for result in planner.results(claim)):
                    self._add_users(claim)
        for each in (old, new):
            if each is not None and not self._pools.get(each.pool, True):
                del self._pools[each.pool]

    def _on_claim(self, old: ResourceClaim | None, new: ResourceClaim | None) -> None:
        if new is not None and planner.results(new):
            self._add_users(new)

    def _add_users(self, claim: ResourceClaim) -> None:
        for consumer in claim.status.reservedFor:
            if is_pod(consumer):
                self.add(f"{claim.metadata.namespace}/{consumer.name}")

    async def reconcile(self, key: str) -> Plan | None:
        """See `plan` and `rule_status`."""
        return self._pod(key) if "/" in key else self._rule(key)

    def _pod(self, key: str) -> Plan | None:
        pod: Pod | None = self.lister(kinds.POD).by_key(key)
        if pod is None or is_terminal(pod):
            return None
        eviction = planner.eviction_of(self._claims(pod), self._find, self._evicting, self._first_seen)
        out = planner.plan(pod, eviction.moment if eviction else None, self.env.now())
        for meta in (rule.metadata for rule in self._evicting if eviction and rule.metadata.uid in eviction.rules):
            if out.actions:
                self._evicted.setdefault(meta.uid, set()).add(pod.metadata.uid)
            self.add(meta.name)
        return out

    # --- rules --------------------------------------------------------------------------------------------------------

    def _rule(self, name: str) -> Plan | None:
        rule: DeviceTaintRule | None = self.lister(kinds.DEVICE_TAINT_RULE).by_key(name)
        if rule is None or rule_status.is_final(rule):
            return None
        now = self.env.now()
        seconds = rule_status.wait_seconds(rule, now)
        return Plan(requeue_after=seconds) if seconds else rule_status.plan(rule, self._extent(rule), now)

    def _extent(self, rule: DeviceTaintRule) -> Extent:
        effect = rule.spec.taint.effect
        evicted = len(self._evicted.get(rule.metadata.uid, ()))
        if effect not in (NO_EXECUTE, "None"):
            return Extent(evicted=evicted)
        # What the rule does, or would do if it did anything.
        taint = msgspec.structs.replace(rule.spec.taint, effect=NO_EXECUTE)
        acting = msgspec.structs.replace(rule, spec=msgspec.structs.replace(rule.spec, taint=taint))
        waiting = [pod for pod in self.lister(kinds.POD) if has_claims(pod) and self._waits(pod, acting)]
        extent = Extent(len(waiting), len({pod.metadata.namespace for pod in waiting}), evicted=evicted)
        if effect == NO_EXECUTE:
            return extent  # It is asked for time and again, and nobody is told of devices.
        held = (result for claim in self.lister(kinds.RESOURCE_CLAIM) for result in planner.results(claim))
        return extent._replace(
            published_devices=sum(planner.concerns(rule, each) for each in self._published()),
            allocated_devices=sum(planner.concerns(rule, each) for each in held),
        )

    def _waits(self, pod: Pod, rule: DeviceTaintRule) -> bool:
        if is_terminal(pod) or pod.metadata.deletionTimestamp is not None:
            return False
        # The devices' own taints are not asked about.
        return planner.eviction_of(self._claims(pod), lambda _: None, [rule], self._first_seen) is not None

    def _published(self) -> Iterator[Result]:
        for (driver, pool), slices in self._pools.items():
            newest = max((each.spec.pool.generation for each in slices.values()), default=0)
            for each in slices.values():
                for device in each.spec.devices if each.spec.pool.generation == newest else ():
                    yield Result(driver=driver, pool=pool, device=device.name)

    # --- devices ------------------------------------------------------------------------------------------------------

    def _claims(self, pod: Pod) -> list[ResourceClaim]:
        found = [self.lister(kinds.RESOURCE_CLAIM).get(pod.metadata.namespace, name) for name in claim_names(pod)]
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


def _tainted(each: Any) -> bool:
    return each is not None and any(taint.effect == NO_EXECUTE for d in each.spec.devices for taint in d.taints)
