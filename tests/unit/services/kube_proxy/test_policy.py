"""What NetworkPolicies let through, judged on the plan; and its rules, taken by nft (the fake one here)."""

import pytest

from services.kube_proxy.fake_nft import FakeNft
from services.kube_proxy.policy import render
from services.kube_proxy.policy.plan import Plan, judge, plan
from tests.support.policy_objects import NAMESPACES, pod, policy

CIDR = "10.244.0.0/24"


SERVER = pod("server", "10.244.0.2", ports=[("web", 8080)])
CLIENT = pod("client", "10.244.0.3")
OTHER = pod("other", "10.244.1.4", namespace="y", node="n2")
PODS = [SERVER, CLIENT, OTHER]


def may(policies, source, destination, port=8080, protocol="TCP", pods=PODS):
    return all(
        v.allowed for v in judge(plan(policies, pods, NAMESPACES, "n1", CIDR), source, destination, port, protocol)
    )


def ingress(*peers, ports=None):
    rule = ({"from": list(peers)} if peers else {}) | ({"ports": ports} if ports else {})
    return policy(podSelector={"matchLabels": {"app": "server"}}, ingress=[rule])


def test_without_policies_there_is_nothing_to_enforce_and_nothing_is_held():
    assert plan([], PODS, NAMESPACES, "n1", CIDR) == Plan()


def test_a_policy_without_rules_isolates_just_the_pods_that_it_selects():
    only = [policy(podSelector={"matchLabels": {"app": "server"}})]
    assert not may(only, "10.244.0.3", "10.244.0.2")
    assert may(only, "10.244.0.2", "10.244.0.3")
    assert may(only, "10.244.0.2", "192.0.2.1")


@pytest.mark.parametrize(
    ("peer", "same_namespace", "other_namespace"),
    [
        ({"podSelector": {}}, True, False),
        ({"podSelector": {"matchLabels": {"app": "nobody"}}}, False, False),
        ({"namespaceSelector": {}}, True, True),
        ({"namespaceSelector": {"matchLabels": {"team": "y"}}}, False, True),
        ({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "other"}}}, False, True),
        (
            {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["y"]}]}},
            True,
            False,
        ),
        ({"ipBlock": {"cidr": "10.244.0.0/16", "except": ["10.244.1.0/24"]}}, True, False),
    ],
)
def test_peers(peer, same_namespace, other_namespace):
    rules = [ingress(peer)]
    assert may(rules, "10.244.0.3", "10.244.0.2") == same_namespace
    assert may(rules, "10.244.1.4", "10.244.0.2") == other_namespace


@pytest.mark.parametrize(
    ("ports", "allowed"),
    [
        ([{"port": 8080}], {("TCP", 8080)}),
        ([{"port": 8080, "endPort": 8081}], {("TCP", 8080), ("TCP", 8081)}),
        ([{"port": "web"}], {("TCP", 8080)}),
        ([{"port": "nobody"}], set()),
        ([{"protocol": "UDP"}], {("UDP", 8080), ("UDP", 8081)}),
        ([{"protocol": "SCTP", "port": 8081}], {("SCTP", 8081)}),
        (None, {(p, n) for p in ("TCP", "UDP", "SCTP") for n in (8080, 8081)}),
    ],
)
def test_ports(ports, allowed):
    rules = [ingress({"podSelector": {}}, ports=ports)]
    every = [(p, n) for p in ("TCP", "UDP", "SCTP") for n in (8080, 8081)]
    assert {(p, n) for p, n in every if may(rules, "10.244.0.3", "10.244.0.2", n, p)} == allowed


def test_policies_add_up_and_both_sides_must_allow():
    deny_out = policy("out", podSelector={"matchLabels": {"app": "client"}}, policyTypes=["Egress"])
    allow_in = ingress({"podSelector": {}})
    assert not may([deny_out, allow_in], "10.244.0.3", "10.244.0.2")
    to_server = {"to": [{"podSelector": {"matchLabels": {"app": "server"}}}], "ports": [{"port": "web"}]}
    allow_out = policy("out2", podSelector={}, policyTypes=["Egress"], egress=[to_server])
    assert may([deny_out, allow_out, allow_in], "10.244.0.3", "10.244.0.2")
    assert not may([deny_out, allow_out, allow_in], "10.244.0.3", "10.244.0.2", 9090)


def test_an_address_of_this_node_that_nobody_knows_is_held_and_released_with_its_pod():
    rules = [policy("other", namespace="y")]
    assert not may(rules, "10.244.0.9", "192.0.2.1")
    new = [*PODS, pod("new", "10.244.0.9")]
    assert may(rules, "10.244.0.9", "192.0.2.1", pods=new)
    assert not may(rules, "10.244.0.9", "192.0.2.1", pods=[*PODS, pod("done", "10.244.0.9", phase="Succeeded")])


async def test_every_plan_turns_into_every_other_one():
    every = [
        [],
        [policy()],
        [policy(), policy("q", egress=[{"ports": [{"port": "web"}]}])],
        [
            ingress(
                {"podSelector": {}},
                {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
                ports=[{"port": "web"}],
            )
        ],
        [ingress({"namespaceSelector": {}}, ports=[{"port": 1, "endPort": 9}, {"protocol": "SCTP", "port": 7}])],
    ]
    plans = [plan(policies, pods, NAMESPACES, "n1", CIDR) for policies in every for pods in (PODS, PODS[:2])]
    nft = FakeNft()
    await nft.apply(render.adopt(plans[0], await nft.names(render.TABLE)))
    current = plans[0]
    for first in plans:
        for second in plans:
            for wanted in (first, second):
                if transaction := render.difference(current, wanted):
                    await nft.apply(transaction)
                current = wanted
        await nft.apply(render.adopt(first, await nft.names(render.TABLE)))
        table = nft.tables[render.TABLE]
        assert table.chains.keys() == render.objects(first).chains.keys() | render.BASE.keys()
        current = first
