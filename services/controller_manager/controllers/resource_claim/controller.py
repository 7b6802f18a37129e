"""Watches pods that claim devices, their claims and the templates of these. Keys: `pod/NS/NAME`, `claim/NS/NAME`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from machinery.api import kinds
from machinery.api.errors import NotFound
from services.controller_manager.actions import Delete, Plan
from services.controller_manager.controllers.resource_claim import plan as planner
from services.controller_manager.informers import OWNER
from services.controller_manager.reconciler import Reconciler, reference
from services.controller_manager.views.devices import ResourceClaim
from services.controller_manager.views.pod import Pod

TEMPLATE_RETRY_SECONDS = 30.0
"""A template that is missing is looked for again when it comes; this is the net below that."""

LEFTOVER_SECONDS = 2.0
"""A claim that is protected and holds nothing is either about to be allocated, by a scheduler that writes the
finalizer first, or was left so by a crash between two writes. Unchanged for so long, it is the latter."""


class ResourceClaimController(Reconciler):
    """resourceclaim-controller"""

    name = "resourceclaim-controller"
    component = "resource_claim"

    def watch(self) -> None:
        """Pods with claims, claims, templates."""
        # By uid: at which revision a claim was first seen protected without holding anything, and when.
        self._empty: dict[str, tuple[int, datetime]] = {}
        self.on(kinds.POD, self._on_pod)
        self.on(kinds.RESOURCE_CLAIM, self._on_claim)
        self.on(kinds.RESOURCE_CLAIM_TEMPLATE, self._on_template)

    def keys(self) -> list[str]:
        """Every claim, and every pod with claims."""
        pods = [f"pod/{pod.metadata.key}" for pod in self.lister(kinds.POD) if planner.has_claims(pod)]
        return pods + [f"claim/{key}" for key in self.lister(kinds.RESOURCE_CLAIM).keys()]  # noqa: SIM118

    def subject(self, key: str) -> dict[str, Any] | None:
        """The pod or claim."""
        what, _, name = key.partition("/")
        kind = kinds.POD if what == "pod" else kinds.RESOURCE_CLAIM
        found = self.lister(kind).by_key(name)
        return reference(kind, found.metadata) if found is not None else None

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        assert pod is not None
        if not planner.has_claims(pod):
            return
        if new is not None:
            self.add(f"pod/{new.metadata.key}")
        if new is None or planner.is_done(new):
            namespace = pod.metadata.namespace
            names = planner.claim_names(pod)
            own = self.informers.of(kinds.RESOURCE_CLAIM).lister.by_index(OWNER, pod.metadata.uid)
            for name in names | {claim.metadata.name for claim in own}:
                self.add(f"claim/{namespace}/{name}")

    def _on_claim(self, old: ResourceClaim | None, new: ResourceClaim | None) -> None:
        claim = new or old
        assert claim is not None
        if new is None:
            self._empty.pop(claim.metadata.uid, None)
        self.add(f"claim/{claim.metadata.key}")
        name, _ = planner.owning_pod(claim)
        namespace = claim.metadata.namespace
        if name:
            self.add(f"pod/{namespace}/{name}")
        elif new is not None and new.status.allocation is not None:
            # A pod that was bound to its node by somebody else may still have to be put into the claim.
            for consumer in self._bound_users(namespace, claim.metadata.name):
                self.add(f"pod/{consumer.metadata.key}")

    def _bound_users(self, namespace: str, claim: str) -> list[Pod]:
        return [
            pod
            for pod in self.lister(kinds.POD).list(namespace)
            if pod.spec.nodeName and any(each.resourceClaimName == claim for each in pod.spec.resourceClaims)
        ]

    def _on_template(self, old: Any, new: Any) -> None:
        if new is not None:
            for pod in self.lister(kinds.POD).list(new.metadata.namespace):
                if any(each.resourceClaimTemplateName == new.metadata.name for each in pod.spec.resourceClaims):
                    self.add(f"pod/{pod.metadata.key}")

    async def reconcile(self, key: str) -> Plan | None:
        """See `plan`."""
        what, _, name = key.partition("/")
        return self._pod(name) if what == "pod" else await self._claim(key, name)

    # --- pods ---------------------------------------------------------------------------------------------------------

    def _pod(self, key: str) -> Plan | None:
        pod: Pod | None = self.lister(kinds.POD).by_key(key)
        if pod is None or pod.metadata.deletionTimestamp is not None or planner.is_done(pod):
            return None
        claims, templates = self.lister(kinds.RESOURCE_CLAIM), self.lister(kinds.RESOURCE_CLAIM_TEMPLATE)
        namespace = pod.metadata.namespace
        actions = planner.of_pod(
            pod,
            lambda name: claims.get(namespace, name),
            claims.by_index(OWNER, pod.metadata.uid),
            lambda name: templates.get(namespace, name),
        )
        failed = any(getattr(action, "reason", "") == planner.FAILED for action in actions)
        return Plan(actions, TEMPLATE_RETRY_SECONDS if failed else None)

    # --- claims -------------------------------------------------------------------------------------------------------

    async def _claim(self, key: str, name: str) -> Plan | None:
        claim: ResourceClaim | None = self.lister(kinds.RESOURCE_CLAIM).by_key(name)
        if claim is None:
            return None
        left = planner.remaining(claim, await self._ended(claim))
        claim_now = await self._release(key, claim, left)
        if claim_now is None or left:
            return None
        if planner.holds_nothing(claim_now):
            return await self._leftover(key, claim_now)
        pod_name, uid = planner.owning_pod(claim)
        pod: Pod | None = self.lister(kinds.POD).get(claim.metadata.namespace, pod_name) if pod_name else None
        # A pod that is not there may not be known yet: the garbage collector sees to it when it is gone.
        if pod is None or claim_now.metadata.deletionTimestamp is not None:
            return None
        if pod.metadata.uid == uid and not planner.is_done(pod):
            return None
        meta = claim.metadata
        return Plan([Delete(kinds.RESOURCE_CLAIM, meta.namespace, meta.name, uid=meta.uid)])

    async def _leftover(self, key: str, claim: ResourceClaim) -> Plan | None:
        meta = claim.metadata
        revision, since = self._empty.get(meta.uid, (0, self.env.now()))
        if revision != meta.revision:
            since = self.env.now()
            self._empty[meta.uid] = (meta.revision, since)
        left = LEFTOVER_SECONDS - (self.env.now() - since).total_seconds()
        if left > 0:
            return Plan(requeue_after=left)
        await self._unprotect(key, claim)
        return Plan(requeue_after=LEFTOVER_SECONDS)

    async def _ended(self, claim: ResourceClaim) -> set[str]:
        """The uids of consuming pods that are gone or done; asked of the apiserver where the cache knows nothing."""
        out = set()
        for consumer in claim.status.reservedFor:
            if not planner.is_pod(consumer):
                continue
            pod: Pod | None = self.lister(kinds.POD).get(claim.metadata.namespace, consumer.name)
            if pod is not None and pod.metadata.uid == consumer.uid:
                if planner.is_done(pod):
                    out.add(consumer.uid)
            elif not await self.lives(kinds.POD, claim.metadata.namespace, consumer.name, consumer.uid):
                out.add(consumer.uid)
        return out

    async def _release(self, key: str, claim: ResourceClaim, left: list[Any]) -> ResourceClaim | None:
        """Take ended consumers, the allocation and the finalizer off, each write on the state that it was decided on.

        The claim as it then is; None if it went meanwhile.
        """
        change = planner.release(claim, left)
        released = False
        try:
            if change is not None:
                claim = await self._write(key, claim, {"status": change}, "status")
                released = not left and claim.status.allocation is None
            if planner.unprotect(claim, left, released=released):
                claim = await self._unprotect(key, claim)
        except NotFound:
            return None
        return claim

    async def _unprotect(self, key: str, claim: ResourceClaim) -> ResourceClaim:
        finalizers = [name for name in claim.metadata.finalizers if name != planner.FINALIZER] or None
        return await self._write(key, claim, {"metadata": {"finalizers": finalizers}}, "")

    async def _write(self, key: str, claim: ResourceClaim, patch: dict[str, Any], subresource: str) -> ResourceClaim:
        meta = claim.metadata
        precondition = {"uid": meta.uid, "resourceVersion": meta.resourceVersion}
        body = {**patch, "metadata": {**patch.get("metadata", {}), **precondition}}
        kind = kinds.RESOURCE_CLAIM
        answer = await self.env.client.patch(kind, meta.name, meta.namespace, body, subresource=subresource)
        changed: ResourceClaim = self.informers.decode(kind, answer)
        self.freshness.wrote(key, kind, changed.metadata.revision)
        return changed
