"""How other nodes' pods are reached."""

import ipaddress

import msgspec
import pytest

from services.kube_proxy import api, network, ranges
from services.kube_proxy.network import Hop
from services.kube_proxy.trace import route_steps

SEGMENT = [ipaddress.IPv4Network("10.197.0.0/24")]


def node(name, ip, cidr):
    status = {"addresses": [{"type": "InternalIP", "address": ip}]} if ip else {}
    return msgspec.convert({"metadata": {"name": name}, "spec": {"podCIDR": cidr}, "status": status}, api.Node)


def test_neighbours_have_a_route_and_others_a_tunnel():
    nodes = [
        node("n1", "10.197.0.11", "10.244.0.0/24"),
        node("n2", "10.197.0.12", "10.244.1.0/24"),
        node("n3", "192.0.2.3", "10.244.2.0/24"),
        node("new", "", "10.244.3.0/24"),
        node("bare", "10.197.0.13", None),
    ]
    assert network.hops(nodes, "n1", SEGMENT) == {
        "10.244.1.0/24": Hop("10.197.0.12"),
        "10.244.2.0/24": Hop("192.0.2.3", vxlan=True),
    }


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([("n1", "10.197.0.11", "10.244.0.0/24"), ("n2", "10.197.0.12", "10.244.1.0/24")], {}),
        (
            [("n1", "10.197.0.11", "10.244.0.0/24"), ("n2", "10.197.0.12", "10.244.0.0/24")],
            {"n2": "spec.podCIDR: 10.244.0.0/24 overlaps 10.244.0.0/24 of node n1"},
        ),
        (
            [("n1", "10.197.0.11", "10.244.4.0/24"), ("n2", "10.197.0.12", "10.244.0.0/16"),
             ("n3", "10.197.0.13", "10.244.0.0/24")],
            {"n2": "spec.podCIDR: 10.244.0.0/16 overlaps 10.244.4.0/24 of node n1"},
        ),
        (
            [("n1", "10.197.0.11", "10.244.0.0/24"), ("n2", "10.197.0.12", "10.197.0.0/28")],
            {"n2": "spec.podCIDR: 10.197.0.0/28 holds 10.197.0.11, the address of n1"},
        ),
    ],
)  # fmt: skip
def test_a_range_that_is_in_anothers_way_is_refused(nodes, expected):
    every = [node(*each) for each in nodes]
    assert ranges.refused(every) == expected
    assert ranges.refused(reversed(every)) == expected
    routed = {name for name, _, cidr in nodes if cidr in network.hops(every, "other", SEGMENT)}
    assert routed == {name for name, _, _ in nodes} - expected.keys() or len({c for _, _, c in nodes}) < len(nodes)


def test_every_node_works_out_the_same_hardware_address():
    assert network.hardware_address("192.0.2.3") == "0a:58:c0:00:02:03"
    routes, entries = network.commands("replace", "10.244.2.0/24", Hop("192.0.2.3", vxlan=True))
    assert entries == ["fdb replace 0a:58:c0:00:02:03 dev cutaway-vxlan dst 192.0.2.3"]
    assert routes[-1] == "route replace 10.244.2.0/24 via 10.244.2.0 dev cutaway-vxlan proto 99 onlink"
    assert any("mtu 1450" in line for line in network.vxlan_device("192.0.2.3", "10.244.2.0/24", 1500))


def test_a_neighbours_route_is_removed_as_it_was_set():
    assert network.commands("delete", "10.244.1.0/24", Hop("10.197.0.12"))[0] == [
        "route delete 10.244.1.0/24 via 10.197.0.12 proto 99"
    ]


def test_a_trace_tells_the_hop_to_each_other_node_once():
    routes = {"10.244.1.0/24": Hop("10.197.0.12"), "10.244.2.0/24": Hop("192.0.2.3", vxlan=True)}
    steps = route_steps(["10.244.0.7", "10.244.1.4", "10.244.1.5", "10.244.2.9", "192.0.2.9"], routes)
    assert [step.action for step in steps] == [
        "10.244.1.0/24 is reached on the same segment by 10.197.0.12",
        "10.244.2.0/24 is reached in a VXLAN tunnel to 192.0.2.3",
    ]
