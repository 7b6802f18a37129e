"""Chains of causes, told from plain objects."""

from services.controller_manager.explain.network import explain_ingress, explain_service
from services.controller_manager.explain.pods import explain_pod
from services.controller_manager.explain.snapshot import Snapshot
from services.controller_manager.explain.volumes import explain_claim
from services.controller_manager.explain.workloads import explain_deployment


def obj(name, *, spec=None, status=None, owner="", labels=None, **metadata):
    owners = [{"uid": owner, "controller": True}] if owner else []
    meta = {
        "name": name,
        "namespace": "d",
        "uid": f"uid-{name}",
        "labels": labels or {},
        "ownerReferences": owners,
    } | metadata
    return {"metadata": meta, "spec": spec or {}, "status": status or {}}


def node(ready="True"):
    return obj("n1", status={"conditions": [{"type": "Ready", "status": ready, "message": "kubelet is silent"}]})


def pod(name="p", *, container=None, phase="Pending", node_name="n1", spec=None, **more):
    status = {"phase": phase, "containerStatuses": [{"name": "c", **container}] if container else []}
    return obj(name, spec={"nodeName": node_name, "containers": [{"name": "c"}], **(spec or {})}, status=status, **more)


def ends(findings):
    """The last links of every chain."""
    return [end for f in findings for end in (ends(f.because) if f.because else [f])]


def world(**objects):
    return Snapshot({"Node": [node()], **objects})


def test_a_running_ready_pod_needs_no_explanation():
    healthy = pod(phase="Running", container={"ready": True, "state": {"running": {}}})
    healthy["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    assert explain_pod(world(), healthy) == ()


def test_a_pod_that_fits_nowhere_says_what_the_scheduler_says_and_what_would_make_it_fit():
    snapshot = world()
    snapshot.scheduling["d/p"] = (
        "0/1 nodes are available: 1 Insufficient cpu.",
        ["fits on n1 if the cpu request is <= 1"],
    )
    (finding,) = explain_pod(snapshot, pod(node_name=""))
    assert "Insufficient cpu" in finding.problem
    assert finding.remedy == "fits on n1 if the cpu request is <= 1"


def test_a_scheduling_gate_comes_before_anything_else():
    (finding,) = explain_pod(world(), pod(node_name="", spec={"schedulingGates": [{"name": "example.org/wait"}]}))
    assert "example.org/wait" in finding.problem


def test_an_image_that_can_not_be_pulled_is_the_end_of_the_chain():
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    (end,) = ends(explain_pod(world(), pod(container=waiting)))
    assert "no such image" in end.problem
    assert "imagePullSecrets" in end.remedy


def test_a_crash_names_its_exit_code_and_an_out_of_memory_kill_its_limit():
    back_off = {"waiting": {"reason": "CrashLoopBackOff"}}
    for reason, words in (("Error", "--previous"), ("OOMKilled", "memory limit")):
        last = {"terminated": {"exitCode": 3, "reason": reason}}
        (end,) = ends(explain_pod(world(), pod(container={"state": back_off, "lastState": last, "restartCount": 4})))
        assert "exit code 3" in end.problem
        assert words in end.remedy


def test_a_silent_node_explains_its_pods():
    (end,) = ends(explain_pod(Snapshot({"Node": [node("Unknown")]}), pod(phase="Running")))
    assert (end.subject, end.problem) == ("node/n1", "is not Ready: kubelet is silent")


def test_a_missing_config_map_is_named():
    volume = {"volumes": [{"name": "v", "configMap": {"name": "settings"}}]}
    (end,) = ends(explain_pod(world(), pod(spec=volume)))
    assert "ConfigMap settings, which does not exist" in end.problem


def test_a_deployment_over_quota_says_so_and_one_that_is_rolled_out_says_nothing():
    deployment = obj("web", spec={"replicas": 2}, status={"replicas": 0}, generation=0)
    failure = {"type": "ReplicaFailure", "status": "True", "message": "pods is forbidden: exceeded quota: q"}
    replica_set = obj("web-1", spec={"replicas": 2}, status={"conditions": [failure]}, owner="uid-web")
    (end,) = ends(explain_deployment(world(ReplicaSet=[replica_set]), deployment))
    assert "ResourceQuota" in end.remedy
    done = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
    assert explain_deployment(world(), obj("web", spec={"replicas": 2}, status=done, generation=0)) == ()


def test_a_service_that_selects_nothing_points_at_the_nearest_pod():
    service = obj("web", spec={"selector": {"app": "web", "tier": "a"}})
    (finding,) = explain_service(world(Pod=[pod("near", labels={"app": "web", "tier": "b"})]), service)
    assert "none in d has app=web,tier=a" in finding.problem
    assert "near has some of these labels" in finding.remedy


def test_an_ingress_to_nowhere_names_the_service():
    backend = {"backend": {"service": {"name": "gone"}}}
    ingress = obj("i", spec={"rules": [{"http": {"paths": [backend]}}]})
    (finding,) = explain_ingress(world(), ingress)
    assert "service gone, which does not exist" in finding.problem


def test_a_claim_of_an_unknown_class_lists_the_known_ones():
    claim = obj("data", spec={"storageClassName": "fast"})
    (finding,) = explain_claim(world(StorageClass=[obj("standard")]), claim)
    assert finding.remedy == "there are: standard"
