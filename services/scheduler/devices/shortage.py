"""Why the devices of a node do not do, in words: for Explain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from services.scheduler.devices.allocator import Claims, Options, Taken
from services.scheduler.devices.catalog import Catalog, DeviceView, NodePool
from services.scheduler.devices.objects import ALL, Exact, Selector
from services.scheduler.devices.selectors import SelectorError


def shortage(claims: Claims, options: Options, catalog: Catalog, row: int, taken: Taken) -> str:
    """The first request that can't be met by itself, and what it lacks; or that the requests can't be met together."""
    pools = catalog.pools(row)
    views = [view for pool in pools if pool.usable for view in pool.devices if catalog.on_row(view, row)]
    bad = [pool for pool in pools if not pool.usable]
    for claim, requests in zip(claims, options, strict=True):
        for alternatives in requests:
            lacks: list[str] = []
            for option in alternatives:
                name = option.exact.deviceClassName
                matching = [view for view in views if _matches(view, option.device_class.spec.selectors, option.exact)]
                free = [view for view in matching if view.id not in taken.devices or option.exact.adminAccess]
                wanted = len(matching) or 1 if option.exact.allocationMode == ALL else option.exact.count
                if len(free) >= wanted:
                    lacks.clear()
                    break
                there = f"{len(matching)} match, {len(matching) - len(free)} of them taken"
                lacks.append(f"{wanted - len(free)} more of class {name} ({there})")
            if lacks:
                words = f"request {alternatives[0].request} of claim {claim.key} finds {', or '.join(lacks)}"
                return f"{words}; {_about(bad)}" if bad else words
    if bad:
        return _about(bad)
    return "the claims' requests can be met together: constraints, counters, taints or capacities exclude each other"


def _about(bad: Iterable[NodePool]) -> str:
    return "; ".join(
        f"pool {pool.name} is sound: {pool.invalid}" if pool.invalid else f"pool {pool.name} has all of its slices"
        for pool in bad
    )


def _matches(view: DeviceView, of_class: Sequence[Selector], exact: Exact) -> bool:
    try:
        return all(
            selector.cel is not None and view.matches(selector.cel.expression)
            for selector in (*of_class, *(exact.selectors or ()))
        )
    except SelectorError:
        return False
