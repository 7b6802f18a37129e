"""Shares of one device's capacity, for devices that allow several allocations (KEP-5075).

Amounts are Quantities by the capacity's name, as the device writes it.
"""

from __future__ import annotations

from collections.abc import Mapping

from machinery.api.quantity import NANO, Quantity, parse_quantity
from services.scheduler.devices.objects import Capacity, CapacityRequirements, Device, RequestPolicy

Amounts = dict[str, Quantity]


def consumed(request: CapacityRequirements | None, device: Device) -> Amounts | None:
    """How much of each capacity the request takes, rounded up as the device's policy has it.

    None if the device can't serve it: a capacity that it does not have, or an amount that its policy refuses.
    """
    wanted = (request.requests if request else None) or {}
    capacity = device.capacity or {}
    if not set(wanted) <= set(capacity):
        return None
    out = {name: _amount(wanted.get(name), each) for name, each in capacity.items()}
    if any(not _allowed(out[name], each.requestPolicy) for name, each in capacity.items()):
        return None
    return out


def fits(take: Amounts, device: Device, *taken: Mapping[str, Quantity]) -> bool:
    """Whether the device has so much left beside what is taken."""
    for name, each in (device.capacity or {}).items():
        total = sum((other[name].nano for other in taken if name in other), take[name].nano)
        if total > parse_quantity(each.value).nano:
            return False
    return True


def _amount(wanted: str | None, capacity: Capacity) -> Quantity:
    policy = capacity.requestPolicy
    if wanted is None:
        return parse_quantity(policy.default if policy and policy.default is not None else capacity.value)
    amount = parse_quantity(wanted)
    if policy is None:
        return amount
    if policy.validRange is not None and policy.validRange.min is not None:
        least = parse_quantity(policy.validRange.min)
        if amount < least:
            return least
        if policy.validRange.step is None:
            return amount
        step = parse_quantity(policy.validRange.step).value
        steps = -(-(amount.value - least.value) // step)
        return Quantity((least.value + step * steps) * NANO, least.format)
    if policy.validValues:
        return next(
            (value for text in policy.validValues if amount.nano <= (value := parse_quantity(text)).nano), amount
        )
    return amount


def _allowed(amount: Quantity, policy: RequestPolicy | None) -> bool:
    if policy is None or (policy.default is not None and amount == parse_quantity(policy.default)):
        return True
    if policy.validRange is not None:
        bounds = policy.validRange
        if bounds.max is not None and amount.nano > parse_quantity(bounds.max).nano:
            return False
        if bounds.step is not None:
            least = parse_quantity(bounds.min).value if bounds.min is not None else 0
            return (amount.value - least) % parse_quantity(bounds.step).value == 0
        return True
    if policy.validValues:
        return any(amount == parse_quantity(text) for text in policy.validValues)
    return True
