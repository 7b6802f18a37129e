"""The story that the project is for, on three nodes and two masters in containers. The tests run in this order; each
leaves the cluster whole."""

import os
import subprocess

import pytest
import yaml

from tests.support.compose_lab import NODE_IPS, NODES
from tests.support.lab_cluster import ROOT, eventually

# Containers of containers, on whatever machine: what takes long here is the machine, not what is tested.
pytestmark = pytest.mark.timeout(900)

URL = f"http://{NODE_IPS['node1']}:30007/"
INGRESS_URL, HOST = f"http://{NODE_IPS['node2']}/", "web.example"
NAME = "nginx-deployment"


def _manifest():
    documents = list(yaml.safe_load_all((ROOT / "examples" / "web.yaml").read_text()))
    deployment = next(each for each in documents if each["kind"] == "Deployment")
    # So that a node that is cut off loses its pods within seconds, not five minutes.
    spec = deployment["spec"]["template"]["spec"]
    spec["tolerations"] = [
        {"key": f"node.kubernetes.io/{what}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 2}
        for what in ("unreachable", "not-ready")
    ]
    # As for every rolling update on a cluster of any make: a pod serves on until it is taken out of the Service. Ours
    # waits a little by itself, which a machine of two cores with all this on it may overrun.
    spec["containers"][0]["lifecycle"] = {"preStop": {"sleep": {"seconds": 2}}}
    ingress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "web"},
        "spec": {
            "rules": [
                {
                    "host": HOST,
                    "http": {
                        "paths": [
                            {
                                "path": "/",
                                "pathType": "Prefix",
                                "backend": {"service": {"name": "my-nginx-service", "port": {"number": 8080}}},
                            }
                        ]
                    },
                }
            ]
        },
    }
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "nginx"}}},
    }
    return yaml.safe_dump_all([*documents, ingress, budget]).encode()


def _rolled_out(lab, by="apiserver-2"):
    lab.kubectl("rollout", "status", f"deployment/{NAME}", "--timeout=120s", by=by)


def _none_failed(seen, at_least=20):
    assert seen["bad"] == []
    assert seen["good"] >= at_least


@pytest.fixture(scope="module")
def web(lab):
    lab.kubectl("apply", "-f", "-", stdin=_manifest())
    _rolled_out(lab)
    yield lab
    lab.kubectl("delete", "-f", "-", stdin=_manifest())


def test_three_nodes_answer_through_the_service_and_the_ingress(web):
    assert web.ready_nodes() == set(NODES)
    with web.traffic(URL) as seen:
        pass
    _none_failed(seen, 5)
    eventually(lambda: _clean(web, INGRESS_URL, HOST), seconds=60, what="the Ingress answers")


def test_it_scales_updates_and_rolls_back_without_a_failed_request(web):
    with web.traffic(URL) as seen, web.traffic(INGRESS_URL, HOST, by="node3") as by_ingress:
        web.kubectl("scale", f"deployment/{NAME}", "--replicas=6")
        _rolled_out(web)
        web.kubectl("set", "env", f"deployment/{NAME}", "RELEASE=2")
        _rolled_out(web)
        web.kubectl("rollout", "undo", f"deployment/{NAME}")
        _rolled_out(web)
        web.kubectl("scale", f"deployment/{NAME}", "--replicas=3")
        _rolled_out(web)
    _none_failed(seen)
    _none_failed(by_ingress)
    pods = web.get("deployment", NAME)["spec"]["template"]["spec"]["containers"][0]
    assert not any(entry["name"] == "RELEASE" for entry in pods.get("env") or ())


def test_a_drained_node_costs_no_request(web):
    try:
        with web.traffic(URL) as seen:
            web.kubectl("drain", "node2", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=90s")
            _rolled_out(web)
        where = {pod["spec"]["nodeName"] for pod in web.get("pods", "-l", "app=nginx")["items"]}
    finally:
        web.kubectl("uncordon", "node2")
    _none_failed(seen)
    assert "node2" not in where


@pytest.mark.parametrize("dead", ["apiserver-1", "leader of kube-scheduler", "leader of kube-controller-manager"])
def test_a_killed_master_costs_no_request_and_the_other_one_goes_on(web, dead):
    service = web.leader(dead.removeprefix("leader of ")) if dead.startswith("leader") else dead
    with web.traffic(URL) as seen:
        web.compose("kill", "-s", "SIGKILL", service)
        web.kubectl("scale", f"deployment/{NAME}", "--replicas=4")
        _rolled_out(web)
        web.kubectl("scale", f"deployment/{NAME}", "--replicas=3")
        _rolled_out(web)
    _none_failed(seen)
    web.compose("start", service)
    state = ("inspect", "-f", "{{.State.Health.Status}}", web.container(service))
    eventually(lambda: web.docker(*state).strip() == "healthy")


def test_a_node_that_is_cut_off_is_replaced_and_heals(web):
    container = web.container("node3")
    web.docker("network", "disconnect", "cutaway_cluster", container)
    try:
        eventually(lambda: web.ready_nodes() == {"node1", "node2"}, seconds=90, what="node3 is noticed")
        eventually(
            lambda: all(
                pod["spec"]["nodeName"] != "node3" or pod["metadata"].get("deletionTimestamp")
                for pod in web.get("pods", "-l", "app=nginx")["items"]
            ),
            seconds=30, what="its pods are replaced",
        )  # fmt: skip
        _rolled_out(web)
        with web.traffic(URL) as seen:
            web.kubectl("get", "nodes")
        _none_failed(seen, 1)
    finally:
        web.docker("network", "connect", "--ip", NODE_IPS["node3"], "cutaway_cluster", container)
    eventually(lambda: web.ready_nodes() == set(NODES), seconds=60, what="node3 is Ready again")
    _every_node_serves(web)


def _every_node_serves(lab):
    """A pod on each node answers through a Service whose other end is on each node."""
    lab.kubectl("rollout", "restart", f"deployment/{NAME}")
    _rolled_out(lab)
    for node in NODES:
        eventually(lambda node=node: _clean(lab, f"http://{NODE_IPS[node]}:30007/"), seconds=60, what=f"{node} serves")


def _clean(lab, url, host=""):
    with lab.traffic(url, host) as seen:
        pass
    return seen["good"] >= 5 and not seen["bad"]


@pytest.mark.parametrize(
    "service", ["node1", "postgres", "balancer", "apiserver-2", "scheduler-1", "controller-manager-2"]
)
def test_any_container_may_stop_and_start(web, service):
    web.compose("stop", service)
    web.compose("start", service)
    by = "apiserver-1" if service == "apiserver-2" else "apiserver-2"
    eventually(lambda: web.kubectl("get", "--raw", "/readyz", by=by) == "ok", seconds=60)
    eventually(lambda: web.ready_nodes() == set(NODES), seconds=90, what="all nodes are Ready")
    eventually(lambda: _clean(web, URL), seconds=90, what="the Service answers")


def test_an_engine_that_restarts_brings_the_cluster_back(web):

    restart = os.environ.get("LAB_ENGINE_RESTART")
    if not restart:
        pytest.skip("LAB_ENGINE_RESTART names no command that restarts the engine")
    before = _addresses(web)
    subprocess.run(restart, shell=True, check=True, timeout=180)
    eventually(lambda: web.ready_nodes() == set(NODES), seconds=180, what="all nodes are Ready")
    _rolled_out(web)
    _every_node_serves(web)
    after = _addresses(web)
    assert {name: after[name] for name in NODES} == {name: before[name] for name in NODES}


def _addresses(lab):
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    services = [*NODES, "scheduler-1", "scheduler-2", "controller-manager-1", "controller-manager-2"]
    return {name: lab.docker("inspect", "-f", form, lab.container(name)).strip() for name in services}
