"""When a range of cluster IPs is ready, and when a deleted one may go."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from machinery.api import kinds
from services.controller_manager.actions import WARNING, Action, Emit, Patch, Plan, find_condition, rfc3339
from services.controller_manager.views.addresses import Address, Network, ServiceCidr
from services.controller_manager.views.pod import Node

FINALIZER = "networking.k8s.io/service-cidr-finalizer"
MANAGED_BY = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io")
# Other apiservers may give out an address of the range until they have learned that it is being deleted.
GRACE_SECONDS = 10.0


def plan(cidr: ServiceCidr, others: Sequence[ServiceCidr], addresses: Iterable[Address], now: datetime) -> Plan:
    """`others` are all ServiceCIDRs but this one, `addresses` those that Services hold."""
    meta = cidr.metadata
    if meta.deletionTimestamp is None:
        out = Plan()
        if FINALIZER not in meta.finalizers:
            out.actions.append(_finalizers(cidr, [*meta.finalizers, FINALIZER]))
        out.actions += _ready(cidr, "True", "", "Kubernetes Service CIDR is ready", now)
        return out
    if FINALIZER not in meta.finalizers:
        return Plan()
    if not _dispensable(cidr, others, addresses):
        text = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"
        return Plan(_ready(cidr, "False", "Terminating", text, now))
    left = (meta.deletionTimestamp + timedelta(seconds=GRACE_SECONDS) - now).total_seconds()
    if left > 0:
        return Plan(requeue_after=left)
    return Plan([_finalizers(cidr, [name for name in meta.finalizers if name != FINALIZER])])


def overlaps(cidr: ServiceCidr, pods: Sequence[Network], nodes: Iterable[Node]) -> list[Action]:
    """Events that say which addresses of the range are others' already: of pods, or of a node. Whoever is reached by
    such an address is a matter of luck."""
    found: list[Action] = []
    taken = [(network, f"the pods' range {network}") for network in pods]
    for node in nodes:
        taken += [
            (ipaddress.ip_network(address.address), f"{address.address}, an address of node {node.metadata.name}")
            for address in node.status.addresses
            if address.type == "InternalIP" and _is_address(address.address)
        ]
    for index, network in enumerate(cidr.networks):
        what = next((text for other, text in taken if network.overlaps(other)), "")
        if what:
            message = f"spec.cidrs[{index}]: {network} overlaps {what}: Services need a range that nobody else uses"
            found.append(Emit(WARNING, "RangeOverlaps", message))
    return found


def _is_address(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(text))
    return False


def _dispensable(cidr: ServiceCidr, others: Sequence[ServiceCidr], addresses: Iterable[Address]) -> bool:
    """Whether every address in use belongs to another range as well."""
    if all(any(other.covers(network) for other in others) for network in cidr.networks):
        return True
    return not any(cidr.contains(address) and not any(o.contains(address) for o in others) for address in addresses)


def _finalizers(cidr: ServiceCidr, names: list[str]) -> Patch:
    meta = cidr.metadata
    patch = {"metadata": {"finalizers": names or None}}
    return Patch(kinds.SERVICE_CIDR, "", meta.name, patch, uid=meta.uid, revision=meta.revision)


def _ready(cidr: ServiceCidr, status: str, reason: str, message: str, now: datetime) -> list[Action]:
    old = find_condition(cidr.status, "Ready")
    if old is not None and (old["status"], old.get("reason", ""), old.get("message")) == (status, reason, message):
        return []
    entry = {"type": "Ready", "status": status, "reason": reason, "message": message}
    entry["lastTransitionTime"] = old["lastTransitionTime"] if old and old["status"] == status else rfc3339(now)
    kept = [each for each in cidr.status.get("conditions") or () if each["type"] != "Ready"]
    patch = {"status": {"conditions": [*kept, entry]}}
    return [Patch(kinds.SERVICE_CIDR, "", cidr.metadata.name, patch, "status", uid=cidr.metadata.uid)]
