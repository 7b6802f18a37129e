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


def test_a_url_is_followed_through_its_ingress_to_the_pods(net):
    backend = {"service": {"name": "paged", "port": {"number": 80}}}
    path = {"path": "/shop", "pathType": "Prefix", "backend": backend}
    ingress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "paged"},
        "spec": {"ingressClassName": "cutaway", "rules": [{"host": "traced.example", "http": {"paths": [path]}}]},
    }
    net.apply(service("paged"), ingress)

    def trace(url):
        return net.cluster.cutaway("trace", f"{net.namespace}/client", url)

    try:
        lines = eventually(
            lambda: (text := trace("http://traced.example/shop/cart")) and "to " in text and text, seconds=15
        )
        assert f"traced.example, /shop (Prefix), by Ingress {net.namespace}/paged: to Service" in lines
        assert f"{net.ip('b')}:8080, pod {net.namespace}/b, on node2" in lines
        assert "no Ingress serves traced.example/other: 404" in trace("http://traced.example/other")
    finally:
        net.delete("ingress", "paged")
