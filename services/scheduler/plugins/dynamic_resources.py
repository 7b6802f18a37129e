"""DynamicResources: a pod goes where it can have the devices that it claims (resource.k8s.io).

Extended resources that a node does not offer by itself, but by devices of a class, are claimed on the pod's behalf
(`devices/extended.py`): what is searched may so differ from node to node.

Claims that are allocated say where they can be used. For the others devices are searched on each node that everything
else accepts; those of the chosen node are promised at once (`reserve`) and written to the claims' status together with
the pod's reservation before the pod is bound (`pre_bind`, in `devices/claim_writer.py`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from services.scheduler.cluster_state import ClusterState
from services.scheduler.columns import Array
from services.scheduler.devices import binding_conditions, extended
from services.scheduler.devices.allocation import allocation
from services.scheduler.devices.allocator import (
    AllocationError,
    Budget,
    Chosen,
    InvalidPool,
    Options,
    Search,
    options_of,
)
from services.scheduler.devices.claim_writer import ClaimWriter
from services.scheduler.devices.objects import (
    SUBREQUESTS_MAX,
    ClaimMetadata,
    ClaimSpec,
    DeviceClaim,
    DeviceClass,
    DeviceResourceClaim,
)
from services.scheduler.devices.shortage import shortage
from services.scheduler.devices.store import ClaimMissing, Devices, claim_name
from services.scheduler.framework import SKIP, ClusterEvent, Hint, Plugin, Rejected, Rows, count_of, normalize
from services.scheduler.plugins.node_affinity import Terms
from services.scheduler.pod_info import PodInfo

CANNOT_ALLOCATE = "cannot allocate all claims"
NOT_ON_NODE = "resourceclaim not available on the node"
INVALID_POOLS = "invalid resource pools were encountered"
NO_DEVICES = "devices are not followed here"
STALE = "cannot schedule extended resource claim"
EXTENDED_NAME = "<extended-resources>"
"""How the claim that is not written yet is called."""


class _Wanted(NamedTuple):
    """What is searched on a node: claims of the pod, and last the one for what the node does not offer by itself."""

    claims: list[DeviceResourceClaim]
    options: Options
    uses: Sequence[extended.Use]


class _Data:
    """The claims of one pod, and what was found for them on each row so far."""

    def __init__(self, pod: PodInfo) -> None:
        self.pod = pod
        self.version: tuple[int, ...] = ()
        self.allocated: list[DeviceResourceClaim] = []
        self.wanted: list[DeviceResourceClaim] = []
        # Extended resources with the classes behind them; what is searched where these have to come from devices.
        self.backed: dict[str, str] = {}
        self.variants: dict[frozenset[str], _Wanted] = {}
        self.classes: dict[str, DeviceClass] = {}
        self.budget = Budget()
        # By row: the devices of each wanted claim, or the bit of the reason why there are none.
        self.found: dict[int, tuple[_Wanted, list[list[Chosen]]] | int] = {}
        # Claims that are of no use on some row where the pod could be otherwise.
        self.useless: dict[str, DeviceResourceClaim] = {}


class DynamicResources(Plugin):
    """spec.resourceClaims. Arguments: `bindingTimeout` in seconds."""

    narrow = True

    def __init__(
        self,
        arguments: dict[str, Any] | None = None,
        handle: Any = None,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        super().__init__(arguments, handle)
        self._new_id = new_id
        seconds = self.arguments.get("bindingTimeout")
        self.writer = ClaimWriter(handle, float(seconds) if seconds else binding_conditions.BIND_SECONDS_MAX)
        self._last: tuple[str, _Data] | None = None

    @property
    def _devices(self) -> Devices | None:
        return getattr(self.handle, "devices", None)

    def events(self) -> dict[ClusterEvent, Hint | None]:
        changes: dict[ClusterEvent, Hint | None] = {
            ClusterEvent("ResourceClaim", action): self._claim_helps for action in ("Add", "Update", "Delete")
        }
        for resource in ("DeviceClass", "ResourceSlice"):
            changes |= {ClusterEvent(resource, "Add"): None, ClusterEvent(resource, "Update"): None}
        changes |= {ClusterEvent("DeviceTaintRule", action): _rule_lets for action in ("Update", "Delete")}
        return changes | {ClusterEvent("Node", "Add"): None, ClusterEvent("Node", "Update"): _labels_changed}

    def _claim_helps(self, pod: PodInfo, old: DeviceResourceClaim | None, new: DeviceResourceClaim | None) -> bool:
        """A claim that gives devices back helps anybody; otherwise only the pod's own claims matter."""
        if old is not None and old.status.allocation is not None and (new is None or new.status.allocation is None):
            return True
        if new is None:
            # It stood for the pod's extended resources, and for an earlier attempt: now there can be another.
            return old is not None and any(ref.uid == pod.uid for ref in old.metadata.ownerReferences or ())
        if new.metadata.namespace != pod.namespace:
            return False
        mine = new.metadata.name in _names(pod)
        return mine and (old is None or old.status != new.status)

    # --- before it may be queued --------------------------------------------------------------------------------------

    def pre_enqueue(self, pod: PodInfo) -> str | None:
        devices = self._devices
        if not pod.pod.spec.resourceClaims or devices is None:
            return None
        try:
            devices.claims_of(pod.pod)
        except ClaimMissing as err:
            return str(err)
        return None

    # --- filtering and scoring ----------------------------------------------------------------------------------------

    def prepare(self, pod: PodInfo, state: ClusterState) -> Any:
        devices = self._devices
        backed = devices.backed(pod.requests) if devices is not None else {}
        if not (pod.pod.spec.resourceClaims or backed):
            if self._last is not None and self._last[0] == pod.uid:
                self._last = None
            return SKIP
        if devices is None:
            return Rejected(NO_DEVICES)
        version = (devices.version, state.nodes_version, state.size)
        if self._last is not None and self._last[0] == pod.uid and self._last[1].version == version:
            return self._last[1]
        try:
            claims = list({claim.metadata.uid: claim for claim in devices.claims_of(pod.pod)}.values())
        except ClaimMissing as err:
            return Rejected(str(err))
        if not (claims or backed):
            return SKIP
        if backed and devices.extended_claims(pod.uid):
            return Rejected(STALE)
        data = _Data(pod)
        data.backed = {name: of for name, of in backed.items() if pod.requests[name] > 0}
        data.version, data.classes = version, devices.class_map()
        for claim in claims:
            if claim.status.allocation is not None:
                data.allocated.append(claim)
                continue
            if devices.promised(claim.metadata.uid) is not None:
                return Rejected(f"resource claim {claim.key} is in the process of being allocated")
            missing = _class_missing(claim, data.classes)
            if missing:
                return Rejected(missing)
            data.wanted.append(claim)
        data.variants[frozenset()] = _Wanted(data.wanted, options_of(data.wanted, data.classes), ())
        self._last = (pod.uid, data)
        return data

    def filter(self, data: _Data, state: ClusterState, rows: Rows) -> Array:
        out = np.zeros(count_of(rows, state), dtype=np.uint64)
        for claim in data.allocated:
            useless = self._useless(claim, state, rows)
            if useless.any():
                data.useless[claim.metadata.uid] = claim
                out[useless] |= np.uint64(2)
        if not (data.wanted or data.backed):
            return out
        for position, row in enumerate(np.arange(state.size)[rows]):
            if out[position] == 0 and state.valid[row]:
                found = self._on_row(data, state, int(row))
                if isinstance(found, int):
                    out[position] = found
        return out

    def _useless(self, claim: DeviceResourceClaim, state: ClusterState, rows: Rows) -> Array:
        """Rows where an allocated claim can't be used."""
        assert claim.status.allocation is not None
        if binding_conditions.given_up(claim, self.writer.timeout_seconds, self.writer.now()):
            return np.ones(count_of(rows, state), dtype=bool)
        selector = claim.status.allocation.nodeSelector
        if selector is None:
            return np.zeros(count_of(rows, state), dtype=bool)
        return ~Terms(selector, state)(state, rows)

    def _wanted(self, data: _Data, state: ClusterState, row: int) -> _Wanted:
        """What is searched there: what the node offers by itself is not claimed."""
        absent = frozenset(name for name in data.backed if state.allocatable[state.resource(name), row] == 0)
        known = data.variants.get(absent)
        if known is None:
            requests, uses = extended.requests_for(data.pod.pod.spec, {name: data.backed[name] for name in absent})
            metadata = ClaimMetadata(name=EXTENDED_NAME, namespace=data.pod.namespace)
            claim = DeviceResourceClaim(metadata, ClaimSpec(DeviceClaim(requests)))
            claims = [*data.wanted, claim]
            known = data.variants[absent] = _Wanted(claims, options_of(claims, data.classes), uses)
        return known

    def _on_row(self, data: _Data, state: ClusterState, row: int) -> tuple[_Wanted, list[list[Chosen]]] | int:
        found = data.found.get(row)
        if found is None:
            devices = self._devices
            assert devices is not None
            try:
                wanted = self._wanted(data, state, row)
                search = Search(wanted.claims, wanted.options, devices.catalog(state), row, devices.taken, data.budget)
                chosen = search.run()
                found = (wanted, chosen) if chosen is not None else 1
            except InvalidPool:
                found = 4
            data.found[row] = found
        return found

    def reasons(self, data: Any, state: ClusterState) -> Sequence[str]:
        return (CANNOT_ALLOCATE, NOT_ON_NODE, INVALID_POOLS)

    def remedy(self, data: _Data, state: ClusterState, row: int) -> str:
        name, devices = state.name(row), self._devices
        if devices is None:
            return ""
        for claim in data.allocated:
            if self._useless(claim, state, np.array([row]))[0]:
                return f"fits on {name} if claim {claim.key}, whose devices are elsewhere, is allocated anew"
        wanted = self._wanted(data, state, row)
        words = shortage(wanted.claims, wanted.options, devices.catalog(state), row, devices.taken)
        return f"fits on {name} if {words}" if words else ""

    def score(self, data: _Data, state: ClusterState, rows: Rows) -> Array:
        """Earlier alternatives of requests are better."""
        held = [_alternatives(claim, claim.status.allocation) for claim in data.allocated]
        out = np.full(count_of(rows, state), sum(held), dtype=np.int64)
        for position, row in enumerate(np.arange(state.size)[rows]):
            found = data.found.get(int(row))
            if isinstance(found, tuple):
                for claim, chosen in zip(found[0].claims, found[1], strict=True):
                    out[position] += _preference(claim, {each.request for each in chosen})
        return out

    def normalize(self, data: Any, scores: Array, feasible: Array) -> Array:
        return normalize(scores, feasible)

    # --- the decision -------------------------------------------------------------------------------------------------

    def reserve(self, pod: PodInfo, node: str) -> str | None:
        if self._last is None or self._last[0] != pod.uid:
            return None
        data, state, devices = self._last[1], self.handle.state, self._devices
        assert devices is not None
        if not (data.wanted or data.backed):
            return None
        found = data.found.get(state.row_of[node])
        if not isinstance(found, tuple):
            return "claim allocation not found for node"
        wanted, devices_of = found
        try:
            decided = [
                allocation(claim, chosen, data.classes, node, self._new_id)
                for claim, chosen in zip(wanted.claims, devices_of, strict=True)
            ]
        except AllocationError as err:
            return str(err)
        for claim, given in zip(wanted.claims, decided, strict=True):
            key = claim.metadata.uid
            if not key:  # The claim for extended resources: only now it is decided what it asks for.
                body = extended.claim_body(pod.pod, claim.spec.devices.requests)
                key = self.writer.extend(pod, body, wanted.uses)
            devices.promise(key, pod.uid, given)
        return None

    def unreserve(self, pod: PodInfo, node: str) -> None:
        if pod.pod.spec.resourceClaims or self.writer.extends(pod):
            self.writer.undo(pod)

    def pre_bind_needed(self, pod: PodInfo, node: str) -> bool:
        return bool(pod.pod.spec.resourceClaims) or self.writer.extends(pod)

    async def pre_bind(self, pod: PodInfo, node: str) -> str | None:
        """Write what was promised, and wait until the devices are ready, where they ask for that."""
        return await self.writer.bind(pod, node)

    def post_bind(self, pod: PodInfo, node: str) -> None:
        if pod.pod.spec.resourceClaims or self.writer.extends(pod):
            self.writer.done(pod)

    def rejected(self, pod: PodInfo) -> None:
        """No node fits: a claim that is of use nowhere the pod could be is given up, for devices elsewhere.

        So is what an earlier attempt wrote for extended resources: it fits the node of that attempt.
        """
        for stale in self._devices.extended_claims(pod.uid) if self._devices is not None else ():
            self.writer.discard(stale)
        if self._last is not None and self._last[0] == pod.uid:
            for claim in self._last[1].useless.values():
                reserved = claim.status.reservedFor or ()
                if all(consumer.uid == pod.uid for consumer in reserved):
                    self.writer.deallocate(pod, claim)
                    return


def _names(pod: PodInfo) -> set[str]:
    out = set()
    for reference in pod.pod.spec.resourceClaims or ():
        try:
            name, _ = claim_name(pod.pod, reference)
        except ClaimMissing:
            continue
        out.add(name or "")
    return out


def _class_missing(claim: DeviceResourceClaim, classes: dict[str, DeviceClass]) -> str:
    for request in claim.spec.devices.requests:
        for exact in request.firstAvailable or ([request.exactly] if request.exactly else []):
            if exact.deviceClassName not in classes:
                name = f"{request.name}/{exact.name}" if request.firstAvailable else request.name
                return f"request {name}: device class {exact.deviceClassName} does not exist"
    return ""


def _alternatives(claim: DeviceResourceClaim, held: Any) -> int:
    return _preference(claim, {result.request for result in held.devices.results})


def _preference(claim: DeviceResourceClaim, requests: set[str]) -> int:
    return sum(
        SUBREQUESTS_MAX - number
        for request in claim.spec.devices.requests
        for number, exact in enumerate(request.firstAvailable or ())
        if f"{request.name}/{exact.name}" in requests
    )


def _rule_lets(pod: PodInfo, old: Any, new: Any) -> bool:
    """Whether a rule went, or taints otherwise than before."""
    return old is None or new is None or old.spec != new.spec


def _labels_changed(pod: PodInfo, old: Any, new: Any) -> bool:
    return old is None or new is None or old.metadata.labels != new.metadata.labels
