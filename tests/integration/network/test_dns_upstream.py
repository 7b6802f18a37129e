"""Names of the world outside, asked of real upstream servers over real sockets (dnspython answers there)."""

import asyncio
import contextlib
import struct

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from services.dns.forward import Forwarder
from services.dns.server import Responder, Tcp, Udp
from services.dns.zone import Zone

# More than a datagram may carry, and more than EDNS allows us to send.
MANY = [f"192.0.2.{n}" for n in range(1, 201)]


class Upstream:
    """A server that knows some names, on UDP and TCP of one loopback port; `asked` has what came, by transport."""

    def __init__(self, records, rcode=dns.rcode.NXDOMAIN):
        self.records, self.rcode = records, rcode
        self.asked = []
        self.edns = []

    def answer(self, wire, transport):
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        self.asked.append((transport, name, dns.rdatatype.to_text(question.rdtype)))
        self.edns.append(query.edns)
        response = dns.message.make_response(query, recursion_available=True)
        found = self.records.get((name, dns.rdatatype.to_text(question.rdtype)))
        if found is None:
            response.set_rcode(self.rcode)
        else:
            response.answer.append(dns.rrset.from_text(question.name, 60, "IN", question.rdtype, *found))
        if transport == "udp" and len(response.to_wire(max_size=65535)) > 512:
            response.answer.clear()
            response.flags |= dns.flags.TC
        return response.to_wire(max_size=65535)

    async def converse(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                wire = self.answer(await reader.readexactly(length), "tcp")
                writer.write(struct.pack("!H", len(wire)) + wire)
                await writer.drain()
        writer.close()

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, error):
        pass

    def error_received(self, error):
        pass

    def datagram_received(self, data, addr):
        self.transport.sendto(self.answer(data, "udp"), addr)

    @contextlib.asynccontextmanager
    async def serving(self):
        """host:port of the running server."""
        server = await asyncio.start_server(self.converse, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: self, local_addr=("127.0.0.1", port)
        )
        try:
            yield f"127.0.0.1:{port}"
        finally:
            transport.close()
            server.close()


class Client:
    """Asks our server over the wire."""

    def __init__(self, port):
        self.port = port

    async def ask(self, name, kind="A", *, tcp=False, **options):
        query = dns.message.make_query(name, kind, **options)
        call = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
        return await call(query, "127.0.0.1", timeout=10, port=self.port)


@contextlib.asynccontextmanager
async def our_server(servers, stub_domains=None):
    """Our DNS server with these upstreams."""
    responder = Responder(Zone("cluster.local"), Forwarder(servers, stub_domains), {"default"})
    server = await asyncio.start_server(Tcp(responder).converse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with asyncio.TaskGroup() as tasks:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: Udp(responder, tasks), local_addr=("127.0.0.1", port)
        )
        try:
            yield Client(port)
        finally:
            transport.close()
            server.close()


@pytest.fixture
def world():
    return Upstream({("example.org", "A"): ["192.0.2.1"], ("many.example.org", "A"): MANY})


async def test_a_name_is_asked_upstream_once_and_then_remembered_also_that_it_is_not_there(world):
    async with world.serving() as upstream, our_server([upstream]) as client:
        for _ in range(3):
            response = await client.ask("example.org")
            assert [item.address for item in response.answer[0]] == ["192.0.2.1"]
            assert response.flags & dns.flags.RA
            assert (await client.ask("nobody.example.org")).rcode() == dns.rcode.NXDOMAIN
    assert world.asked == [("udp", "example.org", "A"), ("udp", "nobody.example.org", "A")]


async def test_a_long_answer_is_fetched_over_tcp_and_given_over_tcp(world):
    async with world.serving() as upstream, our_server([upstream]) as client:
        short = await client.ask("many.example.org")
        assert short.flags & dns.flags.TC
        assert not short.answer
        wide = await client.ask("many.example.org", use_edns=0, payload=4096)
        assert wide.flags & dns.flags.TC
        whole = await client.ask("many.example.org", tcp=True)
        assert sorted(item.address for item in whole.answer[0]) == sorted(MANY)
    assert [transport for transport, _, _ in world.asked] == ["udp", "tcp"]


async def test_edns_is_kept_apart_on_both_sides(world):
    async with world.serving() as upstream, our_server([upstream]) as client:
        assert (await client.ask("example.org", use_edns=False)).edns == -1
        with_edns = await client.ask("example.org", use_edns=0, payload=4096)
        assert with_edns.edns == 0
        assert with_edns.payload <= 1232
        # What the cache has of a client without EDNS serves one with it, and the other way round.
        assert (await client.ask("example.org", use_edns=False)).edns == -1


async def test_a_stub_domains_server_is_asked_for_its_names_and_no_other(world):
    corp = Upstream({("db.corp.example", "A"): ["198.51.100.7"]})
    async with (
        world.serving() as upstream,
        corp.serving() as own,
        our_server([upstream], {"corp.example": [own]}) as client,
    ):
        assert (await client.ask("db.corp.example")).answer[0][0].address == "198.51.100.7"
        assert (await client.ask("example.org")).answer[0][0].address == "192.0.2.1"
        assert (await client.ask("corp.example")).rcode() == dns.rcode.NXDOMAIN
        assert (await client.ask("mycorp.example")).rcode() == dns.rcode.NXDOMAIN
    assert [name for _, name, _ in corp.asked] == ["db.corp.example", "corp.example"]
    assert [name for _, name, _ in world.asked] == ["example.org", "mycorp.example"]


async def test_the_next_server_is_asked_when_one_fails_or_is_not_there(world):
    broken = Upstream({}, rcode=dns.rcode.SERVFAIL)
    async with world.serving() as upstream, broken.serving() as failing:
        async with our_server(["127.0.0.1:1", failing, upstream]) as client:
            assert (await client.ask("example.org")).answer[0][0].address == "192.0.2.1"
        async with our_server([failing]) as client:
            assert (await client.ask("example.org")).rcode() == dns.rcode.SERVFAIL


async def test_the_clusters_names_never_go_upstream(world):
    async with world.serving() as upstream, our_server([upstream]) as client:
        assert (await client.ask("nobody.default.svc.cluster.local")).rcode() == dns.rcode.NXDOMAIN
        assert (await client.ask("dns-version.cluster.local", "TXT")).answer[0][0].strings == (b"1.1.0",)
    assert world.asked == []
