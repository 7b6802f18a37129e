"""What the rules of a Service must be."""

import msgspec
import pytest
from lightkube.models import core_v1, discovery_v1

from services.kube_proxy import ruleset
from services.kube_proxy.ruleset import Endpoint, Settings

SETTINGS = Settings(node="n1", cluster_cidr="10.244.0.0/16")


def service(**spec):
    base = {
        "clusterIP": "10.96.0.5",
        "clusterIPs": ["10.96.0.5"],
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
    }
    status = spec.pop("status", {})
    labels = spec.pop("labels", {})
    body = {"metadata": {"name": "web", "namespace": "d", "labels": labels}, "spec": base | spec, "status": status}
    return msgspec.convert(body, core_v1.Service)


def pieces(*endpoints, port=8080, name="http"):
    body = {
        "addressType": "IPv4",
        "metadata": {"name": "web-1", "namespace": "d"},
        "endpoints": [
            {
                "addresses": [ip],
                "nodeName": node,
                "conditions": dict(zip(("ready", "serving", "terminating"), state, strict=True)),
            }
            for ip, node, state in endpoints
        ],
        "ports": [{"name": name, "port": port, "protocol": "TCP"}],
    }
    return [msgspec.convert(body, discovery_v1.EndpointSlice)]


READY, ENDING, BROKEN = (True, True, False), (False, True, True), (False, False, False)
HERE, THERE = ("10.244.0.2", "n1", READY), ("10.244.1.2", "n2", READY)


def rules(which, slices):
    return ruleset.service_ports(which, slices, SETTINGS)


def outcomes(port):
    return {(frontend.ip or "node", frontend.port): frontend.outcome for frontend in port.frontends}


@pytest.mark.parametrize(
    "spec", [{"clusterIP": "None"}, {"type": "ExternalName"}, {"labels": {ruleset.PROXY_NAME_LABEL: "other"}}]
)
def test_headless_external_and_foreign_services_are_left_alone(spec):
    assert rules(service(**spec), pieces(HERE)) == []


def test_a_cluster_ip_is_balanced_among_the_ready_endpoints_of_all_nodes():
    (port,) = rules(service(), pieces(HERE, THERE, ("10.244.0.9", "n1", BROKEN)))
    assert outcomes(port) == {("10.96.0.5", 80): "balance"}
    assert port.balancers[0].endpoints == (Endpoint("10.244.0.2", 8080, "n1"), Endpoint("10.244.1.2", 8080, "n2"))


def test_without_endpoints_the_caller_is_told_at_once():
    (port,) = rules(service(type="NodePort", ports=[{"port": 80, "nodePort": 30080}]), [])
    assert outcomes(port) == {("10.96.0.5", 80): "reject", ("node", 30080): "reject"}
    assert port.balancers == ()


def test_terminating_endpoints_serve_only_while_no_ready_one_is_left():
    ending = ("10.244.0.3", "n1", ENDING)
    (port,) = rules(service(), pieces(HERE, ending))
    assert [end.ip for end in port.endpoints] == ["10.244.0.2"]
    (port,) = rules(service(), pieces(ending))
    assert [end.ip for end in port.endpoints] == ["10.244.0.3"]


def test_a_local_external_policy_keeps_the_source_and_drops_where_no_endpoint_is_local():
    spec = {
        "type": "NodePort",
        "externalTrafficPolicy": "Local",
        "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
    }
    (port,) = rules(service(**spec), pieces(HERE, THERE))
    outside = next(b for b in port.balancers if b.chain.endswith("-ex"))
    assert (outside.endpoints, outside.masquerade) == ((Endpoint("10.244.0.2", 8080, "n1"),), "never")
    (port,) = rules(service(**spec), pieces(THERE))
    assert outcomes(port) == {("10.96.0.5", 80): "balance", ("node", 30080): "drop"}


def test_a_local_internal_policy_never_leaves_the_node():
    (port,) = rules(service(internalTrafficPolicy="Local"), pieces(HERE, THERE))
    assert [end.node for end in port.balancers[0].endpoints] == ["n1"]


def test_outside_packets_are_masqueraded_and_pods_packets_to_the_cluster_ip_are_not():
    (port,) = rules(service(type="NodePort", ports=[{"name": "http", "port": 80, "nodePort": 30080}]), pieces(HERE))
    assert {b.chain[-3:]: b.masquerade for b in port.balancers} == {"-in": "outside", "-ex": "always"}


def test_load_balancer_addresses_obey_their_source_ranges():
    spec = {
        "type": "LoadBalancer",
        "loadBalancerSourceRanges": ["192.0.2.0/24"],
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}},
    }
    (port,) = rules(service(**spec), pieces(HERE))
    assert outcomes(port)[("203.0.113.1", 80)] == "balance"
    assert next(b for b in port.balancers if b.chain.endswith("-lb")).source_ranges == ("192.0.2.0/24",)


def test_affinity_has_its_timeout_and_its_default():
    (port,) = rules(service(sessionAffinity="ClientIP"), pieces(HERE))
    assert port.balancers[0].affinity_seconds == 10800
    config = {"clientIP": {"timeoutSeconds": 60}}
    (port,) = rules(service(sessionAffinity="ClientIP", sessionAffinityConfig=config), pieces(HERE))
    assert port.balancers[0].affinity_seconds == 60


def test_a_slice_serves_only_the_port_of_its_name():
    assert outcomes(rules(service(), pieces(HERE, name="other"))[0]) == {("10.96.0.5", 80): "reject"}


def test_long_names_make_chain_names_that_nft_takes_and_that_differ():
    long = service()
    long.metadata.name, long.metadata.namespace = "a" * 63, "b" * 63
    other = service()
    other.metadata.name, other.metadata.namespace = "a" * 62 + "c", "b" * 63
    (first,), (second,) = rules(long, pieces(HERE)), rules(other, pieces(HERE))
    assert first.balancers[0].chain != second.balancers[0].chain
    assert len(first.balancers[0].chain) <= 96
