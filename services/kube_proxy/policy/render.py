"""Writes a plan, or the difference of two, as one nft transaction. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from services.kube_proxy.nft import Names
from services.kube_proxy.policy.plan import Direction, Plan, Port, Rule

TABLE = "ip cutaway-policy"
MAPS = {"egress-pods": "type ipv4_addr : verdict", "ingress-pods": "type ipv4_addr : verdict"}
SETS = {"known": "type ipv4_addr", "held": "type ipv4_addr; flags interval"}
# Behind the filter priority, so that what others drop is gone; egress before ingress.
BASE = {
    "from-pods": (
        "",
        (
            # Answers, and what belongs to a connection that was let in.
            "ct state established,related accept",
            "ip saddr @held ip saddr != @known drop",
            "ip saddr vmap @egress-pods",
        ),
    ),
    "egress-forward": ("type filter hook forward priority 10; policy accept;", ("jump from-pods",)),
    "egress-input": ("type filter hook input priority 10; policy accept;", ("jump from-pods",)),
    "ingress-forward": (
        "type filter hook forward priority 11; policy accept;",
        (
            "ct state established,related accept",
            "ip daddr @held ip daddr != @known drop",
            "ip daddr vmap @ingress-pods",
        ),
    ),
}
_TYPES = {"peers": "type ipv4_addr", "ports": "type ipv4_addr . inet_proto . inet_service"}


@dataclass(slots=True)
class Objects:
    """What the table holds besides the base."""

    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sets: dict[str, frozenset[str]] = field(default_factory=dict)
    # (map or base set, key) -> value
    elements: dict[tuple[str, str], str] = field(default_factory=dict)


def objects(plan: Plan) -> Objects:
    """A plan as nft objects."""
    found = Objects()
    found.sets |= plan.peers
    for (name, protocol), members in plan.named.items():
        found.sets[_ports_set(name, protocol)] = frozenset(f"{ip} . {protocol.lower()} . {n}" for ip, n in members)
    for (direction, policy), rules in plan.rules.items():
        found.chains[_policy_chain(direction, policy)] = tuple(_rule(direction, rule) for rule in rules)
    for direction, pods in plan.pods.items():
        for ip, policies in pods.items():
            chain = f"pods-{direction}-{_digest(' '.join(policies))}"
            found.chains[chain] = (*(f"jump {_policy_chain(direction, p)}" for p in policies), "drop")
            found.elements[f"{direction}-pods", ip] = f"goto {chain}"
    found.elements |= dict.fromkeys((("known", ip) for ip in plan.known), "")
    if plan.held:
        found.elements["held", plan.held] = ""
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _policy_chain(direction: Direction, policy: str) -> str:
    return f"{direction}-{_digest(policy)}-{policy[:64].replace('.', '-')}"


def _ports_set(name: str, protocol: str) -> str:
    return f"ports-{protocol.lower()}-{name}"


def _rule(direction: Direction, rule: Rule) -> str:
    side = "saddr" if direction == "ingress" else "daddr"
    words = []
    if rule.peers:
        words.append(f"ip {side} @{rule.peers}")
    if rule.cidr:
        words.append(f"ip {side} {rule.cidr}")
    if rule.holes:
        words.append(f"ip {side} != {{ {', '.join(rule.holes)} }}")
    if rule.port is not None:
        words.append(_port(rule.port))
    return " ".join([*words, "accept"])


def _port(port: Port) -> str:
    protocol = port.protocol.lower()
    if port.name:
        return f"ip daddr . meta l4proto . th dport @{_ports_set(port.name, port.protocol)}"
    if not port.first:
        return f"meta l4proto {protocol}"
    return f"{protocol} dport {port.first}" + (f"-{port.last}" if port.last != port.first else "")


def adopt(plan: Plan, there: Names) -> str:
    """The transaction that fills the table anew, whatever an earlier run left, without a gap."""
    lines = [f"add table {TABLE}"]
    for what, names in (("map", MAPS), ("set", SETS)):
        for name, definition in names.items():
            lines += [f"add {what} {TABLE} {name} {{ {definition}; }}", f"flush {what} {TABLE} {name}"]
    for name, (hook, _) in BASE.items():
        lines += [f"add chain {TABLE} {name}" + (f" {{ {hook} }}" if hook else ""), f"flush chain {TABLE} {name}"]
    lines += [f"add rule {TABLE} {name} {rule}" for name, (_, rules) in BASE.items() for rule in rules]
    wanted = objects(plan)
    stale = Objects(
        chains=dict.fromkeys(there.chains - BASE.keys(), ("unknown",)),
        sets=dict.fromkeys(there.sets - SETS.keys(), frozenset()),
    )
    lines += [f"flush set {TABLE} {name}" for name in stale.sets]
    return "\n".join([*lines, *_difference(stale, wanted)]) + "\n"


def difference(old: Plan, new: Plan) -> str:
    """The transaction that turns one plan's table into another's; empty if they are the same."""
    lines = _difference(objects(old), objects(new))
    return "\n".join(lines) + "\n" if lines else ""


def _difference(old: Objects, new: Objects) -> list[str]:
    lines = [f"add set {TABLE} {n} {{ {_TYPES[n.partition('-')[0]]}; }}" for n in new.sets if n not in old.sets]
    changed = {name: rules for name, rules in new.chains.items() if old.chains.get(name) != rules}
    lines += [f"{'flush' if name in old.chains else 'add'} chain {TABLE} {name}" for name in changed]
    lines += [f"add rule {TABLE} {name} {rule}" for name, rules in changed.items() for rule in rules]
    for name, members in new.sets.items():
        before = old.sets.get(name, frozenset())
        lines += _elements("delete", name, before - members) + _elements("add", name, members - before)
    gone = {e for e, value in old.elements.items() if new.elements.get(e) != value}
    come = {e for e, value in new.elements.items() if old.elements.get(e) != value}
    for name in (*MAPS, *SETS):
        lines += _elements("delete", name, {key for where, key in gone if where == name})
        values = {
            f"{key} : {new.elements[where, key]}" if new.elements[where, key] else key
            for where, key in come
            if where == name
        }
        lines += _elements("add", name, values)
    unneeded = [name for name in old.chains if name not in new.chains]
    lines += [f"flush chain {TABLE} {name}" for name in unneeded]
    lines += [f"delete chain {TABLE} {name}" for name in unneeded]
    lines += [f"delete set {TABLE} {name}" for name in old.sets if name not in new.sets]
    return lines


def _elements(verb: str, name: str, members: set[str] | frozenset[str]) -> list[str]:
    return [f"{verb} element {TABLE} {name} {{ {', '.join(sorted(members))} }}"] if members else []
