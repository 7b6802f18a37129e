"""Claims, classes and slices as the scheduler follows them, and what it has promised and not written yet.

A claim's devices are taken from the moment of the decision: `promise` holds them until the watch shows the claim as
allocated (or gone), or `release` gives them back. So two decisions never share a device, however late the watch is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from machinery.api import kinds
from machinery.client.api_client import ApiClient
from machinery.client.informer import Informer
from services.scheduler.cluster_state import ClusterState
from services.scheduler.devices import extended
from services.scheduler.devices.allocator import Taken
from services.scheduler.devices.catalog import Catalog, SliceViews
from services.scheduler.devices.objects import (
    Allocation,
    DeviceClass,
    DeviceResourceClaim,
    DeviceTaintRule,
    ResourceSlice,
    Result,
)
from services.scheduler.objects import DeviceClaimRef, Pod


class ClaimMissing(Exception):
    """A claim of the pod is not there (yet), or is not the pod's."""


class _Promise:
    """An allocation that is decided and that the watch does not show yet. `revision`: where it was written, once it
    was; until then no claim without an allocation takes it back."""

    __slots__ = ("allocation", "pod", "revision")

    def __init__(self, pod: str, allocation: dict[str, Any]) -> None:
        self.pod = pod
        self.allocation = allocation
        self.revision = 2**63


class Devices:
    """Follows ResourceClaims, DeviceClasses, ResourceSlices and DeviceTaintRules."""

    def __init__(self, client: ApiClient) -> None:
        def follow(kind: kinds.Kind, model: type[Any], **indexers: Any) -> Informer[Any]:
            return Informer(client, kind, decode=msgspec.json.Decoder(model).decode, indexers=indexers)

        self.claims: Informer[DeviceResourceClaim] = follow(
            kinds.RESOURCE_CLAIM, DeviceResourceClaim, extended=_extended_of
        )
        self.classes: Informer[DeviceClass] = follow(kinds.DEVICE_CLASS, DeviceClass)
        self.slices: Informer[ResourceSlice] = follow(kinds.RESOURCE_SLICE, ResourceSlice)
        self.taint_rules: Informer[DeviceTaintRule] = follow(kinds.DEVICE_TAINT_RULE, DeviceTaintRule)
        self.taken = Taken()
        self._views = SliceViews()
        # By the claim's uid: the claim, the devices that it holds as far as we know, and promises among them.
        self._known: dict[str, DeviceResourceClaim] = {}
        self._held: dict[str, list[Result]] = {}
        self._promises: dict[str, _Promise] = {}
        self._by_resource: dict[str, str] = {}
        # Counts every change: what was worked out at one version holds as long as the version does.
        self.version = 0
        self.claims.add_handler(self.on_claim)
        self.slices.add_handler(self._on_slice)
        self.classes.add_handler(self._on_class)
        self.taint_rules.add_handler(self._on_rule)

    @property
    def informers(self) -> list[Informer[Any]]:
        """What has to run."""
        return [self.claims, self.classes, self.slices, self.taint_rules]

    def _on_slice(self, old: ResourceSlice | None, new: ResourceSlice | None) -> None:
        self.version += 1
        self._views.set(old, new)

    def _on_class(self, old: DeviceClass | None, new: DeviceClass | None) -> None:
        self.version += 1
        self._by_resource = extended.by_resource(self.classes.lister)

    def _on_rule(self, old: DeviceTaintRule | None, new: DeviceTaintRule | None) -> None:
        if old is None or new is None or old.spec != new.spec:  # Its status is written time and again.
            self.version += 1
            self._views.set_rules(self.taint_rules.lister)

    def catalog(self, state: ClusterState) -> Catalog:
        """The devices of every node."""
        return self._views.catalog(state)

    def class_map(self) -> dict[str, DeviceClass]:
        """The classes by name."""
        return {each.metadata.name: each for each in self.classes.lister}

    # --- extended resources -------------------------------------------------------------------------------------------

    def backed(self, resources: Mapping[str, int]) -> dict[str, str]:
        """Those of a pod's requests that devices may satisfy, with their class."""
        classes = self._by_resource
        return {name: classes[name] for name in resources if name in classes} if classes else {}

    def extended_claims(self, pod: str) -> Sequence[DeviceResourceClaim]:
        """The claims that were written for a pod's extended resources: one, and those of attempts in vain until they
        are gone."""
        return self.claims.lister.by_index("extended", pod)

    def adopt(self, promised: str, uid: str) -> None:
        """What was promised to a claim that was not written yet is that claim's now."""
        promise, held = self._promises.pop(promised, None), self._held.pop(promised, None)
        if promise is not None:
            self._promises[uid] = promise
        if held is not None:
            self._held[uid] = held

    # --- claims -------------------------------------------------------------------------------------------------------

    def claims_of(self, pod: Pod) -> list[DeviceResourceClaim]:
        """The claims of a pod. Raises ClaimMissing."""
        out = []
        for reference in pod.spec.resourceClaims or ():
            name, generated = claim_name(pod, reference)
            if name is None:
                continue
            claim = self.claims.lister.get(pod.metadata.namespace, name)
            if claim is None:
                raise ClaimMissing(f'resourceclaim "{name}" not found')
            if claim.metadata.deletionTimestamp is not None:
                raise ClaimMissing(f'resourceclaim "{name}" is being deleted')
            if generated and not _owned_by(claim, pod):
                words = (
                    f"ResourceClaim {claim.key} was not created for Pod {pod.metadata.namespace}/{pod.metadata.name}"
                )
                raise ClaimMissing(f"{words} (Pod is not owner)")
            out.append(claim)
        return out

    def on_claim(self, old: DeviceResourceClaim | None, new: DeviceResourceClaim | None) -> None:
        """The watch shows a claim: what it holds is what it says, but for a promise that is not written yet."""
        self.version += 1
        if old is not None and (new is None or old.metadata.uid != new.metadata.uid):
            self._known.pop(old.metadata.uid, None)
            self._promises.pop(old.metadata.uid, None)
            self._hold(old.metadata.uid, [])
        if new is None:
            return
        uid, allocation = new.metadata.uid, new.status.allocation
        self._known[uid] = new
        promise = self._promises.get(uid)
        if allocation is None and promise is not None and int(new.metadata.resourceVersion) <= promise.revision:
            return
        self._promises.pop(uid, None)
        self._hold(uid, allocation.devices.results if allocation is not None else [])

    def promise(self, uid: str, pod: str, allocation: dict[str, Any]) -> None:
        """Keep these devices for a claim, on behalf of a pod (by their uids)."""
        self._promises[uid] = _Promise(pod, allocation)
        self._hold(uid, msgspec.convert(allocation, Allocation).devices.results)

    def promised(self, uid: str) -> dict[str, Any] | None:
        """The allocation that a decision gave a claim and that the watch does not show yet."""
        promise = self._promises.get(uid)
        return promise.allocation if promise is not None else None

    def written(self, uid: str, revision: int) -> None:
        """The promise was written at that revision: what the watch shows of later ones is the truth."""
        promise = self._promises.get(uid)
        if promise is not None:
            promise.revision = revision
            current = self._known.get(uid)
            if current is not None and int(current.metadata.resourceVersion) > revision:
                self.on_claim(current, current)

    def release(self, uid: str) -> None:
        """The decision was in vain. Nothing happens if the watch has shown the allocation meanwhile."""
        if self._promises.pop(uid, None) is not None:
            self._hold(uid, [])

    def release_of(self, pod: str, but: set[str]) -> None:
        """Release what was promised on behalf of a pod, except for these claims."""
        for uid in [uid for uid, promise in self._promises.items() if promise.pod == pod and uid not in but]:
            self.release(uid)

    def _hold(self, uid: str, results: list[Result]) -> None:
        self.version += 1
        before = self._held.pop(uid, None)
        if before:
            self.taken.add(before, -1)
        if results:
            self._held[uid] = results
            self.taken.add(results)


def claim_name(pod: Pod, reference: DeviceClaimRef) -> tuple[str | None, bool]:
    """(the claim's name; None: none is needed, whether it was made for this pod). Raises ClaimMissing."""
    if reference.resourceClaimName is not None:
        return reference.resourceClaimName, False
    for status in pod.status.resourceClaimStatuses or ():
        if status.name == reference.name:
            return status.resourceClaimName, True
    words = f'resource claim of template "{reference.resourceClaimTemplateName}" for "{reference.name}"'
    raise ClaimMissing(f"waiting for the {words} to be created")


def _extended_of(claim: DeviceResourceClaim) -> Iterable[str]:
    """The pod for whose extended resources the claim stands, if it is such a one."""
    if (claim.metadata.annotations or {}).get(extended.ANNOTATION) != "true":
        return ()
    return [ref.uid for ref in claim.metadata.ownerReferences or () if ref.controller and ref.kind == "Pod"]


def _owned_by(claim: DeviceResourceClaim, pod: Pod) -> bool:
    return any(ref.controller and ref.uid == pod.metadata.uid for ref in claim.metadata.ownerReferences or ())
