"""Addresses for Services of type LoadBalancer, from a pool."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any

from machinery.api import kinds
from services.controller_manager.actions import NORMAL, WARNING, Emit, Patch, Plan, status_patch
from services.controller_manager.views.cluster import Service

# The scan of a pool ends here: a /8 by mistake must not stop the controller.
_CANDIDATES_MAX = 65_536

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Pool:
    """Ranges of addresses: "192.0.2.0/28" or "192.0.2.10-192.0.2.20". Raises ValueError for anything else."""

    def __init__(self, ranges: Iterable[str]) -> None:
        self._ranges: list[tuple[Address, Address]] = []
        for text in ranges:
            first, dash, last = text.partition("-")
            if dash:
                self._ranges.append((ipaddress.ip_address(first.strip()), ipaddress.ip_address(last.strip())))
            else:
                network = ipaddress.ip_network(text, strict=False)
                # A network's own address and its broadcast address are nobody's.
                edge = 1 if network.num_addresses > 2 else 0
                self._ranges.append((network[edge], network[-1 - edge]))

    def __iter__(self) -> Iterator[str]:
        for first, last in self._ranges:
            for number in range(int(first), min(int(last), int(first) + _CANDIDATES_MAX) + 1):
                yield str(ipaddress.ip_address(number))

    def __contains__(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        return any(
            first.version == address.version and int(first) <= int(address) <= int(last) for first, last in self._ranges
        )


def is_ours(service: Service) -> bool:
    """Whether the Service asks for an address here; one with a class of another implementation does not."""
    return service.spec.type == "LoadBalancer" and not service.spec.loadBalancerClass


def addresses(service: Service) -> list[str]:
    """The addresses in its status."""
    ingress = (service.status.get("loadBalancer") or {}).get("ingress") or ()
    return [entry["ip"] for entry in ingress if entry.get("ip")]


def plan(service: Service, services: Iterable[Service], reserved: Iterable[str], pool: Pool) -> Plan:
    """Give the Service an address that nobody has, or take back what it needs no more."""
    current = addresses(service)
    if service.metadata.deletionTimestamp is not None:
        return Plan()
    if not is_ours(service):
        had = [ip for ip in current if ip in pool]
        return _set(service, []) if had and service.spec.type != "LoadBalancer" else Plan()
    wanted = service.spec.loadBalancerIP
    if current and all(ip in pool for ip in current) and (not wanted or current == [wanted]):
        return Plan()
    taken = {ip for other in services if other.metadata.uid != service.metadata.uid for ip in addresses(other)}
    taken |= set(reserved)
    if wanted:
        if wanted not in pool:
            return _fail(f"loadBalancerIP {wanted} is not in the pool of load balancer addresses")
        if wanted in taken:
            return _fail(f"loadBalancerIP {wanted} is in use by another service")
        return _set(service, [wanted])
    free = next((ip for ip in pool if ip not in taken), None)
    if free is None:
        return _fail("no load balancer address is free")
    return _set(service, [free])


def _fail(why: str) -> Plan:
    return Plan([Emit(WARNING, "SyncLoadBalancerFailed", f"Error syncing load balancer: {why}")], requeue_after=30)


def _set(service: Service, ips: list[str]) -> Plan:
    status: dict[str, Any] = {**service.status, "loadBalancer": {}}
    out = Plan()
    if ips:
        status["loadBalancer"] = {"ingress": [{"ip": ip, "ipMode": "VIP"} for ip in ips]}
        out.actions.append(Emit(NORMAL, "EnsuredLoadBalancer", "Ensured load balancer"))
    out.actions = [*status_patch(kinds.SERVICE, service, status), *out.actions]
    return out


def assigned(plan_: Plan) -> list[str]:
    """The addresses that a plan hands out."""
    for action in plan_.actions:
        if isinstance(action, Patch):
            ingress = (action.patch["status"].get("loadBalancer") or {}).get("ingress") or ()
            return [entry["ip"] for entry in ingress]
    return []
