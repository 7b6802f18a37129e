"""The search: devices on one node for all claims of a pod at once. Pure.

As upstream's allocator does: claim after claim, request after request, device after device, each candidate in the
order of the pools, and back when something later does not work out. The first solution is taken. A request may name
alternatives, of which the first that works is taken, and may want all devices that match instead of so many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from machinery.api.device_taints import NO_EXECUTE, NO_SCHEDULE, tolerates
from machinery.api.quantity import parse_quantity
from services.scheduler.devices import capacity
from services.scheduler.devices.capacity import Amounts
from services.scheduler.devices.catalog import Catalog, Counters, DeviceView, NodePool, PoolKey
from services.scheduler.devices.constraints import Compared
from services.scheduler.devices.objects import (
    ALL,
    EXACT_COUNT,
    RESULTS_MAX,
    DeviceClass,
    DeviceId,
    DeviceResourceClaim,
    DeviceTaint,
    DeviceToleration,
    Exact,
    Result,
)
from services.scheduler.devices.selectors import SelectorError

STEPS_MAX = 200_000
"""Candidates that may be tried for one pod on all nodes: some hundred milliseconds. Claims can be written for which
every combination has to be tried."""


class AllocationError(Exception):
    """The claims can't be judged: a broken expression, a pool that is being changed. Not a matter of one node."""


class InvalidPool(Exception):
    """Nothing fits on this node, and some of its pools contradict themselves."""


class Taken:
    """What claims hold already. Devices of administrators' claims are not taken."""

    def __init__(self) -> None:
        self.devices: Counter[DeviceId] = Counter()
        self.shares: Counter[DeviceId] = Counter()
        self.capacity: dict[DeviceId, dict[str, Any]] = {}

    def add(self, results: Iterable[Result], sign: int = 1) -> None:
        """A claim got these devices; `sign` -1: gave them back."""
        for result in results:
            if result.adminAccess:
                continue
            if result.shareID is None:
                _count(self.devices, result.id, sign)
                continue
            _count(self.shares, result.id, sign)
            amounts = self.capacity.setdefault(result.id, {})
            for name, text in (result.consumedCapacity or {}).items():
                amount = parse_quantity(text)
                amounts[name] = amounts[name] + (amount if sign > 0 else -amount) if name in amounts else amount
            if result.id not in self.shares:
                del self.capacity[result.id]

    def has(self, device: DeviceId) -> bool:
        """Whether anybody has it or a share of it."""
        return device in self.devices or device in self.shares


def _count(counter: Counter[DeviceId], key: DeviceId, sign: int) -> None:
    counter[key] += sign
    if counter[key] <= 0:
        del counter[key]


class Chosen(NamedTuple):
    """A device for a request. `request` is `name`, or `name/alternative`."""

    view: DeviceView
    request: str
    exact: Exact
    # Whether it is a share of a device that others may have too.
    shared: bool = False
    consumed: Amounts | None = None


class Option(NamedTuple):
    """A request, or one of its alternatives, with its class."""

    request: str
    alternative: str
    exact: Exact
    device_class: DeviceClass

    @property
    def name(self) -> str:
        return f"{self.request}/{self.alternative}" if self.alternative else self.request


Claims = Sequence[DeviceResourceClaim]
Options = list[list[list[Option]]]


def options_of(claims: Claims, classes: Mapping[str, DeviceClass]) -> Options:
    """For each claim and request what may satisfy it. Raises AllocationError for what is not understood."""
    out: Options = []
    for claim in claims:
        requests = []
        for request in claim.spec.devices.requests:
            exacts = request.firstAvailable or ([request.exactly] if request.exactly else [])
            if not exacts:
                raise AllocationError(f"resource claim {claim.key}, request {request.name}: unknown request type")
            alternatives = []
            for exact in exacts:
                known = classes.get(exact.deviceClassName)
                name = exact.name if request.firstAvailable else ""
                if known is None:
                    words = f"could not retrieve device class {exact.deviceClassName}"
                    raise AllocationError(f"claim {claim.key}, request {request.name}: {words}")
                if exact.allocationMode not in (EXACT_COUNT, ALL):
                    words = f"unsupported count mode {exact.allocationMode}"
                    raise AllocationError(f"claim {claim.key}, request {request.name}: {words}")
                alternatives.append(Option(request.name, name, exact, known))
            requests.append(alternatives)
        for number, constraint in enumerate(claim.spec.devices.constraints):
            if constraint.matchAttribute is None and constraint.distinctAttribute is None:
                raise AllocationError(f"claim {claim.key}, constraint #{number}: empty constraint")
        out.append(requests)
    return out


class Budget:
    """How much searching is left for a pod."""

    __slots__ = ("steps",)

    def __init__(self, steps: int = STEPS_MAX) -> None:
        self.steps = steps

    def spend(self) -> None:
        """One candidate more. Raises AllocationError if it is one too many."""
        self.steps -= 1
        if self.steps < 0:
            raise AllocationError(f"gave up after {STEPS_MAX} candidates for devices: simplify the claims' constraints")


class Search:
    """One search; `run` once."""

    def __init__(
        self, claims: Claims, options: Options, catalog: Catalog, row: int, taken: Taken, budget: Budget | None = None
    ) -> None:
        self._claims = claims
        self._options = options
        self._catalog = catalog
        self._row = row
        self._taken = taken
        self._budget = budget or Budget()
        self._pools = catalog.pools(row)
        self._views = [(view, pool) for pool in self._pools if pool.usable for view in pool.devices]
        self._constraints = [[Compared(each) for each in claim.spec.devices.constraints] for claim in claims]
        self._all: dict[tuple[int, str], list[tuple[DeviceView, NodePool]]] = {}
        self._left: dict[PoolKey, Counters] = {}
        # What this search has chosen so far: by claim, and who of the claims has a device.
        self.chosen: list[list[Chosen]] = [[] for _ in claims]
        self._holders: dict[DeviceId, list[int]] = {}
        self._shares: dict[DeviceId, list[Amounts]] = {}

    def run(self) -> list[list[Chosen]] | None:
        """The devices of each claim, or None. Raises AllocationError and InvalidPool."""
        for number, requests in enumerate(self._options):
            least = sum(min(self._wanted(number, option) for option in options) for options in requests)
            if least > RESULTS_MAX:
                words = f"number of requested devices {least} exceeds the claim limit of {RESULTS_MAX}"
                raise AllocationError(f"claim {self._claims[number].key}: {words}")
        if self._request(0, 0):
            return self.chosen
        if any(pool.invalid for pool in self._pools):
            raise InvalidPool
        return None

    # --- the recursion ------------------------------------------------------------------------------------------------

    def _request(self, claim: int, request: int) -> bool:
        """From this request on, everything."""
        if claim >= len(self._options):
            return True
        if request >= len(self._options[claim]):
            return self._request(claim + 1, 0)
        return any(self._devices(claim, request, option, 0, 0) for option in self._options[claim][request])

    def _devices(self, claim: int, request: int, option: Option, have: int, start: int) -> bool:
        """The devices of this request from the `have`-th on, and everything after it."""
        if option.exact.allocationMode == ALL:
            return self._every(claim, request, option)
        wanted = option.exact.count
        if have >= wanted:
            return self._request(claim, request + 1)
        if len(self.chosen[claim]) + wanted - have > RESULTS_MAX:
            return False
        # Later devices of one request come after the earlier ones: the same set in another order is no other solution.
        for position in range(start, len(self._views)):
            view, pool = self._views[position]
            if not self._is_free(view, claim, option):
                continue
            self._budget.spend()
            if not self._selectable(view, claim, option) or not self._take(view, pool, claim, option):
                continue
            if self._devices(claim, request, option, have + 1, position + 1):
                return True
            self._give_back(view, pool, claim, option)
        return False

    def _every(self, claim: int, request: int, option: Option) -> bool:
        devices = self._matching(claim, option)
        if not devices or len(self.chosen[claim]) + len(devices) > RESULTS_MAX:
            return False
        done: list[tuple[DeviceView, NodePool]] = []
        for view, pool in devices:
            self._budget.spend()
            if not (self._is_free(view, claim, option) and self._take(view, pool, claim, option)):
                break
            done.append((view, pool))
        else:
            if self._request(claim, request + 1):
                return True
        for view, pool in reversed(done):
            self._give_back(view, pool, claim, option)
        return False

    # --- what is asked for --------------------------------------------------------------------------------------------

    def _wanted(self, claim: int, option: Option) -> int:
        return len(self._matching(claim, option)) if option.exact.allocationMode == ALL else option.exact.count

    def _matching(self, claim: int, option: Option) -> list[tuple[DeviceView, NodePool]]:
        """All devices that a request for all means."""
        key = (claim, option.name)
        found = self._all.get(key)
        if found is None:
            for pool in self._pools:
                if not pool.usable:
                    state = "being updated" if pool.incomplete else "invalid"
                    words = f"asks for all devices, but resource pool {pool.name} is currently {state}"
                    raise AllocationError(f"claim {self._claims[claim].key}, request {option.name}: {words}")
            found = self._all[key] = [
                (view, pool)
                for view, pool in self._views
                if self._selectable(view, claim, option)
                and capacity.consumed(option.exact.capacity, view.device) is not None
            ]
        return found

    def _selectable(self, view: DeviceView, claim: int, option: Option) -> bool:
        try:
            for number, selector in enumerate(option.device_class.spec.selectors):
                where = f"class {option.device_class.metadata.name}: selector #{number}"
                if selector.cel is None or not view.matches(selector.cel.expression):
                    return False
            for number, selector in enumerate(option.exact.selectors or ()):
                where = f"claim {self._claims[claim].key}: selector #{number}"
                if selector.cel is None or not view.matches(selector.cel.expression):
                    return False
        except SelectorError as err:
            raise AllocationError(f"{where}: {err}") from err
        return self._catalog.on_row(view, self._row)

    # --- what is free -------------------------------------------------------------------------------------------------

    def _is_free(self, view: DeviceView, claim: int, option: Option) -> bool:
        holders = self._holders.get(view.id)
        if option.exact.adminAccess:
            return not (holders and claim in holders)
        return not holders and view.id not in self._taken.devices

    def _take(self, view: DeviceView, pool: NodePool, claim: int, option: Option) -> bool:
        """Choose the device, if its counters, taints, constraints and capacity allow it."""
        shared = bool(view.device.allowMultipleAllocations)
        in_use = view.id in self._taken.shares or bool(self._shares.get(view.id))
        if (view.taints and not _tolerated(view.taints, option.exact.tolerations or ())) or (
            not (shared and in_use) and not self._has_counters(view, pool)
        ):
            return False
        amounts = capacity.consumed(option.exact.capacity, view.device)
        taken = [self._taken.capacity.get(view.id, {}), *self._shares.get(view.id, ())]
        if amounts is None or not capacity.fits(amounts, view.device, *taken):
            return False
        added: list[Compared] = []
        for constraint in self._constraints[claim]:
            if constraint.concerns(option.request, option.alternative):
                if not constraint.add(view.device, view.id.driver):
                    for other in added:
                        other.remove()
                    return False
                added.append(constraint)
        if shared:
            self._shares.setdefault(view.id, []).append(amounts)
        else:
            self._holders.setdefault(view.id, []).append(claim)
        if not (shared and in_use):
            self._use_counters(view, pool, 1)
        consumed = (amounts or None) if shared else None
        self.chosen[claim].append(Chosen(view, option.name, option.exact, shared, consumed))
        return True

    def _give_back(self, view: DeviceView, pool: NodePool, claim: int, option: Option) -> None:
        self.chosen[claim].pop()
        for constraint in self._constraints[claim]:
            if constraint.concerns(option.request, option.alternative):
                constraint.remove()
        if view.device.allowMultipleAllocations:
            self._shares[view.id].pop()
            if view.id not in self._taken.shares and not self._shares[view.id]:
                self._use_counters(view, pool, -1)
        else:
            self._holders[view.id].remove(claim)
            self._use_counters(view, pool, -1)

    # --- counters that devices of a pool share ------------------------------------------------------------------------

    def _counters_left(self, pool: NodePool) -> Counters:
        left = self._left.get(pool.key)
        if left is None:
            left = self._left[pool.key] = {name: dict(counters) for name, counters in pool.counters.items()}
            for view in (*pool.devices, *pool.others):
                if view.counters and self._taken.has(view.id):
                    _subtract(left, view.counters, 1)
        return left

    def _has_counters(self, view: DeviceView, pool: NodePool) -> bool:
        if not view.counters:
            return True
        left = self._counters_left(pool)
        return all(
            amount <= left[name][counter]
            for name, counters in view.counters.items()
            for counter, amount in counters.items()
        )

    def _use_counters(self, view: DeviceView, pool: NodePool, sign: int) -> None:
        if view.counters:
            _subtract(self._counters_left(pool), view.counters, sign)


def _subtract(left: Counters, amounts: Counters, sign: int) -> None:
    for name, counters in amounts.items():
        for counter, amount in counters.items():
            if name in left and counter in left[name]:
                left[name][counter] -= sign * amount


def _tolerated(taints: Iterable[DeviceTaint], tolerations: Sequence[DeviceToleration]) -> bool:
    return all(
        taint.effect not in (NO_SCHEDULE, NO_EXECUTE) or any(tolerates(each, taint) for each in tolerations)
        for taint in taints
    )
