"""From policies, pods and namespaces to what one node must let through, as data. Pure.

https://kubernetes.io/docs/concepts/services-networking/network-policies/
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from machinery.api.service_views import Namespace
from services.kube_proxy.api import NetworkPolicy, Peer, Pod, PolicyPort
from services.kube_proxy.policy.selectors import matches, text

Direction = Literal["ingress", "egress"]
FINISHED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Port:
    """Which port a rule is about: numbers first to last, or a name that each pod has its own number for."""

    protocol: str
    first: int = 0
    last: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """Lets packets through whose other side is one of a set of pods, or in a range, or anyone; on any or one port."""

    peers: str = ""
    cidr: str = ""
    holes: tuple[str, ...] = ()
    port: Port | None = None


@dataclass(slots=True)
class Plan:
    """Everything that the table must hold.

    `pods`: for each direction, this node's isolated pods, address -> policies that let something through to it.
    """

    rules: dict[tuple[Direction, str], tuple[Rule, ...]] = field(default_factory=dict)
    pods: dict[Direction, dict[str, tuple[str, ...]]] = field(default_factory=lambda: {"ingress": {}, "egress": {}})
    # Set of pods' addresses by name, across the cluster.
    peers: dict[str, frozenset[str]] = field(default_factory=dict)
    # (port name, protocol) -> (address, number).
    named: dict[tuple[str, str], frozenset[tuple[str, int]]] = field(default_factory=dict)
    # Addresses of this node's pods that need not be held.
    known: frozenset[str] = frozenset()
    # The node's pod range, if anything is to be held.
    held: str = ""


def plan(
    policies: Sequence[NetworkPolicy], pods: Sequence[Pod], namespaces: Iterable[Namespace], node: str, pod_cidr: str
) -> Plan:
    """What the node of this name must enforce."""
    result = Plan()
    if not policies:
        return result
    running = [pod for pod in pods if _has_own_address(pod)]
    mine = [pod for pod in running if pod.spec is not None and pod.spec.node_name == node]
    labels = {n.metadata.name: n.metadata.labels or {} for n in namespaces}
    result.held = pod_cidr
    result.known = frozenset(ip for pod in mine for ip in addresses(pod))
    for policy in sorted(policies, key=lambda p: (p.metadata.namespace, p.metadata.name)):
        _add(policy, running, mine, labels, result)
    return result


def addresses(pod: Pod) -> list[str]:
    """A pod's IPv4 addresses."""
    status = pod.status
    if status is None:
        return []
    found = [item.ip for item in status.pod_ips or ()] or [status.pod_ip or ""]
    return [ip for ip in found if "." in ip]


def _has_own_address(pod: Pod) -> bool:
    host = pod.spec is not None and bool(pod.spec.host_network)
    return not host and (pod.status is None or pod.status.phase not in FINISHED)


def directions(policy: NetworkPolicy) -> list[Direction]:
    """Which traffic a policy is about; without a word about it, ingress, and egress if it has rules for it."""
    spec = policy.spec
    assert spec is not None
    if spec.policy_types:
        return [d for d, name in (("ingress", "Ingress"), ("egress", "Egress")) if name in spec.policy_types]  # type: ignore[misc]
    return ["ingress", "egress"] if spec.egress else ["ingress"]


def _add(
    policy: NetworkPolicy,
    running: Sequence[Pod],
    mine: Sequence[Pod],
    namespaces: Mapping[str, Mapping[str, str]],
    result: Plan,
) -> None:
    spec, namespace = policy.spec, policy.metadata.namespace
    if spec is None:
        return
    selected = [
        pod
        for pod in mine
        if pod.metadata.namespace == namespace
        and (spec.pod_selector is None or matches(spec.pod_selector, pod.metadata.labels))
    ]
    if not selected:
        return
    name = f"{namespace}/{policy.metadata.name}"
    for direction in directions(policy):
        for pod in selected:
            for ip in addresses(pod):
                result.pods[direction][ip] = (*result.pods[direction].get(ip, ()), name)
        pairs = (
            [(rule.from_, rule.ports) for rule in spec.ingress or ()]
            if direction == "ingress"
            else [(rule.to, rule.ports) for rule in spec.egress or ()]
        )
        rules: dict[Rule, None] = {}
        for peers, ports in pairs:
            for rule in _rules(peers, ports, namespace, running, namespaces, result):
                rules[rule] = None
        result.rules[direction, name] = tuple(rules)


def _rules(
    peers: Sequence[Peer] | None,
    ports: Sequence[PolicyPort] | None,
    namespace: str,
    running: Sequence[Pod],
    namespaces: Mapping[str, Mapping[str, str]],
    result: Plan,
) -> Iterable[Rule]:
    for port in [_port(p, running, result) for p in ports] if ports else [None]:
        if not peers:
            yield Rule(port=port)
        for peer in peers or ():
            if peer.ip_block is not None:
                if "." in peer.ip_block.cidr:
                    holes = tuple(sorted(h for h in peer.ip_block.except_ or () if "." in h))
                    yield Rule(cidr=_network(peer.ip_block.cidr), holes=tuple(map(_network, holes)), port=port)
            else:
                yield Rule(peers=_peer_set(peer, namespace, running, namespaces, result), port=port)


def _network(cidr: str) -> str:
    return str(ipaddress.ip_network(cidr, strict=False))


def _port(port: PolicyPort, running: Sequence[Pod], result: Plan) -> Port:
    protocol = port.protocol or "TCP"
    if isinstance(port.port, str):
        key = (port.port, protocol)
        if key not in result.named:
            result.named[key] = frozenset(_named_ports(running, *key))
        return Port(protocol, name=port.port)
    if port.port is None:
        return Port(protocol)
    return Port(protocol, port.port, port.end_port or port.port)


def _named_ports(running: Sequence[Pod], name: str, protocol: str) -> Iterable[tuple[str, int]]:
    for pod in running:
        assert pod.spec is not None
        # An init container that goes on (a sidecar) serves ports too.
        sidecars = [c for c in pod.spec.init_containers or () if c.restart_policy == "Always"]
        for container in (*pod.spec.containers, *sidecars):
            for port in container.ports or ():
                if port.name == name and (port.protocol or "TCP") == protocol:
                    yield from ((ip, port.container_port) for ip in addresses(pod))


def _peer_set(
    peer: Peer, namespace: str, running: Sequence[Pod], namespaces: Mapping[str, Mapping[str, str]], result: Plan
) -> str:
    """The name of the set of the pods that a peer means; it is filled if it is new."""
    scope = namespace if peer.namespace_selector is None else ""
    identity = f"{scope}|{text(peer.namespace_selector)}|{text(peer.pod_selector)}"
    name = f"peers-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    if name not in result.peers:
        if peer.namespace_selector is None:
            chosen = {namespace}
        else:
            chosen = {n for n, labels in namespaces.items() if matches(peer.namespace_selector, labels)}
        result.peers[name] = frozenset(
            ip
            for pod in running
            if pod.metadata.namespace in chosen
            and (peer.pod_selector is None or matches(peer.pod_selector, pod.metadata.labels))
            for ip in addresses(pod)
        )
    return name


@dataclass(frozen=True, slots=True)
class Verdict:
    """What policies say about a connection in one direction. `by` let it through, if any of `policies` did."""

    direction: Direction
    allowed: bool
    policies: tuple[str, ...] = ()
    by: str = ""
    held: str = ""


def judge(current: Plan, source: str, destination: str, port: int, protocol: str) -> list[Verdict]:
    """What this node's rules say about a new connection, as the kernel would: first leaving, then arriving."""
    verdicts = []
    for direction, own, other in (("egress", source, destination), ("ingress", destination, source)):
        if current.held and own and _inside(own, current.held) and own not in current.known:
            verdicts.append(Verdict(direction, False, held=own))  # type: ignore[arg-type]
            continue
        names = current.pods[direction].get(own)  # type: ignore[index]
        if names is None:
            continue
        by = next(
            (
                name
                for name in names
                if any(_lets(current, r, other, destination, port, protocol) for r in current.rules[direction, name])  # type: ignore[index]
            ),
            "",
        )
        verdicts.append(Verdict(direction, bool(by), names, by))  # type: ignore[arg-type]
    return verdicts


def _lets(current: Plan, rule: Rule, other: str, destination: str, port: int, protocol: str) -> bool:
    if rule.peers and other not in current.peers[rule.peers]:
        return False
    if rule.cidr and (not other or not _inside(other, rule.cidr) or any(_inside(other, h) for h in rule.holes)):
        return False
    if rule.port is None:
        return True
    if rule.port.protocol != protocol:
        return False
    if rule.port.name:
        return (destination, port) in current.named[rule.port.name, protocol]
    return not rule.port.first or rule.port.first <= port <= rule.port.last


def _inside(address: str, cidr: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(cidr, strict=False)
