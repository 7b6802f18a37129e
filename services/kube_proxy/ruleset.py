"""What the rules of one node must say, as data: a pure function of Services, EndpointSlices and the node.

Nothing here performs I/O. Two rulesets can be compared by `==`; `render.py` writes the difference as nft commands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lightkube.models import core_v1, discovery_v1

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"

Outcome = Literal["balance", "reject", "drop"]
# "outside": packets whose source is no pod of the cluster.
Masquerade = Literal["never", "outside", "always"]


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """One place where packets of a Service may arrive."""

    ip: str
    port: int
    node: str = ""


@dataclass(frozen=True, slots=True)
class Balancer:
    """A choice among endpoints: one nft chain. `affinity_seconds` 0: each connection is chosen anew."""

    chain: str
    endpoints: tuple[Endpoint, ...]
    affinity_seconds: int = 0
    # Whose packets take this node's address, because the answer must return by way of it.
    masquerade: Masquerade = "never"
    # Only packets from here are let in (loadBalancerSourceRanges); empty: all.
    source_ranges: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Frontend:
    """An address that packets are sent to, and what becomes of them. `ip` is empty for a node port."""

    ip: str
    protocol: str
    port: int
    outcome: Outcome
    # The balancer's chain, if the outcome is "balance".
    chain: str = ""


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of one Service: all its front ends and the chains behind them."""

    namespace: str
    service: str
    port_name: str
    protocol: str
    frontends: tuple[Frontend, ...]
    balancers: tuple[Balancer, ...]
    # Everything that it could reach, for people and for conntrack: endpoints in use by the cluster-wide policy.
    endpoints: tuple[Endpoint, ...]
    # Kept for GetRuleset.
    port: int = 0
    node_port: int = 0
    session_affinity: str = "None"
    health_check_node_port: int = 0

    @property
    def key(self) -> str:
        """Unique in a ruleset: "default/web:http/TCP"."""
        return f"{self.namespace}/{self.service}:{self.port_name}/{self.protocol}"


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


def is_proxied(service: core_v1.Service) -> bool:
    """Whether this Service has an address for us to serve: not headless, not an ExternalName, not another proxy's."""
    labels = (service.metadata.labels if service.metadata else None) or {}
    spec = service.spec
    if spec is None or spec.type == "ExternalName" or PROXY_NAME_LABEL in labels:
        return False
    return bool(spec.clusterIP) and spec.clusterIP != "None"


def service_ports(
    service: core_v1.Service, slices: Iterable[discovery_v1.EndpointSlice], settings: Settings
) -> list[ServicePort]:
    """The rules of one Service; empty if it is not ours to serve."""
    if not is_proxied(service):
        return []
    usable = [s for s in slices if s.addressType == "IPv4"]
    assert service.spec is not None
    return [_service_port(service, port, usable, settings) for port in service.spec.ports or []]


def _service_port(
    service: core_v1.Service,
    port: core_v1.ServicePort,
    slices: Sequence[discovery_v1.EndpointSlice],
    settings: Settings,
) -> ServicePort:
    assert service.spec is not None
    assert service.metadata is not None
    spec, meta = service.spec, service.metadata
    protocol, port_name = port.protocol or "TCP", port.name or ""
    every, local = _endpoints(slices, port_name, protocol, settings.node)
    internal = local if spec.internalTrafficPolicy == "Local" else every
    external_local = spec.externalTrafficPolicy == "Local"
    external = local if external_local else every
    affinity = _affinity_seconds(spec)
    stem = _chain_stem(meta.namespace or "", meta.name or "", port_name, protocol)

    within: Masquerade = "always" if settings.masquerade_all else "outside" if settings.cluster_cidr else "never"
    cluster_chain = Balancer(f"{stem}-in", tuple(internal), affinity, within)
    # Packets from outside keep their source only if they stay on this node.
    from_outside: Masquerade = "never" if external_local else "always"
    outside_chain = Balancer(f"{stem}-ex", tuple(external), affinity, from_outside)
    ranges = tuple(spec.loadBalancerSourceRanges or ())
    balanced_chain = Balancer(f"{stem}-lb", tuple(external), affinity, from_outside, ranges)

    frontends = [_frontend(ip, protocol, port.port, cluster_chain, every) for ip in _cluster_ips(spec)]
    frontends += [
        _frontend(ip, protocol, port.port, outside_chain, every) for ip in spec.externalIPs or [] if "." in ip
    ]
    frontends += [_frontend(ip, protocol, port.port, balanced_chain, every) for ip in _load_balancer_ips(service)]
    node_port = port.nodePort or 0
    if node_port:
        frontends.append(_frontend("", protocol, node_port, outside_chain, every))
    used = {frontend.chain for frontend in frontends if frontend.outcome == "balance"}
    return ServicePort(
        namespace=meta.namespace or "",
        service=meta.name or "",
        port_name=port_name,
        protocol=protocol,
        frontends=tuple(dict.fromkeys(frontends)),
        balancers=tuple(b for b in (cluster_chain, outside_chain, balanced_chain) if b.chain in used),
        endpoints=tuple(every),
        port=port.port,
        node_port=node_port,
        session_affinity=spec.sessionAffinity or "None",
        health_check_node_port=(spec.healthCheckNodePort or 0) if external_local else 0,
    )


def _frontend(ip: str, protocol: str, port: int, balancer: Balancer, every: Sequence[Endpoint]) -> Frontend:
    if balancer.endpoints:
        return Frontend(ip, protocol, port, "balance", balancer.chain)
    # Upstream's rule: with no endpoint anywhere the caller is told at once; with endpoints on other nodes only, a local
    # policy drops, so that a balancer in front, which tries another node, sees no refusal.
    return Frontend(ip, protocol, port, "drop" if every else "reject")


def _endpoints(
    slices: Sequence[discovery_v1.EndpointSlice], port_name: str, protocol: str, node: str
) -> tuple[list[Endpoint], list[Endpoint]]:
    """Endpoints for one port: (all in use, those on this node). Terminating ones serve while no ready one is left."""
    ready: dict[tuple[str, int], Endpoint] = {}
    ending: dict[tuple[str, int], Endpoint] = {}
    for piece in slices:
        number = _port_number(piece, port_name, protocol)
        if number is None:
            continue
        for endpoint in piece.endpoints or []:
            conditions = endpoint.conditions
            is_ready = conditions is None or conditions.ready is not False
            is_ending = conditions is not None and bool(conditions.terminating)
            is_serving = is_ready if conditions is None or conditions.serving is None else conditions.serving
            group = ready if is_ready else ending if is_ending and is_serving else None
            if group is None:
                continue
            for address in endpoint.addresses[:1]:
                group[(address, number)] = Endpoint(address, number, endpoint.nodeName or "")
    every = sorted(ready.values()) or sorted(ending.values())
    local = sorted(e for e in ready.values() if e.node == node) or sorted(e for e in ending.values() if e.node == node)
    return every, local


def _port_number(piece: discovery_v1.EndpointSlice, name: str, protocol: str) -> int | None:
    for port in piece.ports or []:
        if (port.name or "") == name and (port.protocol or "TCP") == protocol:
            return port.port
    return None


def _cluster_ips(spec: core_v1.ServiceSpec) -> list[str]:
    ips = spec.clusterIPs or ([spec.clusterIP] if spec.clusterIP else [])
    return [ip for ip in ips if "." in ip]


def _load_balancer_ips(service: core_v1.Service) -> list[str]:
    status = service.status.loadBalancer if service.status else None
    return [i.ip for i in (status.ingress if status else None) or [] if i.ip and "." in i.ip and i.ipMode != "Proxy"]


def _affinity_seconds(spec: core_v1.ServiceSpec) -> int:
    if spec.sessionAffinity != "ClientIP":
        return 0
    config = spec.sessionAffinityConfig
    seconds = config.clientIP.timeoutSeconds if config and config.clientIP else None
    return seconds or 10800


def _chain_stem(namespace: str, service: str, port_name: str, protocol: str) -> str:
    """A chain's name says whose it is, as far as nft's 128 characters reach, and is unique by its digest.

    nft takes letters, digits and `/-_.` in a name without quotes.
    """
    identity = f"{namespace}/{service}/{port_name}/{protocol}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    readable = f"{namespace[:24]}/{service[:40]}/{port_name[:16]}".replace(".", "-")
    return f"svc-{digest}-{readable}"
