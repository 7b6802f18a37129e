"""Writes a ruleset, or the difference of two, as the text of one nft transaction. Pure.

nft applies a file as a whole or not at all, so a packet sees the rules before or after a change and never half of one.
Within a transaction chains are made before the map elements that jump to them, and removed after them.
"""

from __future__ import annotations

from collections.abc import Iterable

from services.kube_proxy.ruleset import Balancer, Frontend, Ruleset, ServicePort, Settings

TABLE = "ip cutaway-proxy"

# Every chain, map and set that does not belong to one Service, in the order of a packet's way.
BASE = """\
table {table} {{
  # One rule each: address . protocol . port -> the chain of the Service's port.
  map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map service-nodeports {{ type inet_proto . inet_service : verdict; }}
  map no-endpoints {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map no-endpoints-nodeports {{ type inet_proto . inet_service : verdict; }}
  # Pairs of an endpoint with itself: a pod that reached itself through a Service.
  set hairpin {{ type ipv4_addr . ipv4_addr; }}
  set cluster-ips {{ type ipv4_addr; }}
  set pod-network {{ type ipv4_addr; flags interval; {pod_network} }}

  chain prerouting {{ type nat hook prerouting priority dstnat; policy accept; jump services; }}
  chain output {{ type nat hook output priority -100; policy accept; jump services; }}
  chain services {{
    ip daddr . meta l4proto . th dport vmap @service-ips
    {node_ports} meta l4proto . th dport vmap @service-nodeports
  }}
  chain reject-chain {{ reject; }}
  # After dstnat, so that what is sent to a Service's address that has endpoints no longer bears it here.
  chain filter-input {{ type filter hook input priority filter; policy accept; ct state new jump unreachable-nodeports; }}
  chain filter-forward {{ type filter hook forward priority filter; policy accept; ct state new jump unreachable; }}
  chain filter-output {{ type filter hook output priority filter; policy accept; ct state new jump unreachable; }}
  chain unreachable {{
    ip daddr . meta l4proto . th dport vmap @no-endpoints
    jump unreachable-nodeports
    # A Service's address on a port that the Service does not have.
    ip daddr @cluster-ips reject
  }}
  chain unreachable-nodeports {{ {node_ports} meta l4proto . th dport vmap @no-endpoints-nodeports; }}
  chain mark-for-masquerade {{ meta mark set meta mark or 0x4000; }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr . ip daddr @hairpin masquerade
    meta mark and 0x4000 == 0 return
    meta mark set meta mark xor 0x4000
    masquerade fully-random
  }}
}}
"""


def full(ruleset: Ruleset) -> str:
    """The whole table, replacing whatever it held: for the first sync and for repair."""
    cidr = ruleset.settings.cluster_cidr
    pod_network = f"elements = {{ {cidr} }};" if cidr else ""
    base = BASE.format(table=TABLE, node_ports=_node_port_match(ruleset.settings), pod_network=pod_network)
    lines = [f"table {TABLE}", f"delete table {TABLE}", base.rstrip()]
    for port in ruleset.ports.values():
        lines += _add_chains(port)
    lines += _elements("add", ruleset.ports.values())
    lines += _set_elements("add", _addresses(ruleset), _pairs(ruleset))
    return "\n".join(lines) + "\n"


def difference(old: Ruleset, new: Ruleset) -> str:
    """The commands that turn a table holding `old` into one holding `new`; empty if they are the same."""
    gone = [old.ports[key] for key in old.ports.keys() - new.ports.keys()]
    come = [new.ports[key] for key in new.ports.keys() - old.ports.keys()]
    kept = [
        (old.ports[key], new.ports[key])
        for key in new.ports.keys() & old.ports.keys()
        if old.ports[key] != new.ports[key]
    ]
    if not gone and not come and not kept:
        return ""
    lines: list[str] = []
    for port in come:
        lines += _add_chains(port)
    for before, after in kept:
        lines += _change_chains(before, after)
    removed = [f for port in gone for f in port.frontends] + [
        f for b, a in kept for f in b.frontends if f not in a.frontends
    ]
    added = [f for port in come for f in port.frontends] + [
        f for b, a in kept for f in a.frontends if f not in b.frontends
    ]
    lines += [line for frontend in removed for line in [_element("delete", frontend)]]
    lines += [line for frontend in added for line in [_element("add", frontend)]]
    lines += _set_elements("delete", _addresses(old) - _addresses(new), _pairs(old) - _pairs(new))
    lines += _set_elements("add", _addresses(new) - _addresses(old), _pairs(new) - _pairs(old))
    for port in gone:
        lines += _delete_chains(port.balancers)
    for before, after in kept:
        names = {balancer.chain for balancer in after.balancers}
        lines += _delete_chains(b for b in before.balancers if b.chain not in names)
    return "\n".join(lines) + "\n"


def _node_port_match(settings: Settings) -> str:
    if settings.node_port_addresses:
        return f"ip daddr {{ {', '.join(settings.node_port_addresses)} }}"
    return "ip daddr != 127.0.0.0/8 fib daddr type local"


def _add_chains(port: ServicePort) -> list[str]:
    return [line for balancer in port.balancers for line in _chain(balancer, new=True)]


def _change_chains(before: ServicePort, after: ServicePort) -> list[str]:
    known = {balancer.chain: balancer for balancer in before.balancers}
    lines: list[str] = []
    for balancer in after.balancers:
        previous = known.get(balancer.chain)
        if previous != balancer:
            lines += _chain(balancer, new=previous is None, previous=previous)
    return lines


def _chain(balancer: Balancer, *, new: bool, previous: Balancer | None = None) -> list[str]:
    """Create or refill one balancer's chain (and, with affinity, a chain and a set for each endpoint)."""
    name = f"{TABLE} {balancer.chain}"
    lines = [f"add chain {name}" if new else f"flush chain {name}"]
    if balancer.source_ranges:
        lines.append(f"add rule {name} ip saddr != {{ {', '.join(balancer.source_ranges)} }} drop")
    if balancer.masquerade == "always":
        lines.append(f"add rule {name} jump mark-for-masquerade")
    elif balancer.masquerade == "outside":
        lines.append(f"add rule {name} ip saddr != @pod-network jump mark-for-masquerade")
    if balancer.affinity_seconds:
        lines += _sticky_rules(balancer, name, previous)
    else:
        lines.append(f"add rule {name} {_choice(balancer)}")
        lines += _delete_sticky(previous, set())
    return lines


def _choice(balancer: Balancer) -> str:
    # `meta l4proto` must be known before a port can be rewritten.
    protocols = "meta l4proto { tcp, udp, sctp }"
    ends = balancer.endpoints
    if len(ends) == 1:
        return f"{protocols} dnat to {ends[0].ip}:{ends[0].port}"
    table = ", ".join(f"{number} : {end.ip} . {end.port}" for number, end in enumerate(ends))
    return f"{protocols} dnat ip to numgen random mod {len(ends)} map {{ {table} }}"


def _sticky_name(balancer: Balancer, number: int) -> str:
    end = balancer.endpoints[number]
    return f"{balancer.chain}.{end.ip.replace('.', '-')}-{end.port}"


def _sticky_rules(balancer: Balancer, name: str, previous: Balancer | None) -> list[str]:
    """Session affinity: each endpoint has a set of the clients that it served last; a known client goes there first."""
    ends = range(len(balancer.endpoints))
    names = [_sticky_name(balancer, number) for number in ends]
    old = (
        {_sticky_name(previous, n) for n in range(len(previous.endpoints))}
        if previous and previous.affinity_seconds
        else set()
    )
    lines: list[str] = []
    for number, sticky in enumerate(names):
        if sticky not in old:
            end = balancer.endpoints[number]
            lines.append(
                f"add set {TABLE} {sticky} "
                f"{{ type ipv4_addr; flags dynamic,timeout; timeout {balancer.affinity_seconds}s; }}"
            )
            lines.append(f"add chain {TABLE} {sticky}")
            lines.append(
                f"add rule {TABLE} {sticky} update @{sticky} {{ ip saddr }} "
                f"meta l4proto {{ tcp, udp, sctp }} dnat to {end.ip}:{end.port}"
            )
    lines += [f"add rule {name} ip saddr @{sticky} goto {sticky}" for sticky in names]
    table = ", ".join(f"{number} : goto {sticky}" for number, sticky in enumerate(names))
    lines.append(f"add rule {name} numgen random mod {len(names)} vmap {{ {table} }}")
    return lines + _delete_sticky(previous, set(names))


def _delete_sticky(previous: Balancer | None, keep: set[str]) -> list[str]:
    if previous is None or not previous.affinity_seconds:
        return []
    names = [_sticky_name(previous, number) for number in range(len(previous.endpoints))]
    gone = [name for name in names if name not in keep]
    return [f"delete chain {TABLE} {name}" for name in gone] + [f"delete set {TABLE} {name}" for name in gone]


def _delete_chains(balancers: Iterable[Balancer]) -> list[str]:
    lines: list[str] = []
    for balancer in balancers:
        lines.append(f"flush chain {TABLE} {balancer.chain}")
        lines.append(f"delete chain {TABLE} {balancer.chain}")
        lines += _delete_sticky(balancer, set())
    return lines


def _elements(verb: str, ports: Iterable[ServicePort]) -> list[str]:
    return [_element(verb, frontend) for port in ports for frontend in port.frontends]


def _element(verb: str, frontend: Frontend) -> str:
    protocol, port = frontend.protocol.lower(), frontend.port
    if frontend.outcome == "balance":
        name, verdict = ("service-ips" if frontend.ip else "service-nodeports"), f"goto {frontend.chain}"
    else:
        name = "no-endpoints" if frontend.ip else "no-endpoints-nodeports"
        verdict = "goto reject-chain" if frontend.outcome == "reject" else "drop"
    key = f"{frontend.ip} . {protocol} . {port}" if frontend.ip else f"{protocol} . {port}"
    return f"{verb} element {TABLE} {name} {{ {key} : {verdict} }}"


def _addresses(ruleset: Ruleset) -> set[str]:
    # External addresses may be the node's own; only addresses that nothing else can have are closed on their other
    # ports.
    return {
        f.ip
        for port in ruleset.ports.values()
        for f in port.frontends
        if f.ip and f.port == port.port and (f.chain.endswith("-in") or f.outcome != "balance")
    }


def _pairs(ruleset: Ruleset) -> set[str]:
    return {f"{end.ip} . {end.ip}" for port in ruleset.ports.values() for b in port.balancers for end in b.endpoints}


def _set_elements(verb: str, addresses: set[str], pairs: set[str]) -> list[str]:
    lines = []
    if addresses:
        lines.append(f"{verb} element {TABLE} cluster-ips {{ {', '.join(sorted(addresses))} }}")
    if pairs:
        lines.append(f"{verb} element {TABLE} hairpin {{ {', '.join(sorted(pairs))} }}")
    return lines
