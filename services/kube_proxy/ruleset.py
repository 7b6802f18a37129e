"""What the rules of one node must say, as data: a pure function of a Service, its EndpointSlices and the node.

Nothing here performs I/O. Two ServicePorts can be compared by `==`; `render.py` writes the difference as nft commands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from sys import intern
from typing import Literal

import msgspec

from machinery.api.service_views import EndpointItem, EndpointSlice, Service, ServicePortSpec, ServiceSpec

# A Service with either of these, whatever its value, is not ours to serve, nor is a slice with the second, as upstream.
PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"
# What a Service that asks for affinity without a time gets, as upstream.
AFFINITY_SECONDS_DEFAULT = 10800

Outcome = Literal["balance", "reject", "drop"]
# "outside": packets whose source is no pod of the cluster.
Masquerade = Literal["never", "outside", "always"]


class Endpoint(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """One place where packets of a Service may arrive."""

    ip: str
    port: int
    node: str = ""


class Frontend(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An address that packets are sent to, and what becomes of them. `ip` is empty for a node port.

    `endpoints` are chosen among with equal chance. Where `local` is not None (externalTrafficPolicy: Local), packets
    from outside go to those only and keep their source; packets of pods and of this node have all `endpoints`.
    """

    ip: str
    protocol: str
    port: int
    outcome: Outcome
    endpoints: tuple[Endpoint, ...] = ()
    # Whose packets take this node's address, because the answer must return by way of it.
    masquerade: Masquerade = "never"
    local: tuple[Endpoint, ...] | None = None
    # Only packets from here are let in (loadBalancerSourceRanges); empty: all.
    source_ranges: tuple[str, ...] = ()
    # "cluster", "node", "external" or "balancer": whose address it is.
    kind: str = "cluster"


class ServicePort(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One port of one Service: all its front ends and the endpoints behind them."""

    namespace: str
    service: str
    port_name: str
    protocol: str
    frontends: tuple[Frontend, ...]
    # Everything in use by the cluster-wide policy.
    endpoints: tuple[Endpoint, ...]
    # ip:port of endpoints that still answer, those that are ending included: conntrack entries to others are stale.
    # For UDP only, where nobody says that a flow is at its end.
    serving: frozenset[str] = frozenset()
    affinity_seconds: int = 0
    port: int = 0
    node_port: int = 0
    health_check_node_port: int = 0
    local_ready: int = 0

    @property
    def key(self) -> str:
        """Unique in a ruleset: "default/web:http/TCP"."""
        return intern(f"{self.namespace}/{self.service}:{self.port_name}/{self.protocol}")

    @property
    def chain_stem(self) -> str:
        """The first part of the names of chains and sets that only this port has."""
        return _chain_stem(self.namespace, self.service, self.port_name, self.protocol)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the node and the cluster give: not changed while the proxy runs."""

    node: str
    cluster_cidr: str
    # Addresses at which node ports are served; empty: every address of the node but loopback.
    node_port_addresses: tuple[str, ...] = ()
    masquerade_all: bool = False


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Everything that the table must hold."""

    settings: Settings
    ports: Mapping[str, ServicePort] = field(default_factory=dict)


def is_proxied(service: Service) -> bool:
    """Whether this Service has an address for us to serve: not headless (by its address or by its label), not an
    ExternalName, not another proxy's."""
    spec = service.spec
    labels = service.metadata.labels or {}
    if spec is None or spec.type == "ExternalName" or PROXY_NAME_LABEL in labels or HEADLESS_LABEL in labels:
        return False
    return bool(spec.cluster_ip) and spec.cluster_ip != "None"


def service_ports(
    service: Service, slices: Iterable[EndpointSlice], settings: Settings, zone: str = ""
) -> list[ServicePort]:
    """The rules of one Service on a node of this zone; empty if it is not ours to serve."""
    if not is_proxied(service):
        return []
    usable = [s for s in slices if s.address_type == "IPv4" and HEADLESS_LABEL not in (s.metadata.labels or {})]
    assert service.spec is not None
    return [_service_port(service, service.spec, port, usable, settings, zone) for port in service.spec.ports or []]


_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Pools:
    every: tuple[Endpoint, ...]
    local: tuple[Endpoint, ...]
    # `every`, or the part of it that is meant for this node or zone.
    near: tuple[Endpoint, ...]
    serving: frozenset[str]
    local_ready: int


def _service_port(
    service: Service,
    spec: ServiceSpec,
    port: ServicePortSpec,
    slices: Sequence[EndpointSlice],
    settings: Settings,
    zone: str,
) -> ServicePort:
    # The same few words in ten thousand Services: once each in memory.
    protocol, port_name = intern(port.protocol or "TCP"), intern(port.name or "")
    pools = _endpoints(slices, port_name, protocol, settings.node, zone)
    local_outside = spec.external_traffic_policy == "Local"
    within: Masquerade = "always" if settings.masquerade_all else "outside" if settings.cluster_cidr else "never"
    inside_pool = pools.local if spec.internal_traffic_policy == "Local" else pools.near

    def frontend(ip: str, number: int, kind: str, ranges: tuple[str, ...] = ()) -> Frontend:
        if kind == "cluster":
            pool, masquerade, local = inside_pool, within, None
        else:
            # Packets from outside keep their source only if they stay on this node.
            pool, masquerade, local = pools.near, "always", pools.local if local_outside else None
        if pool:
            return Frontend(ip, protocol, number, "balance", pool, masquerade, local, ranges, kind)
        # With no endpoint anywhere the caller is told at once; with endpoints on other nodes only, a local policy
        # drops, so that a balancer in front, which tries another node, sees no refusal.
        return Frontend(ip, protocol, number, "drop" if pools.every else "reject", kind=kind)

    frontends = [frontend(ip, port.port, "cluster") for ip in _cluster_ips(spec)]
    frontends += [frontend(ip, port.port, "external") for ip in spec.external_ips or [] if "." in ip]
    ranges = tuple(r for r in spec.load_balancer_source_ranges or () if "." in r)
    if spec.load_balancer_source_ranges and not ranges:
        # Who lets in some IPv6 addresses does not let in the whole of IPv4.
        frontends += [Frontend(ip, protocol, port.port, "drop", kind="balancer") for ip in load_balancer_ips(service)]
    else:
        frontends += [frontend(ip, port.port, "balancer", ranges) for ip in load_balancer_ips(service)]
    if port.node_port:
        frontends.append(frontend("", port.node_port, "node"))
    by_address = {(f.ip, f.port): f for f in reversed(frontends)}
    return ServicePort(
        namespace=intern(service.metadata.namespace),
        service=service.metadata.name,
        port_name=port_name,
        protocol=protocol,
        frontends=tuple(reversed(by_address.values())),
        endpoints=pools.every,
        serving=pools.serving,
        affinity_seconds=_affinity_seconds(spec),
        port=port.port,
        node_port=port.node_port or 0,
        health_check_node_port=(spec.health_check_node_port or 0) if local_outside else 0,
        local_ready=pools.local_ready,
    )


def _endpoints(slices: Sequence[EndpointSlice], port_name: str, protocol: str, node: str, zone: str) -> _Pools:
    """Endpoints for one port. Terminating ones serve while no ready one is left."""
    ready: dict[tuple[str, int], Endpoint] = {}
    ending: dict[tuple[str, int], Endpoint] = {}
    hinted: dict[tuple[str, int], EndpointItem] = {}
    for piece in slices:
        number = _port_number(piece, port_name, protocol)
        if number is None:
            continue
        for item in piece.endpoints or []:
            state = _state(item)
            if state == "down" or not item.addresses:
                continue
            key = (item.addresses[0], number)
            group = ready if state == "ready" else ending
            group[key] = Endpoint(*key, intern(item.node_name or ""))
            hinted[key] = item
    every = tuple(sorted(ready.values()) or sorted(ending.values()))
    here = sorted(e for e in ready.values() if e.node == node)
    local = tuple(here or sorted(e for e in ending.values() if e.node == node))
    serving = frozenset(f"{ip}:{number}" for ip, number in (*ready, *ending)) if protocol == "UDP" else _NONE
    near = _near(every, [hinted[(end.ip, end.port)] for end in every], node, zone)
    return _Pools(every, local, near, serving, len(here))


def _state(item: EndpointItem) -> Literal["ready", "ending", "down"]:
    conditions = item.conditions
    if conditions is None or conditions.ready is not False:
        return "ready"
    return "ending" if conditions.terminating and conditions.serving else "down"


def _near(ends: tuple[Endpoint, ...], items: Sequence[EndpointItem], node: str, zone: str) -> tuple[Endpoint, ...]:
    """Those that their hints mean for this node, or else for this zone; all of them if one has no hint or none is."""
    for kind, own in (("for_nodes", node), ("for_zones", zone)):
        targets = [{t.name for t in getattr(item.hints, kind, None) or []} for item in items]
        if own and targets and all(targets):
            chosen = tuple(end for end, names in zip(ends, targets, strict=True) if own in names)
            if chosen:
                return chosen
    return ends


def _port_number(piece: EndpointSlice, name: str, protocol: str) -> int | None:
    for port in piece.ports or []:
        if (port.name or "") == name and (port.protocol or "TCP") == protocol:
            return port.port
    return None


def _cluster_ips(spec: ServiceSpec) -> list[str]:
    ips = spec.cluster_ips or ([spec.cluster_ip] if spec.cluster_ip else [])
    return [ip for ip in ips if "." in ip]


def load_balancer_ips(service: Service) -> list[str]:
    """The IPv4 addresses that a balancer gave and that a node itself must serve."""
    status = service.status.load_balancer if service.status else None
    return [i.ip for i in (status.ingress if status else None) or [] if i.ip and "." in i.ip and i.ip_mode != "Proxy"]


def _affinity_seconds(spec: ServiceSpec) -> int:
    if spec.session_affinity != "ClientIP":
        return 0
    config = spec.session_affinity_config
    seconds = config.client_ip.timeout_seconds if config and config.client_ip else None
    return seconds or AFFINITY_SECONDS_DEFAULT


def _chain_stem(namespace: str, service: str, port_name: str, protocol: str) -> str:
    """A name says whose it is, as far as nft's 128 characters reach, and is unique by its digest.

    nft takes letters, digits and `/-_.` in a name without quotes.
    """
    identity = f"{namespace}/{service}/{port_name}/{protocol}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    readable = f"{namespace[:24]}/{service[:40]}/{port_name[:15]}".replace(".", "-")
    return f"svc-{digest}-{readable}"
