"""What the DNS server answers, by the Kubernetes DNS specification 1.1, from bytes to bytes."""

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machinery.api.service_views import EndpointSlice, Service
from services.dns import quick
from services.dns.forward import Forwarder
from services.dns.records import service_records
from services.dns.server import Responder
from services.dns.zone import Zone

WEB = {"name": "web", "clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}


def service(name, **spec):
    return msgspec.convert({"metadata": {"name": name, "namespace": "d"}, "spec": spec}, Service)


def pieces(*endpoints, family="IPv4"):
    body = {
        "addressType": family,
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }
    return [msgspec.convert(body, EndpointSlice)]


class Upstream(Forwarder):
    """Knows one name outside."""

    async def _ask(self, query, servers):
        name = query.question[0].name.to_text()
        response = dns.message.make_response(query)
        if name == "example.org.":
            response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.1"))
            return response
        return None


@pytest.fixture
def responder():
    zone = Zone("cluster.local")
    ports = WEB["ports"]
    ends = [
        {"addresses": ["10.244.0.2"], "hostname": "db-0", "conditions": {"ready": True}},
        {"addresses": ["10.244.0.3"], "conditions": {"ready": True}},
        {"addresses": ["10.244.0.4"], "conditions": {"ready": False}},
    ]
    for each, slices in (
        (service("web", clusterIP="10.96.0.5", clusterIPs=["10.96.0.5", "fd00::5"], ports=ports), []),
        (service("db", clusterIP="None", ports=ports), pieces(*ends)),
        (service("all", clusterIP="None", publishNotReadyAddresses=True, ports=ports), pieces(*ends)),
        (service("out", type="ExternalName", externalName="example.org"), []),
        (service("alias", type="ExternalName", externalName="web.d.svc.cluster.local"), []),
        (service("ring", type="ExternalName", externalName="ring.d.svc.cluster.local"), []),
        (service("many", clusterIP="None"), pieces(*({"addresses": [f"10.244.9.{n}"]} for n in range(200)))),
    ):
        zone.replace(f"d/{each.metadata.name}", service_records(each, slices, zone.domain))
    return Responder(zone, Upstream(["192.0.2.53"]), {"d"})


async def ask(responder, name, kind="A", *, tcp=False, **options):
    query = dns.message.make_query(name, kind, **options)
    response = dns.message.from_wire(await responder.respond(query.to_wire(), tcp=tcp))
    assert response.id == query.id
    return response


def data(response):
    return sorted(f"{dns.rdatatype.to_text(rrset.rdtype)} {item}" for rrset in response.answer for item in rrset)


SVC = "svc.cluster.local"


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        (f"web.d.{SVC}", "A", ["A 10.96.0.5"]),
        (f"WEB.d.{SVC}", "A", ["A 10.96.0.5"]),
        (f"web.d.{SVC}", "AAAA", ["AAAA fd00::5"]),
        (f"_http._tcp.web.d.{SVC}", "SRV", [f"SRV 0 100 80 web.d.{SVC}."]),
        ("5.0.96.10.in-addr.arpa", "PTR", [f"PTR web.d.{SVC}."]),
        (f"db.d.{SVC}", "A", ["A 10.244.0.2", "A 10.244.0.3"]),
        (f"db-0.db.d.{SVC}", "A", ["A 10.244.0.2"]),
        (f"10-244-0-3.db.d.{SVC}", "A", ["A 10.244.0.3"]),
        ("2.0.244.10.in-addr.arpa", "PTR", [f"PTR db-0.all.d.{SVC}.", f"PTR db-0.db.d.{SVC}."]),
        (f"all.d.{SVC}", "A", ["A 10.244.0.2", "A 10.244.0.3", "A 10.244.0.4"]),
        (f"out.d.{SVC}", "A", ["A 192.0.2.1", "CNAME example.org."]),
        (f"out.d.{SVC}", "CNAME", ["CNAME example.org."]),
        (f"alias.d.{SVC}", "A", ["A 10.96.0.5", f"CNAME web.d.{SVC}."]),
        ("10-244-0-7.d.pod.cluster.local", "A", ["A 10.244.0.7"]),
        ("dns-version.cluster.local", "TXT", ['TXT "1.1.0"']),
        ("example.org", "A", ["A 192.0.2.1"]),
    ],
)
async def test_names_that_exist(responder, name, kind, expected):
    response = await ask(responder, name, kind)
    assert (response.rcode(), data(response)) == (dns.rcode.NOERROR, expected)


@pytest.mark.parametrize(
    ("name", "kind", "rcode"),
    [
        (f"nobody.d.{SVC}", "A", dns.rcode.NXDOMAIN),
        (f"web.elsewhere.{SVC}", "A", dns.rcode.NXDOMAIN),
        ("10-244-0-7.elsewhere.pod.cluster.local", "A", dns.rcode.NXDOMAIN),
        ("nonsense.d.pod.cluster.local", "A", dns.rcode.NXDOMAIN),
        (f"d.{SVC}", "A", dns.rcode.NOERROR),
        (f"web.d.{SVC}", "MX", dns.rcode.NOERROR),
        (f"_tcp.web.d.{SVC}", "A", dns.rcode.NOERROR),
        ("unknown.example", "A", dns.rcode.SERVFAIL),
    ],
)
async def test_what_does_not_exist_is_told_from_what_is_empty(responder, name, kind, rcode):
    response = await ask(responder, name, kind)
    assert (response.rcode(), response.answer) == (rcode, [])
    if rcode != dns.rcode.SERVFAIL:
        assert response.flags & dns.flags.AA
        assert response.authority[0].rdtype == dns.rdatatype.SOA


async def test_a_circle_of_aliases_ends(responder):
    assert (await ask(responder, f"ring.d.{SVC}")).rcode() == dns.rcode.NOERROR


async def test_srv_of_a_headless_service_brings_its_hosts_addresses(responder):
    response = await ask(responder, f"_http._tcp.db.d.{SVC}", "SRV")
    assert len(response.answer[0]) == 2
    assert {rrset[0].to_text() for rrset in response.additional} == {"10.244.0.2", "10.244.0.3"}


async def test_an_answer_that_does_not_fit_is_cut_over_udp_larger_with_edns_and_whole_over_tcp(responder):
    name = f"many.d.{SVC}"
    plain = await ask(responder, name)
    assert plain.flags & dns.flags.TC
    edns = await ask(responder, name, use_edns=0, payload=4096)
    assert edns.flags & dns.flags.TC
    whole = await ask(responder, name, tcp=True)
    assert (len(whole.answer[0]), whole.flags & dns.flags.TC) == (200, 0)


@pytest.mark.parametrize("wire", [b"", b"x", bytes(12), b"\x00" * 11 + b"\xff", bytes(range(64)), b"\xc0\x0c" * 40])
async def test_garbage_is_never_more_than_refused(responder, wire):
    answer = await responder.respond(wire, tcp=False)
    assert answer is None or dns.message.from_wire(answer, question_only=True).rcode() != dns.rcode.NOERROR


async def test_an_answer_is_not_answered(responder):
    response = dns.message.make_response(dns.message.make_query("web", "A"))
    assert await responder.respond(response.to_wire(), tcp=False) is None


def told(wire):
    """What an answer says, whatever the order and the compression."""
    response = dns.message.from_wire(wire)
    sections = [sorted(f"{r.name} {r.ttl} {r.rdtype} {i}".lower() for r in s for i in r) for s in response.sections]
    return response.id, response.rcode(), response.flags, response.edns, response.ednsflags, sections


@pytest.mark.parametrize("options", [{}, {"use_edns": 0}, {"use_edns": 0, "payload": 4096, "want_dnssec": True}])
@pytest.mark.parametrize("kind", ["A", "AAAA"])
@pytest.mark.parametrize(
    "name",
    [f"web.d.{SVC}", f"WeB.d.{SVC}", f"db.d.{SVC}", f"db-0.db.d.{SVC}", f"nobody.d.{SVC}", f"d.{SVC}", SVC,
     "cluster.local", "10-244-0-7.d.pod.cluster.local", "10-244-0-7.x.pod.cluster.local", "d.pod.cluster.local"],
)  # fmt: skip
async def test_the_quick_answer_is_the_long_one(responder, name, kind, options):
    question = dns.message.make_query(name, kind, **options).to_wire()
    wire, rcode = quick.answer(responder.zone, question, responder.namespaces)
    assert rcode == dns.message.from_wire(wire).rcode()
    assert told(wire) == told(await responder.respond(question, tcp=False))


@pytest.mark.parametrize(
    "question",
    [
        dns.message.make_query(f"out.d.{SVC}", "A").to_wire(),
        dns.message.make_query(f"_http._tcp.web.d.{SVC}", "SRV").to_wire(),
        dns.message.make_query("example.org", "A").to_wire(),
        dns.message.make_query(f"many.d.{SVC}", "A").to_wire(),
        dns.message.make_query(f"web.d.{SVC}", "A", rdclass="CH").to_wire(),
        dns.message.make_query(f"web.d.{SVC}", "A", use_edns=1).to_wire(),
        dns.message.make_query(f"web.d.{SVC}", "A").to_wire() + b"x",
    ],
    ids=["alias", "SRV", "elsewhere", "too long", "other class", "other EDNS", "trailing"],
)
def test_what_is_not_common_takes_the_long_way(responder, question):
    assert quick.answer(responder.zone, question, responder.namespaces) is None


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wire=st.binary(max_size=80), cut=st.integers(0, 60), at=st.integers(0, 59), byte=st.integers(0, 255))
def test_no_bytes_break_the_quick_way(responder, wire, cut, at, byte):
    good = bytearray(dns.message.make_query(f"web.d.{SVC}", "A", use_edns=0).to_wire())
    good[at % len(good)] = byte
    for each in (wire, bytes(good), bytes(good[:cut])):
        made = quick.answer(responder.zone, each, responder.namespaces)
        assert made is None or dns.message.from_wire(made[0]).question[0].rdclass == dns.rdataclass.IN


async def test_a_kept_answer_ends_with_the_change_of_its_records(responder):
    question = dns.message.make_query(f"_http._tcp.web.d.{SVC}", "SRV").to_wire()
    first = await responder.respond(question, tcp=False)
    assert responder.at_once(b"\xab\xcd" + question[2:]) == b"\xab\xcd" + first[2:]
    responder.zone.replace("d/web", [])
    assert responder.at_once(question) is None
    assert dns.message.from_wire(await responder.respond(question, tcp=False)).rcode() == dns.rcode.NXDOMAIN


def test_the_zone_forgets_everything_of_what_is_gone():
    zone = Zone("cluster.local")
    names, inner = dict(zone.names), dict(zone.inner)
    zone.replace("d/web", service_records(service("web", clusterIP="10.96.0.5", ports=WEB["ports"]), [], zone.domain))
    zone.replace("d/web", [])
    assert (zone.names, dict(zone.inner)) == (names, inner)


async def test_stub_domains_have_servers_of_their_own_and_answers_are_kept_as_long_as_they_live():
    asked = []

    class Recording(Upstream):
        async def _ask(self, query, servers):
            asked.append((query.question[0].name.to_text(), tuple(servers)))
            return await super()._ask(query, servers)

    now = [0.0]
    forwarder = Recording(["192.0.2.53"], {"corp.example": ["192.0.2.99"]}, clock=lambda: now[0])
    await forwarder.resolve(dns.message.make_query("x.corp.example", "A"), "x.corp.example")
    query = dns.message.make_query("example.org", "A")
    for moment, ttl in ((0, 60), (30, 30), (61, 60)):
        now[0] = moment
        response = await forwarder.resolve(query, "example.org")
        assert response.answer[0].ttl == ttl
    assert asked == [
        ("x.corp.example.", ("192.0.2.99",)),
        ("example.org.", ("192.0.2.53",)),
        ("example.org.", ("192.0.2.53",)),
    ]
