"""Services: addresses, node ports and IP families are filled in, allocated with the Service and released with it.

Upstream's rules: pkg/registry/core/service/storage (alloc.go, storage.go) and strategy.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from machinery.api import errors
from machinery.api.errors import Cause
from services.apiserver.registry import ip_families
from services.apiserver.registry.allocation import (
    Refused,
    ServiceRange,
    give_address,
    give_port,
    take_address,
    take_port,
)
from services.apiserver.registry.ip_families import HEADLESS
from services.apiserver.registry.strategy import Strategy
from services.apiserver.write_context import WriteContext
from storage.store import Mutation

_NODE_PORT_TYPES = ("NodePort", "LoadBalancer")


class ServiceStrategy(Strategy):
    """Holds the cluster's range of addresses and ports."""

    create_on_update = True
    returns_deleted = True

    def __init__(self, services: ServiceRange, *, has_status: bool = True) -> None:
        super().__init__(has_status=has_status)
        self.range = services

    def prepare_create(self, ctx: WriteContext) -> None:
        super().prepare_create(ctx)
        ctx.obj["status"] = {"loadBalancer": {}}

    def prepare_update(self, ctx: WriteContext) -> None:
        super().prepare_update(ctx)
        if ctx.subresource != "status":
            assert ctx.old is not None
            carry_allocated(ctx.obj.setdefault("spec", {}), ctx.old["spec"])

    def allocate(self, ctx: WriteContext) -> None:
        if ctx.subresource == "status":
            return
        spec, old = ctx.spec(), (ctx.old or {}).get("spec") or {}
        try:
            self._allocate_addresses(ctx, spec, old)
            self._allocate_ports(ctx, spec, old)
        except Refused as err:
            raise errors.invalid("", "Service", ctx.name, [err.cause]) from err

    def release(self, obj: dict[str, Any]) -> Sequence[Mutation]:
        spec = obj.get("spec") or {}
        freed: list[Mutation] = [give_address(address) for address in _addresses(spec) if self._holds_address(address)]
        freed += [give_port(*port) for port in sorted(_ports(spec)) if self.range.port_taken(*port)]
        return freed

    # --- addresses

    def _allocate_addresses(self, ctx: WriteContext, spec: dict[str, Any], old: dict[str, Any]) -> None:
        wrong = set_families(spec, old, f"IPv{self.range.network.version}")
        if wrong:
            raise errors.invalid("", "Service", ctx.name, wrong)
        before = set(_addresses(old))
        if wants_address(spec):
            wanted = spec.get("clusterIP") or ""
            if not wanted and (spec.get("clusterIPs") or [""])[0]:
                wanted = spec["clusterIPs"][0]
            if not wanted:
                wanted = self.range.free_address()
            elif wanted not in before:
                self.range.check_address(wanted)
            spec["clusterIP"], spec["clusterIPs"] = wanted, [wanted]
        after = set(_addresses(spec))
        ctx.extra += [take_address(address, ctx.namespace, ctx.name) for address in sorted(after - before)]
        ctx.extra += [give_address(address) for address in sorted(before - after) if self._holds_address(address)]

    def _holds_address(self, address: str) -> bool:
        return self.range.address_taken(address)

    # --- node ports

    def _allocate_ports(self, ctx: WriteContext, spec: dict[str, Any], old: dict[str, Any]) -> None:
        before = _ports(old)
        if wants_node_ports(spec):
            self._fill_ports(spec, before)
        after = _ports(spec)
        ctx.extra += [take_port(*port, ctx.namespace, ctx.name) for port in sorted(after - before)]
        ctx.extra += [give_port(*port) for port in sorted(before - after) if self.range.port_taken(*port)]

    def _fill_ports(self, spec: dict[str, Any], before: set[tuple[str, int]]) -> None:
        chosen: set[tuple[str, int]] = set()
        for index, port in enumerate(spec.get("ports") or ()):
            protocol, number = port.get("protocol", "TCP"), port.get("nodePort") or 0
            if number and (protocol, number) not in before and (protocol, number) not in chosen:
                self.range.check_port(protocol, number, f"spec.ports[{index}].nodePort")
            if number:
                chosen.add((protocol, number))
        allocates = spec.get("type") == "NodePort" or spec.get("allocateLoadBalancerNodePorts") is not False
        for port in spec.get("ports") or ():
            protocol = port.get("protocol", "TCP")
            if not port.get("nodePort") and allocates:
                port["nodePort"] = self._shared_port(spec, port, chosen) or self.range.free_port(protocol, chosen)
                chosen.add((protocol, port["nodePort"]))
        if wants_health_port(spec):
            number = spec.get("healthCheckNodePort") or 0
            if not number:
                number = spec["healthCheckNodePort"] = self.range.free_port("TCP", chosen)
            elif ("TCP", number) not in before:
                self.range.check_port("TCP", number, "spec.healthCheckNodePort")

    def _shared_port(self, spec: dict[str, Any], port: dict[str, Any], chosen: set[tuple[str, int]]) -> int:
        """The node port of the same port number in another protocol, as DNS wants it, if it is free in this one."""
        protocol = port.get("protocol", "TCP")
        for other in spec["ports"]:
            number = other.get("nodePort") or 0
            same_port = other.get("port") == port.get("port") and other.get("protocol", "TCP") != protocol
            if number and same_port and (protocol, number) not in chosen:
                return 0 if self.range.port_taken(protocol, number) else int(number)
        return 0


def wants_address(spec: dict[str, Any]) -> bool:
    """Whether the Service has a virtual address: it is neither an alias nor headless."""
    return spec.get("type", "ClusterIP") != "ExternalName" and spec.get("clusterIP") != HEADLESS


def wants_node_ports(spec: dict[str, Any]) -> bool:
    """Whether the Service is reached through the nodes."""
    return spec.get("type") in _NODE_PORT_TYPES


def wants_health_port(spec: dict[str, Any]) -> bool:
    """Whether load balancers must ask each node if it has endpoints."""
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def set_families(spec: dict[str, Any], old: dict[str, Any], configured: str) -> list[Cause]:
    """IP families, and `clusterIPs` to match a headless Service's `clusterIP`; what is wrong with them."""
    if spec.get("type") == "ExternalName":
        for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"):
            spec.pop(field, None)
        return []
    spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec.get("clusterIP") == HEADLESS and not spec.get("clusterIPs"):
        spec["clusterIPs"] = [HEADLESS]
    return ip_families.settle(spec, old, configured)


def carry_allocated(new: dict[str, Any], old: dict[str, Any]) -> None:
    """An update that leaves allocated values out keeps them; one that changes the type drops what the new type
    lacks."""
    if wants_address(old) and new.get("type", "ClusterIP") != "ExternalName" and not new.get("clusterIP"):
        new["clusterIP"], new["clusterIPs"] = old.get("clusterIP", ""), list(old.get("clusterIPs") or ())
    if new.get("type", "ClusterIP") != "ExternalName" and old.get("type") != "ExternalName":
        for field in ("ipFamilies", "ipFamilyPolicy"):
            if field in old and field not in new:
                new[field] = old[field]
    known = {(port.get("protocol", "TCP"), port.get("port")): port.get("nodePort") for port in old.get("ports") or ()}
    for port in new.get("ports") or ():
        present = known.get((port.get("protocol", "TCP"), port.get("port")))
        if wants_node_ports(new) and wants_node_ports(old):
            if present and not port.get("nodePort"):
                port["nodePort"] = present
        elif not wants_node_ports(new) and present and port.get("nodePort") == present:
            del port["nodePort"]
    if wants_health_port(new) and wants_health_port(old) and not new.get("healthCheckNodePort"):
        new["healthCheckNodePort"] = old.get("healthCheckNodePort", 0)
    elif not wants_health_port(new) and new.get("healthCheckNodePort") == old.get("healthCheckNodePort"):
        new.pop("healthCheckNodePort", None)
    if new.get("type") != "LoadBalancer":
        for field in ("allocateLoadBalancerNodePorts", "loadBalancerClass"):
            if new.get(field) == old.get(field):
                new.pop(field, None)
    unchanged = new.get("externalTrafficPolicy") == old.get("externalTrafficPolicy")
    if unchanged and not wants_node_ports(new) and not new.get("externalIPs"):
        new.pop("externalTrafficPolicy", None)


def _addresses(spec: dict[str, Any]) -> list[str]:
    return [address for address in spec.get("clusterIPs") or () if address and address != HEADLESS]


def _ports(spec: dict[str, Any]) -> set[tuple[str, int]]:
    found = {
        (port.get("protocol", "TCP"), port["nodePort"]) for port in spec.get("ports") or () if port.get("nodePort")
    }
    if spec.get("healthCheckNodePort"):
        found.add(("TCP", spec["healthCheckNodePort"]))
    return found
