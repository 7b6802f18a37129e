"""The commonest answers, straight from the question's bytes to the answer's: addresses, and that there are none. Pure.

`answer.py` says what an answer must be, for every question; this module makes the same one for what nearly all
questions are (A and AAAA of the cluster's own names, RFC 1035 section 4), about ten times as fast, and gives up (None)
at anything else: then the long way is taken.
"""

from __future__ import annotations

import random
import socket
import struct
from functools import lru_cache

from services.dns.answer import TTL_SECONDS, UDP_BYTES_MAX, pod_records
from services.dns.zone import Zone

PLAIN_UDP_BYTES_MAX = 512
_KINDS = {b"\x00\x01\x00\x01": ("A", socket.AF_INET), b"\x00\x1c\x00\x01": ("AAAA", socket.AF_INET6)}
# Response, authoritative; recursion is available.
_FLAGS = 0x8480
_RECURSION_DESIRED = 0x0100
NXDOMAIN = 3
_OPT = b"\x00" + struct.pack("!HHIH", 41, UDP_BYTES_MAX, 0, 0)
_OPT_DNSSEC = b"\x00" + struct.pack("!HHIH", 41, UDP_BYTES_MAX, 0x8000, 0)


def answer(zone: Zone, question: bytes, namespaces: frozenset[str] | set[str]) -> tuple[bytes, int] | None:
    """The whole answer to a datagram and its rcode; None if it has to be made the long way."""
    # One question, nothing else but perhaps EDNS; no response, no other opcode, not cut off.
    if len(question) < 17 or question[2] & 0xFA or question[4:10] != b"\x00\x01\x00\x00\x00\x00":
        return None
    parsed = _name(question)
    if parsed is None:
        return None
    name, end = parsed
    kind = _KINDS.get(question[end : end + 4])
    end += 4
    edns = _edns(question, end)
    if kind is None or edns is None or not zone.is_ours(name):
        return None
    opt, bytes_max = edns
    found = pod_records(zone, name, namespaces)
    if found is None:
        found = zone.find(name)
    addresses = found.get(kind[0], ()) if found else ()
    if found and not addresses and "CNAME" in found:
        return None
    rcode = NXDOMAIN if found is None else 0
    values = [socket.inet_pton(kind[1], address) for address in addresses]
    # A client that takes the first address must not always take the same one.
    random.shuffle(values)
    # The owner of each is the question's name, which stands at byte 12.
    head = b"\xc0\x0c" + question[end - 4 : end] + struct.pack("!I", TTL_SECONDS)
    records = b"".join(head + len(value).to_bytes(2, "big") + value for value in values)
    if not values:
        records = _start_of_authority(zone.domain, zone.generation % 2**32)
    flags = _FLAGS | (int.from_bytes(question[2:4], "big") & _RECURSION_DESIRED) | rcode
    counts = struct.pack("!HHHHH", flags, 1, len(values), 0 if values else 1, 1 if opt else 0)
    whole = question[:2] + counts + question[12:end] + records + opt
    return (whole, rcode) if len(whole) <= bytes_max else None


def _name(question: bytes) -> tuple[str, int] | None:
    """The question's name in lower case, and where it ends; None for what is odd."""
    at, labels = 12, []
    while at < len(question) and (length := question[at]):
        if length > 63:
            return None
        labels.append(question[at + 1 : at + 1 + length])
        at += 1 + length
    # A dot within a label would be taken for one between two.
    if at + 5 > len(question) or at > 266 or any(b"." in label for label in labels):
        return None
    try:
        return b".".join(labels).decode("ascii").lower(), at + 1
    except UnicodeDecodeError:
        return None


def _edns(question: bytes, end: int) -> tuple[bytes, int] | None:
    """The OPT record to answer with and the bytes that the client takes (RFC 6891); None for what is odd."""
    count = question[10:12]
    if count == b"\x00\x00":
        return (b"", PLAIN_UDP_BYTES_MAX) if end == len(question) else None
    if count != b"\x00\x01" or len(question) < end + 11 or question[end : end + 3] != b"\x00\x00\x29":
        return None
    payload, extended, version, flags, length = struct.unpack("!HBBHH", question[end + 3 : end + 11])
    if extended or version or end + 11 + length != len(question):
        return None
    limit = max(PLAIN_UDP_BYTES_MAX, min(payload, UDP_BYTES_MAX))
    return (_OPT_DNSSEC if flags & 0x8000 else _OPT), limit


@lru_cache(maxsize=4)
def _start_of_authority(domain: str, serial: int) -> bytes:
    """The SOA record of `answer.py`, without compression."""
    owner = _labels(domain)
    numbers = struct.pack("!IIIII", serial, 7200, 1800, 86400, TTL_SECONDS)
    data = _labels(f"ns.dns.{domain}") + _labels(f"hostmaster.{domain}") + numbers
    return owner + struct.pack("!HHIH", 6, 1, TTL_SECONDS, len(data)) + data


def _labels(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\x00"
