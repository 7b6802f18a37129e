"""`cutaway trace` tells from the live rules what the packets of the other tests show."""

import pytest

from tests.support.lab_cluster import eventually

from .conftest import service

pytestmark = pytest.mark.root


def test_a_packet_is_followed_from_its_name_to_its_endpoint_and_its_policies(net):
    net.apply(service("traced"))

    def trace():
        return net.cluster.cutaway("trace", f"{net.namespace}/client", "traced:80")

    lines = eventually(lambda: (text := trace()) and "to " in text and text, seconds=10)
    assert f"traced.{net.namespace}.svc.cluster.local is {net.cluster_ip('traced')}" in lines
    assert f"{net.ip('a')}:8080, pod {net.namespace}/a, on node1" in lines
    hop = net.cluster.node_ip("node2")
    assert f"is reached on the same segment by {hop}" in lines
    assert "policy none" in lines
    closed = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "traced"},
        "spec": {"podSelector": {"matchLabels": {"app": "echo"}}},
    }
    net.apply(closed)
    try:
        eventually(lambda: f"{net.namespace}/traced isolate the pod and none allows it" in trace(), seconds=10)
    finally:
        net.delete("networkpolicy", "traced")
    assert "refused" in net.cluster.cutaway("trace", f"{net.namespace}/client", "traced:81")
