"""Who answers for a load balancer's address."""

import msgspec

from services.kube_proxy import announce, api
from tests.support.service_objects import BROKEN, READY, pieces, service

ADDRESS = "10.197.0.200"
NODES = {"n1": "10.197.0.11", "n2": "10.197.0.12", "n3": "10.197.0.13"}


def balanced(**spec):
    return service(type="LoadBalancer", status={"loadBalancer": {"ingress": [{"ip": ADDRESS}]}}, **spec)


def test_every_address_has_one_order_and_a_lost_node_moves_only_its_own():
    addresses = [f"10.197.0.{n}" for n in range(200, 250)]
    first = {a: announce.ranking(a, NODES)[0] for a in addresses}
    assert set(first.values()) == set(NODES)
    without = {a: announce.ranking(a, ["n1", "n2"])[0] for a in addresses}
    assert all(without[a] == first[a] for a in addresses if first[a] != "n3")


def test_a_local_policy_is_answered_only_where_there_are_ready_endpoints():
    slices = pieces(("10.244.0.2", "n2", READY), ("10.244.0.3", "n3", BROKEN))
    local = balanced(externalTrafficPolicy="Local")
    assert announce.speakers([local], lambda _: slices, NODES) == {ADDRESS: ["n2"]}
    assert set(announce.speakers([balanced()], lambda _: slices, NODES)[ADDRESS]) == set(NODES)


def test_services_of_another_class_or_type_are_not_ours():
    assert announce.speakers([service(), balanced(loadBalancerClass="x.io/y")], lambda _: [], NODES) == {}


def test_nodes_that_are_not_ready_or_excluded_do_not_speak():
    def node(name, ready="True", labels=None):
        status = {
            "addresses": [{"type": "InternalIP", "address": NODES[name]}],
            "conditions": [{"type": "Ready", "status": ready}],
        }
        return msgspec.convert({"metadata": {"name": name, "labels": labels or {}}, "status": status}, api.Node)

    excluded = {announce.EXCLUDED_LABEL: ""}
    assert announce.ready_nodes([node("n1"), node("n2", "Unknown"), node("n3", labels=excluded)]) == {"n1": NODES["n1"]}


def test_an_arp_packet_is_as_the_rfc_has_it():
    packet = announce.arp(1, bytes.fromhex("020000000001"), "10.0.0.1", "10.0.0.2")
    assert packet.hex() == "ffffffffffff020000000001080600010800060400010200000000010a0000010000000000000a000002"
