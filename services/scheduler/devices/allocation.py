"""What was found, as `status.allocation` of a claim says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from services.scheduler.devices.allocator import AllocationError, Chosen
from services.scheduler.devices.objects import DeviceClass, DeviceResourceClaim
from services.scheduler.objects import NodeSelector


def allocation(
    claim: DeviceResourceClaim,
    chosen: Sequence[Chosen],
    classes: Mapping[str, DeviceClass],
    node: str,
    new_id: Callable[[], str],
) -> dict[str, Any]:
    """AllocationResult as JSON values. Raises AllocationError for a slice's selector of several terms.

    `new_id` names each share of a device that several may have.
    """
    devices: dict[str, Any] = {"results": [_result(each, new_id) for each in chosen]}
    config = _configuration(claim, chosen, classes)
    if config:
        devices["config"] = config
    out: dict[str, Any] = {"devices": devices}
    selector = _node_selector(chosen, node)
    if selector:
        out["nodeSelector"] = selector
    return out


def _result(each: Chosen, new_id: Callable[[], str]) -> dict[str, Any]:
    device = each.view.device
    out: dict[str, Any] = {
        "request": each.request,
        "driver": each.view.id.driver,
        "pool": each.view.id.pool,
        "device": each.view.id.device,
    }
    if each.exact.adminAccess:
        out["adminAccess"] = True
    if each.exact.tolerations:
        out["tolerations"] = msgspec.to_builtins(each.exact.tolerations)
    if each.shared:
        out["shareID"] = new_id()
    if each.consumed:
        out["consumedCapacity"] = {name: str(amount) for name, amount in each.consumed.items()}
    if device.bindingConditions:
        out["bindingConditions"] = device.bindingConditions
    if device.bindingFailureConditions:
        out["bindingFailureConditions"] = device.bindingFailureConditions
    return out


def _configuration(
    claim: DeviceResourceClaim, chosen: Sequence[Chosen], classes: Mapping[str, DeviceClass]
) -> list[dict[str, Any]]:
    """The configuration of each class, once, for the requests of that class; then the claim's own."""
    picked = {each.request.partition("/")[0]: each for each in chosen}
    by_class: dict[str, list[str]] = {}
    for request in claim.spec.devices.requests:
        each = picked.get(request.name)
        if each is not None:
            by_class.setdefault(each.exact.deviceClassName, []).append(each.request)
    out: list[dict[str, Any]] = []
    for name, requests in by_class.items():
        for config in classes[name].spec.config:
            out.append({"source": "FromClass", "requests": list(requests), **config})
    names = {each.request for each in picked.values()} | {request.name for request in claim.spec.devices.requests}
    for config in claim.spec.devices.config:
        wanted = config.get("requests") or []
        if not wanted or names & set(wanted):
            out.append({"source": "FromClaim", **config})
    return out


def _node_selector(chosen: Sequence[Chosen], node: str) -> dict[str, Any] | None:
    """Where the devices can be used; None: everywhere."""
    fields: list[dict[str, Any]] = []
    expressions: list[dict[str, Any]] = []
    for each in chosen:
        spec, device = each.view.slice.object.spec, each.view.device
        own = bool(spec.perDeviceNodeSelection)
        name = device.nodeName if own else spec.nodeName
        selector: NodeSelector | None = device.nodeSelector if own else spec.nodeSelector
        if name is not None or device.bindsToNode:
            only = {"key": "metadata.name", "operator": "In", "values": [node]}
            return {"nodeSelectorTerms": [{"matchFields": [only]}]}
        if selector is None or not selector.nodeSelectorTerms:
            continue
        if len(selector.nodeSelectorTerms) > 1:
            words = f"unsupported ResourceSlice.NodeSelector with {len(selector.nodeSelectorTerms)} terms"
            raise AllocationError(f"create NodeSelector for claim: {words}")
        term: dict[str, Any] = msgspec.to_builtins(selector.nodeSelectorTerms[0])
        fields += [each for each in term.get("matchFields") or () if each not in fields]
        expressions += [each for each in term.get("matchExpressions") or () if each not in expressions]
    if not (fields or expressions):
        return None
    merged: dict[str, Any] = {}
    if fields:
        merged["matchFields"] = fields
    if expressions:
        merged["matchExpressions"] = expressions
    return {"nodeSelectorTerms": [merged]}
