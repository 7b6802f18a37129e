"""Answers to questions about the cluster's own names, from the zone. Pure."""

from __future__ import annotations

import random

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from services.dns.records import pod_address
from services.dns.zone import Zone

# Larger datagrams are fragmented, and fragments get lost: https://www.dnsflagday.net/2020/
UDP_BYTES_MAX = 1232
# Short: pods come and go, and the server is on the same node.
TTL_SECONDS = 5
# Aliases of aliases may go round in a circle.
ALIASES_MAX = 8


def answer(
    zone: Zone, query: dns.message.Message, name: str, namespaces: frozenset[str] | set[str]
) -> dns.message.Message:
    """The authoritative answer. `name` is the question's, in lower case without the last dot; `namespaces` exist in the
    cluster."""
    response = reply_to(query)
    response.flags |= dns.flags.AA
    question = query.question[0]
    found = pod_records(zone, name, namespaces)
    if found is None:
        found = zone.find(name)
    if found is None:
        response.set_rcode(dns.rcode.NXDOMAIN)
    else:
        kind = dns.rdatatype.to_text(question.rdtype)
        kinds = [kind] if kind in found else ["CNAME"] if "CNAME" in found else sorted(found) if kind == "ANY" else []
        for each in kinds:
            values = list(found[each])
            # A client that takes the first address must not always take the same one.
            random.shuffle(values)
            response.answer.append(dns.rrset.from_text(question.name, TTL_SECONDS, "IN", each, *values))
            if each == "SRV":
                _add_targets(zone, response, values)
            elif each == "CNAME" and kind != "CNAME":
                _follow(zone, response, values[0], kind)
    if not response.answer:
        response.authority.append(_start_of_authority(zone))
    return response


def reply_to(query: dns.message.Message) -> dns.message.Message:
    """An empty answer. What the client said of DNSSEC is said back (RFC 3225, 3)."""
    response = dns.message.make_response(query, recursion_available=True, our_payload=UDP_BYTES_MAX)
    if query.ednsflags & dns.flags.DO:
        response.want_dnssec()
    return response


def external_target(response: dns.message.Message, zone: Zone) -> str | None:
    """The name outside the cluster to which an answer refers by CNAME, if it does: the client wants its addresses
    too."""
    last = response.answer[-1] if response.answer else None
    if last is None or last.rdtype != dns.rdatatype.CNAME:
        return None
    target = last[0].target.to_text().rstrip(".").lower()
    return None if zone.is_ours(target) else target


def pod_records(zone: Zone, name: str, namespaces: frozenset[str] | set[str]) -> dict[str, list[str]] | None:
    """Records of a pod's name, which says its address; None if it is no such name or of no namespace."""
    suffix = f".pod.{zone.domain}"
    if not name.endswith(suffix):
        return {} if name == suffix[1:] else None
    label, _, namespace = name[: -len(suffix)].partition(".")
    if not namespace:
        return {} if label in namespaces else None
    address = pod_address(label)
    if address is None or namespace not in namespaces:
        return None
    return {"AAAA" if ":" in address else "A": [address]}


def _follow(zone: Zone, response: dns.message.Message, target: str, kind: str) -> None:
    """What an alias of a name in the cluster stands for belongs to the answer (RFC 1034, 3.6.2)."""
    for _ in range(ALIASES_MAX):
        found = zone.find(target.rstrip(".")) or {}
        each = kind if kind in found else "CNAME"
        if each not in found:
            return
        response.answer.append(dns.rrset.from_text(target, TTL_SECONDS, "IN", each, *found[each]))
        if each == kind:
            return
        target = found[each][0]


def _add_targets(zone: Zone, response: dns.message.Message, values: list[str]) -> None:
    for target in dict.fromkeys(value.rsplit(" ", 1)[1] for value in values):
        for kind, addresses in (zone.find(target.rstrip(".")) or {}).items():
            if kind in ("A", "AAAA"):
                response.additional.append(dns.rrset.from_text(target, TTL_SECONDS, "IN", kind, *addresses))


def _start_of_authority(zone: Zone) -> dns.rrset.RRset:
    # The last number is how long a resolver may remember that a name does not exist.
    data = f"ns.dns.{zone.domain}. hostmaster.{zone.domain}. {zone.generation % 2**32} 7200 1800 86400 {TTL_SECONDS}"
    return dns.rrset.from_text(f"{zone.domain}.", TTL_SECONDS, "IN", "SOA", data)
