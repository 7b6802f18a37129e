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
