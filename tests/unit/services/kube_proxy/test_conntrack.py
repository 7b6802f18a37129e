"""Which UDP flows the kernel must forget."""

from machinery.api import kinds
from machinery.client.informer import Informer
from services.kube_proxy import conntrack
from services.kube_proxy.conntrack import Flow
from services.kube_proxy.fake_nft import FakeNft
from services.kube_proxy.proxy import Proxy
from services.kube_proxy.ruleset import Settings, service_ports
from tests.support.service_objects import ENDING, READY, pieces, service

LINE = (
    "udp      17 28 src=10.244.0.9 dst=10.96.0.5 sport=4242 dport=80 "
    "src=10.244.0.2 dst=10.244.0.9 sport=8080 dport=4242 mark=0 use=1"
)
SETTINGS = Settings("n1", "10.244.0.0/16")
UDP = [{"name": "dns", "port": 80, "protocol": "UDP", "nodePort": 30053}]


def ports(*endpoints):
    slices = pieces(*endpoints, name="dns", protocol="UDP")
    return service_ports(service(type="NodePort", ports=UDP), slices, Settings("n1", "10.244.0.0/16"))


def test_a_line_of_the_program_is_a_flow():
    flow = conntrack.parse(LINE)
    assert flow == Flow("10.244.0.9", "10.96.0.5", 4242, 80, "10.244.0.2:8080")
    assert conntrack.parse(LINE.replace("dport=80 ", "dport=80 [UNREPLIED] ")) == flow
    assert conntrack.parse("conntrack v1.4.7: 1 flow entries have been shown.") is None


def test_flows_to_serving_and_to_ending_endpoints_stay_and_others_go():
    flow = conntrack.parse(LINE)
    assert conntrack.stale([flow], ports(("10.244.0.2", "n1", READY)), frozenset()) == []
    ending = ports(("10.244.0.2", "n1", ENDING), ("10.244.0.3", "n1", READY))
    assert conntrack.stale([flow], ending, frozenset()) == []
    assert conntrack.stale([flow], ports(("10.244.0.3", "n1", READY)), frozenset()) == [flow]
    assert conntrack.stale([flow], ports(), frozenset()) == [flow]


def test_node_ports_count_at_the_nodes_own_addresses_only():
    flow = Flow("192.0.2.1", "10.197.0.11", 4242, 30053, "10.244.0.7:8080")
    some = ports(("10.244.0.2", "n1", READY))
    assert conntrack.stale([flow], some, frozenset({"10.197.0.11"})) == [flow]
    assert conntrack.stale([flow], some, frozenset()) == []


def test_only_changes_of_who_serves_udp_concern_it():
    one, two = ports(("10.244.0.2", "n1", READY)), ports(("10.244.0.3", "n1", READY))
    before, after = {p.key: p for p in one}, {p.key: p for p in two}
    assert conntrack.concerns(before, after)
    assert conntrack.concerns(before, dict.fromkeys(before))
    assert not conntrack.concerns(before, dict(before))


async def test_services_that_go_while_the_kernel_is_asked_are_judged_as_they_are_then(monkeypatch):
    """The proxy went down here: a Service had gone between the first look at the ports and the answer of the kernel."""
    proxy = Proxy(Informer(None, kinds.SERVICE), Informer(None, kinds.ENDPOINT_SLICE), FakeNft(), SETTINGS)
    for port in ports(("10.244.0.3", "n1", READY)):
        proxy.table.ports[port.key] = port
    deleted = []

    async def program(*arguments):
        if arguments[0] == "-D":
            deleted.append(arguments)
            return ""
        # Meanwhile the flow's endpoint serves again, and another Service is gone.
        proxy.table.ports.clear()
        for port in ports(("10.244.0.2", "n1", READY)):
            proxy.table.ports[f"other/{port.key}"] = port
        return LINE

    monkeypatch.setattr(conntrack, "_conntrack", program)
    assert await conntrack.clear(proxy.udp_ports, frozenset()) == 0
    assert deleted == []
