"""A load balancer's address answers this host, which is outside the cluster, and moves when its node is cut off."""

import json
import socket

import pytest

from tests.support.lab_cluster import eventually

from .conftest import http_get, service

pytestmark = pytest.mark.root
# How many addresses `cutaway up` gives out: .200 to .250 of its segment.
POOL = 51


def test_an_address_of_the_pool_answers_from_outside_and_moves_with_a_cut_cable(net):
    net.apply(service("balanced", type="LoadBalancer"))

    def address():
        return net.get("service", "balanced")["status"]["loadBalancer"]["ingress"][0]["ip"]

    ip = eventually(address, seconds=10)
    eventually(lambda: http_get(ip, 80), seconds=15)
    holder = eventually(lambda: _holder(net, ip), seconds=10)
    other = {"node1": "node2", "node2": "node1"}[holder]
    net.cluster.cutaway("node", "cut", holder)
    try:
        eventually(lambda: _holder(net, ip, (other,)) == other, seconds=20)
        # The endpoint on the node that is cut off is still in the rules; the one here answers.
        eventually(lambda: http_get(ip, 80, timeout=1), seconds=20)
    finally:
        net.cluster.cutaway("node", "heal", holder)
    eventually(lambda: not _has(net, other, ip) and _has(net, holder, ip), seconds=30)
    eventually(lambda: [http_get(ip, 80) for _ in range(5)], seconds=20)


def _address(net, name):
    return net.get("service", name)["status"].get("loadBalancer", {}).get("ingress", [{}])[0].get("ip", "")


def _answers(ip, port=80):
    try:
        return bool(http_get(ip, port, timeout=1))
    except OSError:
        return False


def test_source_ranges_let_in_only_who_is_in_them_and_no_node_port_is_taken_unasked(net):
    net.apply(
        service(
            "ranged",
            type="LoadBalancer",
            allocateLoadBalancerNodePorts=False,
            loadBalancerSourceRanges=["192.0.2.0/24"],
        )
    )
    ip = eventually(lambda: _address(net, "ranged"), seconds=10)
    assert "nodePort" not in net.get("service", "ranged")["spec"]["ports"][0]
    eventually(lambda: _holder(net, ip), seconds=10)
    assert not _answers(ip)
    patch = {"spec": {"loadBalancerSourceRanges": ["192.0.2.0/24", f"{_own_address(ip)}/32"]}}
    net.cluster.kubectl("patch", "-n", net.namespace, "service", "ranged", "-p", json.dumps(patch))
    eventually(lambda: _answers(ip), seconds=10)
    net.delete("service", "ranged")
    eventually(lambda: not _holder(net, ip), seconds=10)
    assert not _answers(ip)


def test_a_class_of_somebody_else_s_is_left_to_them(net):
    net.apply(
        service("classed", type="LoadBalancer", loadBalancerClass="example.com/other"),
        service("ours", type="LoadBalancer"),
    )
    # The one that came after it was served: it was seen, and passed over.
    eventually(lambda: _address(net, "ours"), seconds=10)
    assert _address(net, "classed") == ""
    net.delete("service", "classed", "ours")


def test_an_exhausted_pool_is_told_by_an_event_and_the_next_free_address_is_given(net):
    many = [f"many-{n}" for n in range(POOL + 1)]
    net.apply(*(service(name, type="LoadBalancer", allocateLoadBalancerNodePorts=False) for name in many))

    def without():
        listed = net.get("services")["items"]
        return [
            s["metadata"]["name"] for s in listed if s["metadata"]["name"] in many and not s["status"]["loadBalancer"]
        ]

    def told():
        events = net.get("events")["items"]
        return {e["involvedObject"]["name"] for e in events if "no load balancer address is free" in e["message"]}

    eventually(lambda: len(without()) < POOL, seconds=20)
    waiting = eventually(lambda: without() and told() >= set(without()) and without(), seconds=20)
    served = next(name for name in many if name not in waiting)
    ip = _address(net, served)
    net.delete("service", served)
    eventually(lambda: len(without()) == len(waiting) - 1, seconds=20)
    assert ip in {_address(net, name) for name in waiting}
    net.delete("service", *(name for name in many if name != served))


def _own_address(ip):
    """The address that this host speaks from to another one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unsent:
        unsent.connect((ip, 9))
        return unsent.getsockname()[0]


def _has(net, node, ip):
    from lab import network
    from tests.support.netns import run_in

    return ip in run_in(network.pin_path(int(net.cluster.environment["CUTAWAY_SLOT"]), node), "ip", "-4", "address")


def _holder(net, ip, nodes=("node1", "node2")):
    return next((node for node in nodes if _has(net, node, ip)), "")
