"""Writes rules as nft objects, and differences of them as the text of one nft transaction. Pure.

nft applies a file as a whole or not at all, so a packet sees the rules before or after a change and never half of one.

A Service has no chain of its own: it is an element of `service-ips` that names a shared chain by the number of
endpoints, and one element of `endpoints-tcp` for each of them. `pick-tcp-3-outside` draws a number below 3 and looks
up address . port . number. So a change costs a few elements of hash maps, however many Services there are;
chains, and above all anonymous sets, cost nft and the kernel time that grows with their number. Only affinity and
source ranges need chains and sets of a Service's own.

A packet that drew its number just before the number of endpoints fell finds no element; the second rule of a `pick`
chain then takes endpoint 0, so that no connection is lost in a change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from services.kube_proxy.ruleset import Endpoint, Frontend, Masquerade, ServicePort, Settings

TABLE = "ip cutaway-proxy"
# Local endpoints' numbers begin here in `endpoints`, beside those of the whole pool.
LOCAL_OFFSET = 32768

MAPS = {
    "service-ips": "type ipv4_addr . inet_proto . inet_service : verdict",
    "service-nodeports": "type inet_proto . inet_service : verdict",
    "no-endpoints": "type ipv4_addr . inet_proto . inet_service : verdict",
    "no-endpoints-nodeports": "type inet_proto . inet_service : verdict",
}
# One for each protocol: nft finds out by the name of the port's field what kind of packet a rule is about.
for _protocol in ("tcp", "udp", "sctp"):
    _rest = f"{_protocol} dport . numgen random mod 65536 : ip daddr . {_protocol} dport"
    MAPS[f"endpoints-{_protocol}"] = f"typeof ip daddr . {_rest}"
    MAPS[f"node-endpoints-{_protocol}"] = f"typeof {_rest}"
SETS = {
    # Pairs of an endpoint of this node with itself: a pod that reached itself through a Service.
    "hairpin": "type ipv4_addr . ipv4_addr",
    "cluster-ips": "type ipv4_addr",
    "pod-network": "type ipv4_addr; flags interval",
}
# Elements that several Services may share: there as long as one needs them.
COUNTED = frozenset({"hairpin", "cluster-ips"})

# What every packet passes, in the order of its way: chain -> (hook, rules).
BASE = {
    "services": (
        "",
        (
            "ip daddr . meta l4proto . th dport vmap @service-ips",
            "{node_ports} meta l4proto . th dport vmap @service-nodeports",
        ),
    ),
    "reject-chain": ("", ("reject",)),
    "unreachable-nodeports": ("", ("{node_ports} meta l4proto . th dport vmap @no-endpoints-nodeports",)),
    "unreachable": (
        "",
        (
            "ip daddr . meta l4proto . th dport vmap @no-endpoints",
            "jump unreachable-nodeports",
            # A Service's address on a port that the Service does not have.
            "ip daddr @cluster-ips reject",
        ),
    ),
    "mark-for-masquerade": ("", ("meta mark set meta mark or 0x4000",)),
    "prerouting": ("type nat hook prerouting priority -100; policy accept;", ("jump services",)),
    "output": ("type nat hook output priority -100; policy accept;", ("jump services",)),
    # After dstnat, so that what is sent to a Service's address that has endpoints no longer bears it here.
    "filter-input": ("type filter hook input priority 0; policy accept;", ("ct state new jump unreachable-nodeports",)),
    "filter-forward": ("type filter hook forward priority 0; policy accept;", ("ct state new jump unreachable",)),
    "filter-output": ("type filter hook output priority 0; policy accept;", ("ct state new jump unreachable",)),
    "postrouting": (
        "type nat hook postrouting priority 100; policy accept;",
        (
            "ip saddr . ip daddr @hairpin masquerade fully-random",
            "meta mark and 0x4000 == 0 return",
            "meta mark set meta mark xor 0x4000",
            "masquerade fully-random",
        ),
    ),
}


@dataclass(slots=True)
class Parts:
    """The nft objects of one Service's port."""

    # (map or set, key) -> value, empty in a set.
    elements: dict[tuple[str, str], str] = field(default_factory=dict)
    # Chains that other Services' ports use too: only ever added.
    shared: dict[str, tuple[str, ...]] = field(default_factory=dict)
    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sets: set[str] = field(default_factory=set)


def parts(port: ServicePort, settings: Settings) -> Parts:
    """Everything that the table holds for one port of one Service."""
    found = Parts()
    for frontend in port.frontends:
        if frontend.outcome == "balance":
            _balanced(port, frontend, found)
        else:
            target = "goto reject-chain" if frontend.outcome == "reject" else "drop"
            found.elements["no-endpoints" if frontend.ip else "no-endpoints-nodeports", _key(frontend)] = target
        if frontend.kind == "cluster":
            found.elements["cluster-ips", frontend.ip] = ""
        for end in frontend.endpoints:
            # A pod can reach only itself from its own node. Without a name the endpoint may be anywhere.
            if end.node in (settings.node, ""):
                found.elements["hairpin", f"{end.ip} . {end.ip}"] = ""
    return found


def _key(frontend: Frontend) -> str:
    tail = f"{frontend.protocol.lower()} . {frontend.port}"
    return f"{frontend.ip} . {tail}" if frontend.ip else tail


def _balanced(port: ServicePort, frontend: Frontend, found: Parts) -> None:
    sticky = port.affinity_seconds > 0
    if sticky:
        target = _sticky_entry(port, frontend, found)
    else:
        target = _shared_entry(frontend, found)
        _number(frontend, frontend.endpoints, 0, found)
        _number(frontend, frontend.local or (), LOCAL_OFFSET, found)
    if frontend.source_ranges:
        chain = f"{port.chain_stem}-from-{frontend.kind}"
        found.chains[chain] = (
            f"ip saddr != {{ {', '.join(sorted(set(frontend.source_ranges)))} }} drop",
            f"goto {target}",
        )
        target = chain
    found.elements["service-ips" if frontend.ip else "service-nodeports", _key(frontend)] = f"goto {target}"


def _number(frontend: Frontend, ends: Iterable[Endpoint], offset: int, found: Parts) -> None:
    name = _endpoint_map(frontend)
    key = f"{frontend.ip} . {frontend.port}" if frontend.ip else str(frontend.port)
    for number, end in enumerate(ends):
        found.elements[name, f"{key} . {number + offset}"] = f"{end.ip} . {end.port}"


def _endpoint_map(frontend: Frontend) -> str:
    return f"{'' if frontend.ip else 'node-'}endpoints-{frontend.protocol.lower()}"


def _shared_entry(frontend: Frontend, found: Parts) -> str:
    count = len(frontend.endpoints)
    if frontend.local is None:
        return _pick(frontend, count, frontend.masquerade, 0, found)
    name = f"{'' if frontend.ip else 'node-'}outside-{frontend.protocol.lower()}-{count}-{len(frontend.local)}"
    found.shared[name] = _outside_rules(
        _pick(frontend, count, "never", 0, found),
        _pick(frontend, count, "always", 0, found),
        _pick(frontend, len(frontend.local), "never", LOCAL_OFFSET, found) if frontend.local else "",
    )
    return name


def _outside_rules(for_pods: str, for_node: str, for_others: str) -> tuple[str, ...]:
    return (
        f"ip saddr @pod-network goto {for_pods}",
        f"fib saddr type local goto {for_node}",
        f"goto {for_others}" if for_others else "drop",
    )


def _pick(frontend: Frontend, count: int, masquerade: Masquerade, offset: int, found: Parts) -> str:
    where, protocol = "" if frontend.ip else "node-", frontend.protocol.lower()
    name = f"{where}pick-{protocol}-{count}-{masquerade}{'-local' if offset else ''}"
    if name not in found.shared:
        address = f"{protocol} dport" if where else f"ip daddr . {protocol} dport"

        def choice(below: int) -> str:
            numbers = f"numgen random mod {below}" + (f" offset {offset}" if offset else "")
            return f"dnat ip to {address} . {numbers} map @{_endpoint_map(frontend)}"

        found.shared[name] = (*_masquerade_rules(masquerade), choice(count), *([choice(1)] if count > 1 else []))
    return name


def _masquerade_rules(masquerade: Masquerade) -> tuple[str, ...]:
    if masquerade == "always":
        return ("jump mark-for-masquerade",)
    return ("ip saddr != @pod-network jump mark-for-masquerade",) if masquerade == "outside" else ()


def _sticky_entry(port: ServicePort, frontend: Frontend, found: Parts) -> str:
    if frontend.local is None:
        return _sticky_pick(port, frontend.endpoints, frontend.masquerade, frontend.kind, found)
    name = f"{port.chain_stem}-{frontend.kind}"
    found.chains[name] = _outside_rules(
        _sticky_pick(port, frontend.endpoints, "never", f"{frontend.kind}-pods", found),
        _sticky_pick(port, frontend.endpoints, "always", f"{frontend.kind}-node", found),
        _sticky_pick(port, frontend.local, "never", f"{frontend.kind}-local", found) if frontend.local else "",
    )
    return name


def _sticky_pick(
    port: ServicePort, ends: tuple[Endpoint, ...], masquerade: Masquerade, suffix: str, found: Parts
) -> str:
    """Session affinity: each endpoint has a set of the clients that it served last; a known client goes there first."""
    stem, name = port.chain_stem, f"{port.chain_stem}-{suffix}"
    names = [f"{stem}.{end.ip.replace('.', '-')}-{end.port}" for end in ends]
    for end, sticky in zip(ends, names, strict=True):
        found.sets.add(sticky)
        found.chains[sticky] = (
            # The time stands here and not in the set, so that it can change while clients stay known.
            f"update @{sticky} {{ ip saddr timeout {port.affinity_seconds}s }}",
            f"meta l4proto {port.protocol.lower()} dnat to {end.ip}:{end.port}",
        )
    choice = ", ".join(f"{number} : goto {sticky}" for number, sticky in enumerate(names))
    found.chains[name] = (
        *_masquerade_rules(masquerade),
        *(f"ip saddr @{sticky} goto {sticky}" for sticky in names),
        f"numgen random mod {len(names)} vmap {{ {choice} }}",
    )
    return name


def entry(port: ServicePort, frontend: Frontend) -> str:
    """The chain that a front end's packets go to; empty where they are rejected or dropped."""
    found = Parts()
    if frontend.outcome != "balance":
        return ""
    _balanced(port, frontend, found)
    return found.elements["service-ips" if frontend.ip else "service-nodeports", _key(frontend)].removeprefix("goto ")


class Transaction:
    """Gathers commands in the order in which nft can carry them out: what is referred to exists before and after."""

    def __init__(self) -> None:
        self.new: list[str] = []
        self.rules: list[str] = []
        self.removed: defaultdict[str, list[str]] = defaultdict(list)
        self.added: defaultdict[str, list[str]] = defaultdict(list)
        self.emptied: list[str] = []
        self.deleted_chains: list[str] = []
        self.deleted_sets: list[str] = []

    def add_set(self, name: str) -> None:
        """A set of clients with times."""
        self.new.append(f"add set {TABLE} {name} {{ type ipv4_addr; flags dynamic,timeout; }}")

    def fill_chain(self, name: str, rules: Iterable[str], *, hook: str = "", flush: bool = True) -> None:
        """Make the chain if it is missing, with just these rules."""
        self.new.append(f"add chain {TABLE} {name}" + (f" {{ {hook} }}" if hook else ""))
        if flush:
            self.new.append(f"flush chain {TABLE} {name}")
        self.rules += [f"add rule {TABLE} {name} {rule}" for rule in rules]

    def delete_chain(self, name: str) -> None:
        """Remove a chain, after whatever refers to it."""
        self.emptied.append(f"flush chain {TABLE} {name}")
        self.deleted_chains.append(f"delete chain {TABLE} {name}")

    def delete_set(self, name: str) -> None:
        """Remove a set, after the rules that use it."""
        self.deleted_sets.append(f"delete set {TABLE} {name}")

    def text(self) -> str:
        """The commands; empty if there are none."""
        lines = [*self.new, *self.rules]
        lines += [f"delete element {TABLE} {name} {{ {', '.join(keys)} }}" for name, keys in self.removed.items()]
        lines += [f"add element {TABLE} {name} {{ {', '.join(items)} }}" for name, items in self.added.items()]
        lines += [*self.emptied, *self.deleted_chains, *self.deleted_sets]
        return "\n".join(lines) + "\n" if lines else ""


def base(settings: Settings, transaction: Transaction) -> None:
    """Maps, sets and chains that every packet passes: made if missing, emptied, and filled."""
    node_ports = "ip daddr != 127.0.0.0/8 fib daddr type local"
    if settings.node_port_addresses:
        node_ports = f"ip daddr {{ {', '.join(settings.node_port_addresses)} }}"
    transaction.new.append(f"add table {TABLE}")
    for what, names in (("map", MAPS), ("set", SETS)):
        for name, definition in names.items():
            transaction.new += [
                f"add {what} {TABLE} {name} {{ {definition}; }}",
                f"flush {what} {TABLE} {name}",
            ]
    if settings.cluster_cidr:
        transaction.added["pod-network"].append(settings.cluster_cidr)
    for name, (hook, rules) in BASE.items():
        transaction.fill_chain(name, [rule.format(node_ports=node_ports) for rule in rules], hook=hook)


def difference(before: Parts, after: Parts, known_shared: Mapping[str, object], transaction: Transaction) -> None:
    """What turns one port's objects into others. Counted elements are the caller's business."""
    for name, rules in after.shared.items():
        if name not in known_shared:
            transaction.fill_chain(name, rules)
    for name in after.sets - before.sets:
        transaction.add_set(name)
    for name, rules in after.chains.items():
        if before.chains.get(name) != rules:
            transaction.fill_chain(name, rules, flush=name in before.chains)
    for (name, key), value in before.elements.items():
        if name not in COUNTED and after.elements.get((name, key)) != value:
            transaction.removed[name].append(key)
    for (name, key), value in after.elements.items():
        if name not in COUNTED and before.elements.get((name, key)) != value:
            transaction.added[name].append(f"{key} : {value}")
    for name in before.chains:
        if name not in after.chains:
            transaction.delete_chain(name)
    for name in before.sets - after.sets:
        transaction.delete_set(name)
