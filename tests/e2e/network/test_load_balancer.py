"""A load balancer's address answers this host, which is outside the cluster, and moves when its node is cut off."""

import pytest

from tests.support.lab_cluster import eventually

from .conftest import http_get, service

pytestmark = pytest.mark.root


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


def _has(net, node, ip):
    from lab import network
    from tests.support.netns import run_in

    return ip in run_in(network.pin_path(int(net.cluster.environment["CUTAWAY_SLOT"]), node), "ip", "-4", "address")


def _holder(net, ip, nodes=("node1", "node2")):
    return next((node for node in nodes if _has(net, node, ip)), "")
