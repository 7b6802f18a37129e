"""Every kind of workload on real containers, and an autoscaler that goes by what they really use.

What takes its time by nature (a minute of a CronJob, the autoscaler's looks) is begun before the first test and judged
by the last ones.
"""

import json

import pytest

from tests.support.lab_cluster import WEB_IMAGE, eventually

pytestmark = pytest.mark.root

SLOW = "workloads-slow"
# Busy while the ConfigMap says so: the limit is what a busy pod comes to use, twice what it asks for.
BUSY = """while :; do
  if [ "$(cat /load/state)" = busy ]; then i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; else sleep 1; fi
done"""


def _pod(script, **spec):
    container = {"name": "c", "image": WEB_IMAGE, "command": ["sh", "-c", script], **spec.pop("container", {})}
    return {"terminationGracePeriodSeconds": 1, "containers": [container], **spec}


def _workload(kind, name, script, *, pod=None, **spec):
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": _pod(script, **(pod or {}))}
    body = {"selector": {"matchLabels": labels}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": body}


def _apply(cluster, namespace, *objects):
    for each in objects:
        cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(each))


def _pods(cluster, namespace, selector):
    return {pod["metadata"]["name"]: pod for pod in cluster.get("pods", "-n", namespace, "-l", selector)["items"]}


@pytest.fixture(scope="module", autouse=True)
def slow(cluster):
    """A CronJob of every minute, and an autoscaler over a busy Deployment of one pod."""
    cluster.kubectl("create", "namespace", SLOW)
    load = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "load"}, "data": {"state": "busy"}}
    busy = _workload(
        "Deployment", "busy", BUSY, replicas=1,
        pod={
            "volumes": [{"name": "load", "configMap": {"name": "load"}}],
            "container": {
                "resources": {"requests": {"cpu": "50m"}, "limits": {"cpu": "100m"}},
                "volumeMounts": [{"name": "load", "mountPath": "/load"}],
            },
        },
    )  # fmt: skip
    metric = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}
    scaler = {
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "busy"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "busy"},
            "minReplicas": 1, "maxReplicas": 3, "metrics": [{"type": "Resource", "resource": metric}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        },
    }  # fmt: skip
    cron = {
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick"},
        "spec": {"schedule": "* * * * *", "successfulJobsHistoryLimit": 1,
                 "jobTemplate": {"spec": {"template": {"spec": {**_pod("date +%s"), "restartPolicy": "Never"}}}}},
    }  # fmt: skip
    _apply(cluster, SLOW, load, busy, scaler, cron)
    yield
    cluster.kubectl("delete", "namespace", SLOW, "--timeout=60s", check=False)


def test_a_stateful_sets_pods_come_in_order_and_keep_name_and_data(cluster, namespace):
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    mount = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    script = "echo $HOSTNAME $RELEASE >> /data/log; sleep 100000"
    db = _workload(
        "StatefulSet",
        "db",
        script,
        replicas=2,
        serviceName="db",
        volumeClaimTemplates=[claim],
        pod={"container": mount},
    )
    _apply(cluster, namespace, db)
    cluster.kubectl("rollout", "status", "-n", namespace, "statefulset/db", "--timeout=60s")
    before = _pods(cluster, namespace, "app=db")
    assert sorted(before) == ["db-0", "db-1"]
    created = [before[name]["metadata"]["creationTimestamp"] for name in ("db-0", "db-1")]
    assert created == sorted(created)
    cluster.kubectl("set", "env", "-n", namespace, "statefulset/db", "RELEASE=2")
    cluster.kubectl("rollout", "status", "-n", namespace, "statefulset/db", "--timeout=60s")
    after = _pods(cluster, namespace, "app=db")
    for name in before:
        assert after[name]["metadata"]["uid"] != before[name]["metadata"]["uid"]
        log = cluster.kubectl("exec", "-n", namespace, name, "--", "cat", "/data/log")
        assert log.split() == [name, name, "2"], "the second pod of this name found what the first one wrote"


def test_a_daemon_set_has_one_pod_on_each_node_that_it_is_for(cluster, namespace):
    agent = _workload("DaemonSet", "agent", "sleep 100000", pod={"nodeSelector": {"e2e-agent": "yes"}})
    cluster.kubectl("label", "node", "node1", "node2", "e2e-agent=yes")
    try:
        _apply(cluster, namespace, agent)
        cluster.kubectl("rollout", "status", "-n", namespace, "daemonset/agent", "--timeout=60s")
        first = _pods(cluster, namespace, "app=agent")
        assert sorted(pod["spec"]["nodeName"] for pod in first.values()) == ["node1", "node2"]
        cluster.kubectl("set", "env", "-n", namespace, "daemonset/agent", "RELEASE=2")
        cluster.kubectl("rollout", "status", "-n", namespace, "daemonset/agent", "--timeout=60s")
        assert not set(first) & set(_pods(cluster, namespace, "app=agent"))
        cluster.kubectl("label", "node", "node2", "e2e-agent-")
        eventually(
            lambda: [pod["spec"]["nodeName"] for pod in _pods(cluster, namespace, "app=agent").values()] == ["node1"],
            seconds=30,
            what="the pod of the node that was taken away leaves",
        )
    finally:
        cluster.kubectl("label", "node", "node1", "node2", "e2e-agent-", check=False)


def _job(name, script, **spec):
    template = {"spec": {**_pod(script), "restartPolicy": "Never"}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template, **spec}}


def test_jobs_count_each_index_once_and_end_early_by_their_failure_policy(cluster, namespace):
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    _apply(
        cluster, namespace,
        _job("all", "echo $JOB_COMPLETION_INDEX", completions=4, parallelism=2, completionMode="Indexed"),
        _job(
            "some", 'test $JOB_COMPLETION_INDEX != 1', completions=3, parallelism=3, completionMode="Indexed",
            backoffLimitPerIndex=0,
        ),
        _job("lost", "exit 42", backoffLimit=6, podFailurePolicy={"rules": [rule]}),
    )  # fmt: skip
    cluster.kubectl("wait", "-n", namespace, "job/all", "--for=condition=Complete", "--timeout=60s")
    for name in ("lost", "some"):
        cluster.kubectl("wait", "-n", namespace, f"job/{name}", "--for=condition=Failed", "--timeout=60s")
    jobs = {job["metadata"]["name"]: job["status"] for job in cluster.get("jobs", "-n", namespace)["items"]}
    assert (jobs["all"]["succeeded"], jobs["all"]["completedIndexes"]) == (4, "0-3")
    logs = cluster.kubectl("logs", "-n", namespace, "-l", "job-name=all")
    assert sorted(logs.split()) == ["0", "1", "2", "3"]
    some = jobs["some"]
    assert (some["completedIndexes"], some["failedIndexes"], some["failed"]) == ("0,2", "1", 1)
    reasons = {name: {c["type"]: c["reason"] for c in status["conditions"]} for name, status in jobs.items()}
    assert reasons["some"]["Failed"] == "FailedIndexes"
    assert (reasons["lost"]["Failed"], jobs["lost"]["failed"]) == ("PodFailurePolicy", 1)


def test_a_simulation_says_where_pods_would_go_and_creates_none(cluster, namespace):
    arguments = ("simulate", "examples/web.yaml", "-n", namespace, "-o", "json")
    answer = json.loads(cluster.cutaway(*arguments))
    (web,) = answer["workloads"]
    assert (web["wanted"], sum(web["nodes"].values()), set(web["nodes"])) == (3, 3, {"node1", "node2"})
    assert sum(answer["more"].values()) > 50
    refused = cluster.run_cutaway(*arguments, "--replicas", "1000")
    assert refused.returncode == 1
    assert "2 Too many pods" in next(iter(json.loads(refused.stdout)["workloads"][0]["refused"]))
    assert cluster.get("pods", "-n", namespace)["items"] == []


def test_an_autoscaler_follows_what_the_containers_really_use(cluster):
    def scaler():
        return cluster.get("hpa", "busy", "-n", SLOW)

    grown = eventually(lambda: scaler()["status"].get("desiredReplicas") == 3 and scaler(), seconds=120, what="growth")
    current = grown["status"]["currentMetrics"][0]["resource"]["current"]
    assert 100 <= current["averageUtilization"] <= 250, "a container at its limit uses twice what it asked for"
    reasons = {entry["type"]: entry["reason"] for entry in grown["status"]["conditions"]}
    assert reasons["ScalingActive"] == "ValidMetricFound"
    cluster.kubectl("rollout", "status", "-n", SLOW, "deployment/busy", "--timeout=60s")
    lines = [line.split() for line in cluster.kubectl("top", "pods", "-n", SLOW, "--no-headers").splitlines()]
    busiest = max(int(cpu.removesuffix("m")) for name, cpu, _ in lines if name.startswith("busy"))
    assert 50 <= busiest <= 130, lines
    cluster.kubectl("patch", "configmap", "load", "-n", SLOW, "-p", '{"data": {"state": "idle"}}')
    eventually(lambda: scaler()["status"].get("desiredReplicas") == 1, seconds=150, what="it shrinks again")
    events = cluster.kubectl("get", "events", "-n", SLOW, "--field-selector", "involvedObject.name=busy")
    assert "SuccessfulRescale" in events


def test_a_cron_job_ran_in_its_minute(cluster):
    def ended():
        return [job for job in cluster.get("jobs", "-n", SLOW)["items"] if job["status"].get("completionTime")]

    (job, *_) = eventually(ended, seconds=90, what="a job that ended")
    assert job["metadata"]["ownerReferences"][0]["name"] == "tick"
    minute = int(job["metadata"]["name"].removeprefix("tick-"))
    ran = int(cluster.kubectl("logs", "-n", SLOW, f"job/{job['metadata']['name']}"))
    assert minute * 60 <= ran < minute * 60 + 30
    assert cluster.get("cronjob", "tick", "-n", SLOW)["status"]["lastSuccessfulTime"]
