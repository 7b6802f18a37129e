"""Another CNI plugin by configuration, as docs/network.md says: its file in each node's folder, `pod_network: false`.

The plugin is `ptp` with ranges of its own, and the routes between the nodes are made by hand, as its agent would.
"""

import json
import sys

import pytest
import yaml

from lab import network
from tests.e2e.network.conftest import pod, service
from tests.support.lab_cluster import eventually
from tests.support.netns import run_in

pytestmark = pytest.mark.root

NODES = {"node1": "10.199.1.0/24", "node2": "10.199.2.0/24"}
LABELS = {"app": "foreign"}


def conflist(subnet, data):
    ipam = {"type": "host-local", "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": data}
    plugins = [{"type": "ptp", "ipMasq": False, "ipam": ipam}]
    return json.dumps({"cniVersion": "1.0.0", "name": "foreign", "plugins": plugins})


@pytest.fixture
def foreign(net, tmp_path):
    """Both nodes on the other plugin; afterwards as before."""
    cluster, folders = net.cluster, {node: net.cluster.home / "nodes" / node for node in NODES}
    pins = {node: network.pin_path(int(cluster.environment["CUTAWAY_SLOT"]), node) for node in NODES}
    addresses = {node: cluster.node_ip(node) for node in NODES}
    swapped = []
    try:
        for node, subnet in NODES.items():
            (folders[node] / "cni" / "net.d" / "00-foreign.conflist").write_text(conflist(subnet, str(tmp_path / node)))
            other = next(n for n in NODES if n != node)
            run_in(pins[node], "ip", "route", "add", NODES[other], "via", addresses[other])
            config = yaml.safe_load((cluster.home / "config" / f"kube-proxy-{node}.yaml").read_text())
            file = tmp_path / f"{node}.yaml"
            file.write_text(yaml.safe_dump(config | {"pod_network": False}))
            command = [sys.executable, "-m", "services.kube_proxy", "--config", str(file)]
            cluster.cutaway("swap", f"kube-proxy-{node}", "--", *command)
            swapped.append(f"kube-proxy-{node}")
        yield net
    finally:
        net.cluster.kubectl(
            "delete",
            "pods,services,networkpolicies",
            "-n",
            net.namespace,
            "-l",
            "app=foreign",
            "--timeout=60s",
            check=False,
        )
        for node in NODES:
            (folders[node] / "cni" / "net.d" / "00-foreign.conflist").unlink(missing_ok=True)
            other = next(n for n in NODES if n != node)
            run_in(pins[node], "ip", "route", "del", NODES[other])
        for name in swapped:
            cluster.cutaway("swap", name, "--undo")


def test_pods_of_another_plugin_reach_each_other_and_their_services_and_obey_policies(foreign):
    net = foreign
    net.apply(pod("p1", "node1", LABELS), pod("p2", "node2", LABELS))
    net.wait_ready("p1", "p2")
    assert (net.ip("p1").rpartition(".")[0], net.ip("p2").rpartition(".")[0]) == ("10.199.1", "10.199.2")
    # Between the nodes, both ways, each with its own address.
    for client, server in (("p1", "p2"), ("p2", "p1")):
        assert eventually(lambda c=client, s=server: net.ask(c, f"{net.ip(s)}:8080"), seconds=10) == (
            server, net.ip(client),
        )  # fmt: skip
    net.apply(service("foreign", selector=LABELS) | {"metadata": {"name": "foreign", "labels": LABELS}})
    seen = set()
    eventually(lambda: seen.update(net.ask("p1", f"foreign.{net.namespace}")[:1]) or seen == {"p1", "p2"}, seconds=20)
    shut = {"podSelector": {"matchLabels": LABELS}, "policyTypes": ["Ingress"]}
    metadata = {"name": "shut", "labels": LABELS}
    net.apply({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": shut})
    eventually(lambda: not net.ask("p1", f"{net.ip('p2')}:8080", seconds=1), seconds=20)


def test_a_plugin_that_is_not_there_is_told_on_the_pod_and_the_other_nodes_go_on(net):
    file = net.cluster.home / "nodes" / "node2" / "cni" / "net.d" / "00-broken.conflist"
    plugins = [{"type": "ctw-absent"}]
    file.write_text(json.dumps({"cniVersion": "1.0.0", "name": "broken", "plugins": plugins}))
    try:
        net.apply(pod("well", "node1", LABELS), pod("hurt", "node2", LABELS))

        def told():
            found = net.get("events", "--field-selector", "involvedObject.name=hurt,reason=FailedCreatePodSandBox")
            return any("ctw-absent" in event["message"] for event in found["items"])

        eventually(told, seconds=30, what="an event that names the plugin")
        net.wait_ready("well")
        file.unlink()
        # By its own, with the configuration that is there now.
        net.wait_ready("hurt")
    finally:
        file.unlink(missing_ok=True)
        net.delete("pods", "-l", "app=foreign", "--timeout=60s")
