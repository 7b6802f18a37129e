"""NetworkPolicies on real packets: on one node and between two, through Services, for new pods, over a restart."""

import pytest

from tests.support.lab_cluster import eventually

from .conftest import pod, service

pytestmark = pytest.mark.root


def policy(name, selector, **spec):
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": {"matchLabels": selector} if selector else {}} | spec,
    }


@pytest.fixture
def apply(net):
    """Apply policies; they are gone after the test."""
    yield net.apply
    net.delete("networkpolicy", "--all")
    eventually(lambda: net.ask("client", f"{net.ip('a')}:8080"), seconds=10)


def reach(net, source, target, port=8080):
    return bool(net.ask(source, f"{net.ip(target)}:{port}", seconds=1))


def test_isolated_pods_take_only_what_a_policy_allows_on_one_node_and_between_nodes(net, apply):
    apply(policy("closed", {"app": "echo"}))
    eventually(lambda: not reach(net, "client", "a"), seconds=10)
    eventually(lambda: not reach(net, "client", "b"), seconds=10)
    # The kubelet's probes go on, and the pods stay ready.
    apply(
        policy(
            "open",
            {"app": "echo"},
            ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": "web"}]}],
        )
    )
    eventually(lambda: reach(net, "client", "a") and reach(net, "client", "b"), seconds=10)
    assert not reach(net, "a", "b")
    assert all(c["ready"] for name in "ab" for c in net.get("pod", name)["status"]["containerStatuses"])


def test_a_service_is_judged_by_the_pods_behind_it(net, apply):
    net.apply(service("guarded"))
    address = net.cluster_ip("guarded")
    eventually(lambda: net.ask("client", address), seconds=10)
    apply(policy("closed", {"app": "echo"}))
    eventually(lambda: not net.ask("client", address, seconds=1), seconds=10)


def test_egress_is_closed_but_for_names_and_one_pod(net, apply):
    to_a = {"to": [{"ipBlock": {"cidr": f"{net.ip('a')}/32"}}]}
    names = {"ports": [{"protocol": "UDP", "port": 53}]}
    apply(policy("out", {"app": "client"}, policyTypes=["Egress"], egress=[to_a, names]))
    eventually(lambda: not reach(net, "client", "b"), seconds=10)
    assert reach(net, "client", "a")
    assert "10." in net.exec("client", "nslookup", "kubernetes.default.svc.cluster.local")


def test_a_new_pod_is_isolated_from_its_first_packet_and_over_a_restart_of_the_proxy(net, apply):
    apply(policy("closed", {"app": "secret"}, policyTypes=["Ingress", "Egress"]))
    secret = pod("secret", "node1", {"app": "secret"})
    target = f"http://{net.ip('a')}:8080/"
    # It tries from its very first moment, and tells whether it ever got through.
    script = f"for i in 1 2 3 4 5 6 7 8; do timeout 1 wget -qO- {target} && touch /tmp/leak; done; exec sleep 600"
    secret["spec"]["containers"][0]["command"] = ["sh", "-c", script]
    del secret["spec"]["containers"][0]["readinessProbe"]
    net.apply(secret)
    net.wait_ready("secret")
    net.cluster.cutaway("restart", "kube-proxy-node1")
    eventually(lambda: net.cluster.status()["kube-proxy-node1"]["health"] == "ok", seconds=20)
    eventually(lambda: "sleep" in net.exec("secret", "ps"), seconds=20)
    assert net.exec("secret", "sh", "-c", "ls /tmp/leak 2>/dev/null || true").strip() == ""
    net.delete("pod", "secret", "--wait=false")
