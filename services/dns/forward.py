"""Asks upstream servers for names that are not the cluster's, and remembers their answers as long as they allow."""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.rcode

from services.dns.answer import reply_to

ASK_SECONDS = 2.0
CACHE_ENTRIES_MAX = 10_000
CACHE_SECONDS_MAX = 300
NEGATIVE_SECONDS = 5
# More would only wait in the kernel's buffers; the client asks again.
CONCURRENT_MAX = 1000


def system_servers(path: Path = Path("/etc/resolv.conf")) -> list[str]:
    """The name servers of this machine, without loopback ones: in a node's network namespace nobody listens there."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    return [w[1] for w in words if len(w) > 1 and w[0] == "nameserver" and not w[1].startswith("127.") and "." in w[1]]


class Forwarder:
    """Upstream servers, some of them for certain domains only (stub domains), and a bounded cache."""

    def __init__(
        self,
        servers: Sequence[str],
        stub_domains: Mapping[str, Sequence[str]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.servers = list(servers)
        self.stub_domains = {domain.strip(".").lower(): list(those) for domain, those in (stub_domains or {}).items()}
        self.clock = clock
        # Until when, and the answer's bytes: whoever is given an answer may cut it to fit.
        self.cache: OrderedDict[tuple[str, int, int, bool], tuple[float, bytes]] = OrderedDict()
        self.places = asyncio.Semaphore(CONCURRENT_MAX)

    async def resolve(self, query: dns.message.Message, name: str) -> dns.message.Message:
        """An upstream's answer, for this query's id. SERVFAIL if nobody answers."""
        question = query.question[0]
        wants_dnssec = bool(query.ednsflags & dns.flags.DO)
        key = (name, int(question.rdtype), int(question.rdclass), wants_dnssec)
        found = self._recall(key)
        if found is None:
            found = await self._ask(query, self._servers_for(name))
            if found is not None:
                self._remember(key, found)
        reply = reply_to(query)
        if found is None:
            reply.set_rcode(dns.rcode.SERVFAIL)
            return reply
        # The client's own id, question and EDNS: what is kept may be from somebody who asked in another way.
        reply.set_rcode(found.rcode())
        reply.flags |= found.flags & dns.flags.AD if wants_dnssec or query.flags & dns.flags.AD else 0
        reply.answer, reply.authority, reply.additional = found.answer, found.authority, found.additional
        return reply

    def _servers_for(self, name: str) -> list[str]:
        labels = name.split(".")
        for number in range(len(labels)):
            servers = self.stub_domains.get(".".join(labels[number:]))
            if servers is not None:
                return servers
        return self.servers

    async def _ask(self, query: dns.message.Message, servers: Sequence[str]) -> dns.message.Message | None:
        # Loaded by the first question to the world outside: it brings a whole HTTP client with it, for DNS over HTTPS.
        import dns.asyncquery

        # An id of our own: the client's is known to whoever might want to forge an answer.
        copy = dns.message.from_wire(query.to_wire())
        async with self.places:
            for server in servers:
                copy.id = random.SystemRandom().randrange(65536)
                host, _, port = server.partition(":")
                try:
                    response, _ = await dns.asyncquery.udp_with_fallback(
                        copy, host, timeout=ASK_SECONDS, port=int(port or 53)
                    )
                except (dns.exception.DNSException, OSError):
                    continue
                if response.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                    return response
        return None

    def _recall(self, key: tuple[str, int, int, bool]) -> dns.message.Message | None:
        entry = self.cache.get(key)
        if entry is None:
            return None
        expires, wire = entry
        if expires <= self.clock():
            del self.cache[key]
            return None
        self.cache.move_to_end(key)
        copy = dns.message.from_wire(wire)
        left = int(expires - self.clock())
        for section in (copy.answer, copy.authority):
            for rrset in section:
                rrset.ttl = min(rrset.ttl, left)
        return copy

    def _remember(self, key: tuple[str, int, int, bool], response: dns.message.Message) -> None:
        ttls = [rrset.ttl for rrset in response.answer]
        seconds = min([*ttls, CACHE_SECONDS_MAX]) if ttls else NEGATIVE_SECONDS
        if seconds > 0:
            self.cache[key] = (self.clock() + seconds, response.to_wire(max_size=65535))
            while len(self.cache) > CACHE_ENTRIES_MAX:
                self.cache.popitem(last=False)
