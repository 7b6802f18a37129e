"""What the rules of a Service must be."""

import pytest

from services.kube_proxy import ruleset
from services.kube_proxy.ruleset import Endpoint, Settings
from tests.support.service_objects import BROKEN, ENDING, READY, pieces, service

SETTINGS = Settings(node="n1", cluster_cidr="10.244.0.0/16")
HERE, THERE = ("10.244.0.2", "n1", READY), ("10.244.1.2", "n2", READY)
NODE_PORT = {"type": "NodePort", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]}


def rules(which, slices, zone=""):
    return ruleset.service_ports(which, slices, SETTINGS, zone)


def outcomes(port):
    return {(frontend.ip or "node", frontend.port): frontend.outcome for frontend in port.frontends}


def ips(ends):
    return [end.ip for end in ends]


@pytest.mark.parametrize(
    "spec",
    [
        {"clusterIP": "None"},
        {"type": "ExternalName"},
        {"labels": {ruleset.PROXY_NAME_LABEL: "other"}},
        {"labels": {ruleset.HEADLESS_LABEL: ""}},
    ],
)
def test_headless_external_and_foreign_services_are_left_alone(spec):
    assert rules(service(**spec), pieces(HERE)) == []


def test_a_cluster_ip_is_balanced_among_the_ready_endpoints_of_all_nodes():
    (port,) = rules(service(), pieces(HERE, THERE, ("10.244.0.9", "n1", BROKEN)))
    assert outcomes(port) == {("10.96.0.5", 80): "balance"}
    expected = (Endpoint("10.244.0.2", 8080, "n1"), Endpoint("10.244.1.2", 8080, "n2"))
    assert port.frontends[0].endpoints == expected


def test_without_endpoints_the_caller_is_told_at_once():
    (port,) = rules(service(type="NodePort", ports=[{"port": 80, "nodePort": 30080}]), [])
    assert outcomes(port) == {("10.96.0.5", 80): "reject", ("node", 30080): "reject"}


def test_a_slice_with_the_label_of_headless_services_is_not_served():
    (piece,) = pieces(HERE)
    assert rules(service(), [piece])[0].endpoints
    piece.metadata.labels |= {ruleset.HEADLESS_LABEL: ""}
    assert rules(service(), [piece])[0].endpoints == ()


def test_terminating_endpoints_serve_only_while_no_ready_one_is_left():
    ending = ("10.244.0.3", "n1", ENDING)
    (port,) = rules(service(), pieces(HERE, ending))
    assert ips(port.endpoints) == ["10.244.0.2"]
    assert port.serving == frozenset(), "only UDP flows outlive an endpoint without a word"
    (port,) = rules(service(), pieces(ending))
    assert ips(port.endpoints) == ["10.244.0.3"]


def test_a_local_external_policy_keeps_the_source_and_tells_pods_from_others():
    (port,) = rules(service(**NODE_PORT, externalTrafficPolicy="Local"), pieces(HERE, THERE))
    node = next(f for f in port.frontends if f.kind == "node")
    assert ips(node.local) == ["10.244.0.2"]
    assert ips(node.endpoints) == ["10.244.0.2", "10.244.1.2"]
    (port,) = rules(service(**NODE_PORT, externalTrafficPolicy="Local"), pieces(THERE))
    assert next(f for f in port.frontends if f.kind == "node").local == ()


def test_a_local_internal_policy_never_leaves_the_node():
    (port,) = rules(service(internalTrafficPolicy="Local"), pieces(HERE, THERE))
    assert ips(port.frontends[0].endpoints) == ["10.244.0.2"]
    (port,) = rules(service(internalTrafficPolicy="Local"), pieces(THERE))
    assert outcomes(port) == {("10.96.0.5", 80): "drop"}


def test_outside_packets_are_masqueraded_and_pods_packets_to_the_cluster_ip_are_not():
    (port,) = rules(service(**NODE_PORT), pieces(HERE))
    assert {f.kind: f.masquerade for f in port.frontends} == {"cluster": "outside", "node": "always"}


def test_load_balancer_addresses_obey_their_source_ranges():
    spec = {
        "type": "LoadBalancer",
        "loadBalancerSourceRanges": ["192.0.2.0/24"],
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}, {"ip": "203.0.113.2", "ipMode": "Proxy"}]}},
    }
    (port,) = rules(service(**spec), pieces(HERE))
    balanced = [f for f in port.frontends if f.kind == "balancer"]
    assert [(f.ip, f.source_ranges) for f in balanced] == [("203.0.113.1", ("192.0.2.0/24",))]
    # Ranges of the other family do not open this one to everybody.
    (port,) = rules(service(**{**spec, "loadBalancerSourceRanges": ["2001:db8::/64"]}), pieces(HERE))
    assert [(f.outcome, f.endpoints) for f in port.frontends if f.kind == "balancer"] == [("drop", ())]


def test_affinity_has_its_timeout_and_its_default():
    (port,) = rules(service(sessionAffinity="ClientIP"), pieces(HERE))
    assert port.affinity_seconds == 10800
    config = {"clientIP": {"timeoutSeconds": 60}}
    (port,) = rules(service(sessionAffinity="ClientIP", sessionAffinityConfig=config), pieces(HERE))
    assert port.affinity_seconds == 60


def test_a_slice_serves_only_the_port_of_its_name():
    assert outcomes(rules(service(), pieces(HERE, name="other"))[0]) == {("10.96.0.5", 80): "reject"}


def test_hints_keep_traffic_near_as_long_as_every_endpoint_has_one():
    hints = {"10.244.0.2": {"forZones": [{"name": "a"}]}, "10.244.1.2": {"forZones": [{"name": "b"}]}}
    near = pieces(HERE, THERE, hints=hints)
    assert ips(rules(service(), near, "b")[0].frontends[0].endpoints) == ["10.244.1.2"]
    assert len(rules(service(), near, "c")[0].frontends[0].endpoints) == 2
    assert len(rules(service(), near)[0].frontends[0].endpoints) == 2
    hints["10.244.0.2"] = {}
    assert len(rules(service(), pieces(HERE, THERE, hints=hints), "b")[0].frontends[0].endpoints) == 2


def test_long_names_make_chain_names_that_nft_takes_and_that_differ():
    long, other = service("a" * 63), service("a" * 62 + "c")
    long.metadata.namespace = other.metadata.namespace = "b" * 63
    (first,), (second,) = rules(long, pieces(HERE)), rules(other, pieces(HERE))
    assert first.chain_stem != second.chain_stem
    assert len(first.chain_stem) <= 96
