"""What holds back on purpose, and what was deleted and stays: told from plain objects."""

import pytest

from services.controller_manager.explain.endings import explain_deletion, explain_namespace
from services.controller_manager.explain.limits import explain_autoscaler, explain_budget, explain_node, explain_quota
from services.controller_manager.explain.snapshot import Snapshot
from services.controller_manager.explain.workloads import explain_job, explain_replicas
from tests.unit.services.controller_manager.explain.test_explain import ends, node, obj, pod, world


def refused(message):
    return obj("rs", spec={"replicas": 2}, status={"conditions": [
        {"type": "ReplicaFailure", "status": "True", "message": message}]})  # fmt: skip


def quota(used):
    return obj(
        "small", status={"hard": {"pods": "2", "requests.cpu": "1"}, "used": {"pods": used, "requests.cpu": "900m"}}
    )


def test_a_quota_is_told_as_it_is_now_not_as_the_event_says():
    message = 'pods "x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=2, limited: pods=2'
    (end,) = ends(explain_replicas(world(ResourceQuota=[quota("2")]), "ReplicaSet", refused(message)))
    assert (end.subject, end.problem) == ("resourcequota/small", "allows 2 pods, and 2 are used")
    assert explain_quota(world(), quota("1")) == ()


def webhook(**config):
    hook = {"name": "check.example", "clientConfig": config}
    return {"metadata": {"name": "checks", "uid": "w"}, "webhooks": [hook]}


def test_a_failing_webhook_leads_to_the_service_behind_it():
    message = 'Internal error occurred: failed calling webhook "check.example": no endpoints available'
    snapshot = world(
        ValidatingWebhookConfiguration=[webhook(service={"namespace": "d", "name": "hook"})],
        Service=[obj("hook", spec={"selector": {"app": "hook"}})],
    )
    (end,) = ends(explain_replicas(snapshot, "ReplicaSet", refused(message)))
    assert end.subject == "service/hook"
    assert "selects no pod" in end.problem
    snapshot.objects["Service"] = []
    (end,) = ends(explain_replicas(snapshot, "ReplicaSet", refused(message)))
    assert "does not exist" in end.problem


def test_a_webhook_that_says_no_is_not_called_broken():
    message = 'admission webhook "check.example" denied the request: no latest tag'
    snapshot = world(ValidatingWebhookConfiguration=[webhook(url="https://x")])
    (end,) = ends(explain_replicas(snapshot, "ReplicaSet", refused(message)))
    assert "says no" in end.problem


def budget(allowed, healthy, desired, expected):
    counts = {"disruptionsAllowed": allowed, "currentHealthy": healthy, "desiredHealthy": desired}
    spec = {"selector": {"matchLabels": {"app": "web"}}}
    return obj("b", spec=spec, status={**counts, "expectedPods": expected})


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (budget(0, 3, 3, 3), "can't allow"),
        (budget(0, 1, 2, 3), "1 of 2 pods are healthy"),
        (budget(0, 0, 0, 0), "covers no pod"),
    ],
)
def test_a_budget_that_allows_nothing_says_why(of, words):
    (finding,) = explain_budget(world(), of)
    assert words in finding.problem


def test_a_drain_that_does_not_end_is_explained_by_the_budget():
    cordoned = node()
    cordoned["spec"]["unschedulable"] = True
    there = pod(phase="Running", labels={"app": "web"})
    snapshot = Snapshot({"Node": [cordoned], "Pod": [there], "PodDisruptionBudget": [budget(0, 1, 1, 1)]})
    (end,) = ends(explain_node(snapshot, cordoned))
    assert end.subject == "poddisruptionbudget/b"
    assert explain_node(snapshot, node()) == ()
    assert "silent" in explain_node(snapshot, node("False"))[0].problem


def test_an_autoscaler_tells_its_conditions():
    inactive = {"type": "ScalingActive", "status": "False", "reason": "FailedGetResourceMetric", "message": "no cpu"}
    (finding,) = explain_autoscaler(world(), obj("h", status={"conditions": [inactive]}))
    assert "no cpu" in finding.problem
    assert "request" in finding.remedy
    limited = {"type": "ScalingLimited", "status": "True", "reason": "TooManyReplicas", "message": "at 3"}
    (finding,) = explain_autoscaler(world(), obj("h", status={"conditions": [limited]}))
    assert "maxReplicas" in finding.remedy
    good = {"type": "ScalingActive", "status": "True"}
    assert explain_autoscaler(world(), obj("h", status={"conditions": [good]})) == ()


def test_a_job_that_failed_names_the_limit_and_its_pods():
    failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "too often"}
    job = obj("j", spec={"backoffLimit": 1}, status={"conditions": [failed]})
    last = {"state": {"terminated": {"exitCode": 3, "reason": "Error"}}}
    snapshot = world(Pod=[pod(phase="Failed", container=last, owner="uid-j")])
    (finding,) = explain_job(snapshot, job)
    assert "backoffLimit" in finding.remedy
    assert [cause.subject for cause in finding.because] == ["pod/p"]
    assert "suspended" in explain_job(world(), obj("j", spec={"suspend": True}))[0].problem
    done = {"type": "Complete", "status": "True"}
    assert explain_job(world(), obj("j", status={"conditions": [done]})) == ()


def deleted(name, *finalizers, **more):
    return obj(name, deletionTimestamp="2026-01-01T00:00:00Z", finalizers=list(finalizers), **more)


def test_a_deleted_object_names_who_must_let_it_go():
    claim = deleted("data", "kubernetes.io/pvc-protection")
    user = pod(spec={"volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]})
    (end,) = ends(explain_deletion(world(Pod=[user]), "PersistentVolumeClaim", claim))
    assert "pods that use it: p" in end.problem
    (end,) = ends(explain_deletion(world(), "ConfigMap", deleted("c", "example.org/mine")))
    assert "example.org/mine" in end.subject
    assert explain_deletion(world(), "ConfigMap", deleted("c")) == ()
    assert explain_deletion(world(), "ConfigMap", obj("c", finalizers=["example.org/mine"])) == ()


def test_a_namespace_that_does_not_end_tells_what_is_left_in_it():
    told = {"type": "NamespaceFinalizersRemaining", "status": "True", "message": "example.org/mine in 1 instance"}
    namespace = obj("d", status={"phase": "Terminating", "conditions": [told]})
    snapshot = world(ConfigMap=[deleted("c", "example.org/mine")])
    found = {end.subject for end in ends(explain_namespace(snapshot, namespace))}
    assert found == {"condition NamespaceFinalizersRemaining", "finalizer example.org/mine"}
    assert explain_namespace(snapshot, obj("d", status={"phase": "Active"})) == ()
