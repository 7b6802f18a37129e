"""What the rules do to a packet, told from the ruleset's data: a pure function, step by step as the kernel would go."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from services.kube_proxy.network import ROUTE_PROTOCOL, Hop
from services.kube_proxy.render import TABLE, entry
from services.kube_proxy.ruleset import Endpoint, Frontend, Ruleset, ServicePort

Verdict = Literal["dnat", "reject", "drop", "pass"]


@dataclass(frozen=True, slots=True)
class Step:
    """One rule on the packet's way."""

    at: str
    action: str
    rule: str = ""


@dataclass(slots=True)
class Trace:
    """The whole way. `endpoints` are where it may arrive, each with equal chance (or by affinity)."""

    verdict: Verdict = "pass"
    steps: list[Step] = field(default_factory=list)
    endpoints: tuple[Endpoint, ...] = ()
    masqueraded: bool = False
    service: ServicePort | None = None


def trace(
    ruleset: Ruleset, source: str, destination: str, port: int, protocol: str, node_addresses: frozenset[str]
) -> Trace:
    """Follow a new connection's first packet. `source` may be empty (outside the cluster)."""
    result = Trace()
    found = _find(ruleset, destination, port, protocol, node_addresses)
    if found is None:
        _not_a_service(ruleset, destination, port, protocol, result)
        return result
    service, frontend = found
    result.service = service
    where = f"map {'service-ips' if frontend.ip else 'service-nodeports'}"
    subject = f"{frontend.ip or 'a node address'}:{port}/{protocol} is {service.namespace}/{service.service}"
    if frontend.outcome != "balance":
        reason = (
            "has no endpoints"
            if frontend.outcome == "reject"
            else "has no endpoint on this node, by its traffic policy"
        )
        result.steps.append(Step("map no-endpoints", f"{subject}, which {reason}", f"{TABLE} no-endpoints"))
        result.verdict = frontend.outcome
        return result
    result.steps.append(Step(where, subject, f"goto {entry(service, frontend)}"))
    _through(ruleset, service, frontend, source, result, node_addresses)
    return result


def route_steps(addresses: Iterable[str], routes: Mapping[str, Hop]) -> list[Step]:
    """The hops to other nodes that packets to these addresses take; none for an address of this node."""
    found: dict[Step, None] = {}
    for address in addresses:
        for cidr, hop in routes.items():
            if _is_inside(address, cidr):
                how = "in a VXLAN tunnel to" if hop.vxlan else "on the same segment by"
                found[
                    Step("route", f"{cidr} is reached {how} {hop.node_ip}", f"route {cidr} proto {ROUTE_PROTOCOL}")
                ] = None
    return list(found)


def _find(
    ruleset: Ruleset, destination: str, port: int, protocol: str, node_addresses: frozenset[str]
) -> tuple[ServicePort, Frontend] | None:
    node_port: tuple[ServicePort, Frontend] | None = None
    for service in ruleset.ports.values():
        for frontend in service.frontends:
            if frontend.port != port or frontend.protocol != protocol:
                continue
            if frontend.ip == destination:
                return service, frontend
            if not frontend.ip and destination in node_addresses:
                node_port = service, frontend
    return node_port


def _not_a_service(ruleset: Ruleset, destination: str, port: int, protocol: str, result: Trace) -> None:
    owners = [s for s in ruleset.ports.values() if any(f.ip == destination for f in s.frontends)]
    if owners:
        name = f"{owners[0].namespace}/{owners[0].service}"
        result.steps.append(
            Step("set cluster-ips", f"{destination} is {name}, which has no port {port}/{protocol}", "reject")
        )
        result.verdict = "reject"
        result.service = owners[0]
    else:
        result.steps.append(
            Step("chain services", f"no Service has {destination}:{port}/{protocol}; the packet goes on as it is")
        )


def _through(
    ruleset: Ruleset,
    service: ServicePort,
    frontend: Frontend,
    source: str,
    result: Trace,
    node_addresses: frozenset[str],
) -> None:
    at = f"chain {entry(service, frontend)}"
    if frontend.source_ranges and source:
        address = ipaddress.ip_address(source)
        if not any(address in ipaddress.ip_network(r) for r in frontend.source_ranges):
            result.steps.append(Step(at, f"{source} is in none of {', '.join(frontend.source_ranges)}", "drop"))
            result.verdict = "drop"
            return
    is_pod = bool(source) and _is_inside(source, ruleset.settings.cluster_cidr)
    ends, masquerade = frontend.endpoints, frontend.masquerade
    if frontend.local is not None:
        from_here = is_pod or source in node_addresses
        ends = frontend.endpoints if from_here else frontend.local
        masquerade = "never" if is_pod or not from_here else "always"
        who = "a pod or this node: every endpoint serves it" if from_here else "outside: only endpoints of this node do"
        result.steps.append(Step(at, f"externalTrafficPolicy is Local, and the packet is from {who}"))
        if not ends:
            result.steps.append(Step(at, "there is none on this node", "drop"))
            result.verdict = "drop"
            return
    if masquerade == "always" or (masquerade == "outside" and not is_pod):
        result.masqueraded = True
        result.steps.append(
            Step(at, "its source is replaced by this node's address on the way out", "jump mark-for-masquerade")
        )
    names = ", ".join(f"{end.ip}:{end.port}" for end in ends)
    how = f"by client address for {service.affinity_seconds} s" if service.affinity_seconds else "at random"
    result.steps.append(Step(at, f"its destination becomes one of {names}, chosen {how}", "dnat"))
    result.verdict = "dnat"
    result.endpoints = ends
    if source and any(end.ip == source for end in ends):
        result.steps.append(
            Step("chain postrouting", f"if it returns to {source} itself, its source is replaced", "@hairpin")
        )


def _is_inside(source: str, cluster_cidr: str) -> bool:
    return bool(cluster_cidr) and ipaddress.ip_address(source) in ipaddress.ip_network(cluster_cidr)
