"""DNS over UDP and TCP.

Nearly all questions are for addresses of the cluster's own names: `quick.py` answers those from bytes to bytes. Of the
others, which take the long way through `answer.py`, a whole answer is kept under the bytes of its question (all but
the id) and served without being decoded, until the zone changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import Any, cast

import dns.exception
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from machinery.component import logs, metrics
from services.dns import answer as answers
from services.dns import quick
from services.dns.answer import UDP_BYTES_MAX
from services.dns.forward import Forwarder
from services.dns.zone import Zone

log = logs.get("server")

READY_ANSWERS_MAX = 20_000
TCP_CONNECTIONS_MAX = 500
TCP_IDLE_SECONDS = 10.0
IN_WORK_MAX = 5000

requests_total = metrics.counter("coredns_dns_requests_total", "Questions.", ["proto"])
answers_total = metrics.counter("coredns_dns_responses_total", "Answers.", ["rcode"])
no_error, not_there = answers_total.labels("NOERROR"), answers_total.labels("NXDOMAIN")


class Responder:
    """A question's bytes to an answer's bytes, for either transport."""

    def __init__(self, zone: Zone, forwarder: Forwarder, namespaces: set[str]) -> None:
        self.zone = zone
        self.forwarder = forwarder
        self.namespaces = namespaces
        self.ready: dict[bytes, bytes] = {}
        self.ready_generation = -1

    def at_once(self, question: bytes) -> bytes | None:
        """The answer to a datagram that is kept, or made in no time; None if it takes the long way."""
        if self.ready_generation == self.zone.generation:
            rest = self.ready.get(question[2:])
            if rest is not None:
                return question[:2] + rest
        made = quick.answer(self.zone, question, self.namespaces)
        if made is None:
            return None
        (not_there if made[1] else no_error).inc()
        return made[0]

    async def respond(self, question: bytes, *, tcp: bool) -> bytes | None:
        """The answer; None for what is no question at all (nothing is said to a forger)."""
        try:
            query = dns.message.from_wire(question, ignore_trailing=True)
        except (dns.exception.DNSException, ValueError):
            return _format_error(question)
        if query.flags & dns.flags.QR:
            return None
        bytes_max = 65535 if tcp else _udp_limit(query)
        if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
            refusal = dns.message.make_response(query)
            refusal.set_rcode(dns.rcode.NOTIMP if query.opcode() != dns.opcode.QUERY else dns.rcode.FORMERR)
            return refusal.to_wire(max_size=bytes_max)
        name = query.question[0].name.to_text(omit_final_dot=True).lower()
        if query.question[0].rdclass == dns.rdataclass.IN and self._is_ours(name):
            return await self._cluster_answer(question, query, name, bytes_max, tcp=tcp)
        response = await self.forwarder.resolve(query, name)
        return _wire(response, bytes_max)

    def _is_ours(self, name: str) -> bool:
        return self.zone.is_ours(name)

    async def _cluster_answer(
        self, question: bytes, query: dns.message.Message, name: str, bytes_max: int, *, tcp: bool
    ) -> bytes:
        generation = self.zone.generation
        response = answers.answer(self.zone, query, name, self.namespaces)
        target = answers.external_target(response, self.zone)
        if target is not None and query.question[0].rdtype != dns.rdatatype.CNAME:
            onward = dns.message.make_query(target, query.question[0].rdtype)
            response.answer += (await self.forwarder.resolve(onward, target)).answer
            return _wire(response, bytes_max)
        wire = _wire(response, bytes_max)
        # Several addresses are shuffled anew for each client, so only a single answer is kept.
        if not tcp and all(len(rrset) == 1 for rrset in response.answer):
            self._keep(question, wire, generation)
        return wire

    def _keep(self, question: bytes, wire: bytes, generation: int) -> None:
        if self.ready_generation != generation or len(self.ready) >= READY_ANSWERS_MAX:
            self.ready.clear()
            self.ready_generation = generation
        self.ready[question[2:]] = wire[2:]


def _udp_limit(query: dns.message.Message) -> int:
    return (
        quick.PLAIN_UDP_BYTES_MAX
        if query.edns < 0
        else max(quick.PLAIN_UDP_BYTES_MAX, min(query.payload, UDP_BYTES_MAX))
    )


def _wire(response: dns.message.Message, bytes_max: int) -> bytes:
    answers_total.labels(dns.rcode.to_text(response.rcode())).inc()
    try:
        return response.to_wire(max_size=bytes_max)
    except dns.exception.TooBig:
        # The client asks again over TCP.
        response.answer.clear()
        response.authority.clear()
        response.additional.clear()
        response.flags |= dns.flags.TC
        return response.to_wire(max_size=bytes_max)


def _format_error(question: bytes) -> bytes | None:
    if len(question) < 12 or question[2] & 0x80:
        return None
    return question[:2] + bytes([0x80 | question[2] & 0x79, dns.rcode.FORMERR]) + bytes(8)


class Udp(asyncio.DatagramProtocol):
    """Answers datagrams; what is ready goes out in the same turn of the loop."""

    def __init__(self, responder: Responder, tasks: asyncio.TaskGroup) -> None:
        self.responder = responder
        self.tasks = tasks
        self.in_work = 0
        self.counted = requests_total.labels("udp")
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        # uvloop's transport is one by its methods, not by its class.
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer at once or in a task of its own; over the bound, the question is dropped and the client asks again."""
        self.counted.inc()
        ready = self.responder.at_once(data)
        if ready is not None:
            self.transport.sendto(ready, addr)
        elif self.in_work < IN_WORK_MAX:
            self.in_work += 1
            self.tasks.create_task(self._answer(data, addr), name="answer")

    async def _answer(self, data: bytes, addr: Any) -> None:
        try:
            wire = await self.responder.respond(data, tcp=False)
            if wire is not None:
                self.transport.sendto(wire, addr)
        except Exception as error:  # One odd question must not end the server.
            log.error("question not answered", question=data[:64].hex(), exc_info=error)
        finally:
            self.in_work -= 1


class Tcp:
    """Answers over TCP, several questions a connection (RFC 7766)."""

    def __init__(self, responder: Responder) -> None:
        self.responder = responder
        self.connections = 0
        self.counted = requests_total.labels("tcp")

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it is idle for 10 s."""
        if self.connections >= TCP_CONNECTIONS_MAX:
            writer.close()
            return
        self.connections += 1
        try:
            with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError, ConnectionError):
                while True:
                    async with asyncio.timeout(TCP_IDLE_SECONDS):
                        (length,) = struct.unpack("!H", await reader.readexactly(2))
                        question = await reader.readexactly(length)
                    self.counted.inc()
                    wire = await self.responder.respond(question, tcp=True)
                    if wire is None:
                        return
                    writer.write(struct.pack("!H", len(wire)) + wire)
                    await writer.drain()
        finally:
            self.connections -= 1
            writer.close()
