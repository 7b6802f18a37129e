"""The main job: a Deployment behind a Service on two real nodes, through every component."""

import pytest

from tests.support.lab_cluster import ROOT, eventually
from tests.support.traffic import Traffic

pytestmark = pytest.mark.root


@pytest.fixture
def web(cluster, namespace):
    """The example, ready, in a namespace of its own; (namespace, URL of its node port on the first node)."""
    manifest = (ROOT / "examples" / "web.yaml").read_text().replace("      nodePort: 30007\n", "")
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=manifest)
    cluster.kubectl("rollout", "status", "-n", namespace, "deployment/nginx-deployment", "--timeout=60s")
    port = cluster.get("service", "my-nginx-service", "-n", namespace)["spec"]["ports"][0]["nodePort"]
    return namespace, f"http://{cluster.node_ip('node1')}:{port}/"


def _pods(cluster, namespace):
    return {
        pod["metadata"]["name"]: pod
        for pod in cluster.get("pods", "-n", namespace, "-l", "app=nginx")["items"]
        if "deletionTimestamp" not in pod["metadata"]
    }


def test_every_pod_answers_through_the_service_and_both_nodes_run_some(cluster, web):
    namespace, url = web
    pods = _pods(cluster, namespace)
    assert {pod["spec"]["nodeName"] for pod in pods.values()} == {"node1", "node2"}
    with Traffic(url) as traffic:
        eventually(lambda: len(traffic.answers) == 3, seconds=20, what="an answer from each pod")
    assert {f"hello from {name}" for name in pods} == set(traffic.answers)
    assert traffic.failures == []


def test_a_deleted_pod_is_replaced_by_another_one_while_the_service_never_fails(cluster, web):
    namespace, url = web
    before = _pods(cluster, namespace)
    victim = next(iter(before))
    with Traffic(url) as traffic:
        eventually(lambda: traffic.answers, seconds=10)
        cluster.kubectl("delete", "pod", "-n", namespace, victim)
        cluster.kubectl("rollout", "status", "-n", namespace, "deployment/nginx-deployment", "--timeout=60s")
        after = _pods(cluster, namespace)
        (new,) = set(after) - set(before)
        eventually(lambda: traffic.answers[f"hello from {new}"], seconds=10, what="the new pod serves")
    assert traffic.failures == []
    assert after[new]["metadata"]["uid"] not in {pod["metadata"]["uid"] for pod in before.values()}
    assert after[new]["status"]["podIP"] != before[victim]["status"]["podIP"]


def test_an_update_and_its_rollback_lose_no_request(cluster, web):
    namespace, url = web
    first = set(_pods(cluster, namespace))
    deployment = "deployment/nginx-deployment"
    with Traffic(url) as traffic:
        cluster.kubectl("set", "env", "-n", namespace, deployment, "RELEASE=2")
        cluster.kubectl("rollout", "status", "-n", namespace, deployment, "--timeout=90s")
        second = set(_pods(cluster, namespace))
        cluster.kubectl("rollout", "undo", "-n", namespace, deployment)
        cluster.kubectl("rollout", "status", "-n", namespace, deployment, "--timeout=90s")
    third = set(_pods(cluster, namespace))
    assert not first & second
    assert not second & third
    assert traffic.failures == []
    assert sum(traffic.answers.values()) > 50
    assert "REVISION" in cluster.kubectl("rollout", "history", "-n", namespace, deployment)


def test_logs_and_exec_reach_the_container(cluster, web):
    namespace, url = web
    name = next(iter(_pods(cluster, namespace)))
    assert cluster.kubectl("exec", "-n", namespace, name, "--", "hostname").strip() == name
    with Traffic(url) as traffic:
        eventually(lambda: traffic.answers[f"hello from {name}"], seconds=20)
    assert "GET / HTTP" in cluster.kubectl("logs", "-n", namespace, name)


def test_pods_on_different_nodes_reach_each_other_and_names_resolve(cluster, web):
    namespace, _ = web
    pods = list(_pods(cluster, namespace).values())
    here = next(pod for pod in pods if pod["spec"]["nodeName"] == "node1")
    there = next(pod for pod in pods if pod["spec"]["nodeName"] == "node2")
    inside = ["exec", "-n", namespace, here["metadata"]["name"], "--"]
    direct = cluster.kubectl(*inside, "wget", "-qO-", f"http://{there['status']['podIP']}/")
    assert direct.strip() == f"hello from {there['metadata']['name']}"
    by_name = cluster.kubectl(*inside, "wget", "-qO-", f"http://my-nginx-service.{namespace}:8080/")
    assert by_name.startswith("hello from ")
