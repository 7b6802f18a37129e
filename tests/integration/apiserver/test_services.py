"""Addresses and node ports: unique, kept, released."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.apiserver_process import ApiServerProcess

SERVICE = "{apiVersion: v1, kind: Service, metadata: {name: %s}, spec: {%s ports: [{port: 80}]}}"


def _spec(server: ApiServerProcess, namespace: str, name: str) -> dict[str, Any]:
    return server.json("get", "svc", name, "-n", namespace)["spec"]


def test_an_address_is_taken_with_the_service_and_freed_with_it(
    server: ApiServerProcess, namespace: str, apply: Callable[[str], str]
) -> None:
    apply(SERVICE % ("a", ""))
    address = _spec(server, namespace, "a")["clusterIP"]
    parent = server.json("get", "ipaddress", address)["spec"]["parentRef"]
    assert (parent["resource"], parent["namespace"], parent["name"]) == ("services", namespace, "a")
    wanted = SERVICE % ("b", f"clusterIP: {address},")
    refused = server.kubectl("apply", "-n", namespace, "-f", "-", stdin=wanted, check=False)
    assert "provided IP is already allocated" in refused.stderr
    server.kubectl("delete", "svc", "a", "-n", namespace)
    apply(wanted)
    assert _spec(server, namespace, "b")["clusterIP"] == address


def test_an_address_outside_the_range_is_refused(server: ApiServerProcess, namespace: str) -> None:
    wanted = SERVICE % ("a", "clusterIP: 192.168.0.1,")
    refused = server.kubectl("apply", "-n", namespace, "-f", "-", stdin=wanted, check=False)
    assert "The range of valid IPs is 10.96.0.0/16" in refused.stderr


def test_another_range_gives_addresses_while_it_is_ready(
    server: ApiServerProcess, namespace: str, apply: Callable[[str], str]
) -> None:
    more = (
        "{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {name: more}, spec: {cidrs: [203.0.113.0/28]}}"
    )
    server.kubectl("apply", "-f", "-", stdin=more)
    try:
        apply(SERVICE % ("a", "clusterIP: 203.0.113.14,"))
        refused = server.kubectl(
            "apply", "-n", namespace, "-f", "-", stdin=SERVICE % ("b", "clusterIP: 203.0.113.15,"), check=False
        )
        # The last address of a range is nobody's.
        assert "The range of valid IPs is 10.96.0.0/16, 203.0.113.0/28" in refused.stderr
        unready = '{"status":{"conditions":[{"type":"Ready","status":"False","reason":"Terminating","message":"",'
        unready += '"lastTransitionTime":"2026-01-01T00:00:00Z"}]}}'
        server.kubectl("patch", "servicecidr", "more", "--subresource=status", "--type=merge", "-p", unready)
        refused = server.kubectl(
            "apply", "-n", namespace, "-f", "-", stdin=SERVICE % ("c", "clusterIP: 203.0.113.13,"), check=False
        )
        assert "The range of valid IPs is 10.96.0.0/16\n" in refused.stderr
        server.kubectl("delete", "svc", "a", "-n", namespace)
    finally:
        server.kubectl("delete", "servicecidr", "more", "--wait=false")


def test_a_node_port_comes_and_goes_with_the_type(
    server: ApiServerProcess, namespace: str, apply: Callable[[str], str]
) -> None:
    apply(SERVICE % ("a", "type: NodePort,"))
    first = _spec(server, namespace, "a")
    port = first["ports"][0]["nodePort"]
    assert 30000 <= port <= 32767
    spec = f"{{type: NodePort, ports: [{{port: 1, nodePort: {port}}}]}}"
    taken = f"{{apiVersion: v1, kind: Service, metadata: {{name: b}}, spec: {spec}}}"
    refused = server.kubectl("apply", "-n", namespace, "-f", "-", stdin=taken, check=False)
    assert f"Invalid value: {port}: provided port is already allocated" in refused.stderr
    server.kubectl("patch", "svc", "a", "-n", namespace, "-p", '{"spec":{"type":"ClusterIP"}}')
    changed = _spec(server, namespace, "a")
    assert "nodePort" not in changed["ports"][0]
    assert changed["clusterIP"] == first["clusterIP"]
    apply(taken)
    assert _spec(server, namespace, "b")["ports"][0]["nodePort"] == port


def test_headless_and_external_names_get_no_address(
    server: ApiServerProcess, namespace: str, apply: Callable[[str], str]
) -> None:
    apply(SERVICE % ("headless", "clusterIP: None, selector: {a: b},"))
    assert _spec(server, namespace, "headless")["clusterIPs"] == ["None"]
    apply(
        "{apiVersion: v1, kind: Service, metadata: {name: ext}, spec: {type: ExternalName, externalName: example.com}}"
    )
    assert "clusterIP" not in _spec(server, namespace, "ext")
