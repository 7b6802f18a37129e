"""The status that follows from a state."""

from __future__ import annotations

from typing import Any

from services.kubelet.pod_plan import ProbeView, Waiting
from services.kubelet.runtime_state import PodRuntime
from services.kubelet.status import Observed, Verdict, compute_status, not_yet_over
from services.kubelet.status_manager import patch_for
from tests.support.kubelet_pods import NOTHING, exited, pod, running, state

READY = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]


def status(spec: Any, runtime: PodRuntime, previous: dict | None = None, **more: Any) -> dict[str, Any]:
    return compute_status(Observed(spec, runtime, 1000.0, previous or {}, host_ips=("192.0.2.1",), **more))


def true(result: dict[str, Any]) -> list[str]:
    return [c["type"] for c in result["conditions"] if c["status"] == "True"]


def condition(result: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(c for c in result["conditions"] if c["type"] == kind)


def test_a_pod_just_seen_is_pending_and_creating() -> None:
    result = status(pod(), NOTHING)
    assert result["phase"] == "Pending"
    assert result["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert true(result) == ["Initialized", "PodScheduled"]
    assert result["startTime"] == "1970-01-01T00:16:40Z"
    assert condition(result, "Ready")["message"] == "containers with unready status: [c]"


def test_a_running_pod_is_ready() -> None:
    result = status(pod(), state(running()))
    assert result["phase"] == "Running"
    assert true(result) == READY
    assert (result["podIP"], result["hostIP"]) == ("10.0.0.1", "192.0.2.1")
    entry = result["containerStatuses"][0]
    assert (entry["ready"], entry["started"], entry["containerID"]) == (True, True, "containerd://c0")
    assert "message" not in condition(result, "Ready")


def test_a_pod_that_is_not_over_for_certain_keeps_its_phase_and_shows_its_dead_container() -> None:
    before = status(pod(restartPolicy="Never"), state(running()))
    ended = status(pod(restartPolicy="Never"), state(exited(code=1)), before)
    result = not_yet_over(ended, before)
    assert (ended["phase"], result["phase"]) == ("Failed", "Running")
    assert "reason" not in result
    assert "terminated" in result["containerStatuses"][0]["state"]
    assert not_yet_over(before, {}) == before


def test_init_containers_keep_the_pod_pending() -> None:
    spec = pod(initContainers=[{"name": "i1", "image": "i"}, {"name": "i2", "image": "i"}])
    result = status(spec, state(exited("i1")))
    assert result["phase"] == "Pending"
    assert result["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing"
    assert condition(result, "Initialized")["message"] == "containers with incomplete status: [i2]"


def test_a_crash_loop_shows_why_it_waits_and_how_it_ended() -> None:
    waiting = {"c": Waiting("CrashLoopBackOff", "back-off")}
    result = status(pod(), state(exited(number=2, code=3)), waiting=waiting)
    entry = result["containerStatuses"][0]
    assert entry["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    assert entry["lastState"]["terminated"]["exitCode"] == 3
    assert (entry["restartCount"], result["phase"]) == (2, "Running")


def test_a_restarted_container_shows_its_last_run() -> None:
    entry = status(pod(), state(running(number=1, at=300), exited(code=1)))["containerStatuses"][0]
    assert "running" in entry["state"]
    assert entry["lastState"]["terminated"]["containerID"] == "containerd://c0"


def test_phases_of_pods_that_end() -> None:
    for policy, codes, phase in (
        ("Never", (0, 0), "Succeeded"), ("Never", (0, 1), "Failed"), ("OnFailure", (0, 0), "Succeeded"),
        ("OnFailure", (0, 1), "Running"), ("Always", (0, 0), "Running"),
    ):  # fmt: skip
        spec = pod({"name": "a", "image": "i"}, {"name": "b", "image": "i"}, restartPolicy=policy)
        result = status(spec, state(exited("a", code=codes[0]), exited("b", code=codes[1])))
        assert result["phase"] == phase, (policy, codes)
    assert condition(status(pod(restartPolicy="Never"), state(exited())), "Ready")["reason"] == "PodCompleted"


def test_a_terminated_pod_is_failed_unless_all_went_well() -> None:
    assert status(pod(), state(exited(code=0)), terminated=True)["phase"] == "Succeeded"
    assert status(pod(), state(exited(code=137)), terminated=True)["phase"] == "Failed"
    assert status(pod(), NOTHING, terminated=True)["phase"] == "Failed"


def test_a_final_phase_never_changes() -> None:
    assert status(pod(), state(running()), {"phase": "Failed", "reason": "Evicted"})["phase"] == "Failed"


def test_a_verdict_is_told_with_its_reason() -> None:
    result = status(pod(), state(exited(code=137)), verdict=Verdict("Evicted", "low on memory"), terminated=True)
    assert (result["phase"], result["reason"], result["message"]) == ("Failed", "Evicted", "low on memory")


def test_probes_decide_started_and_ready() -> None:
    probe = {"exec": {"command": ["true"]}}
    spec = pod({"name": "c", "image": "i", "readinessProbe": probe, "startupProbe": probe})
    runtime = state(running())

    def seen(**probes: Any) -> tuple[bool, bool]:
        entry = status(spec, runtime, probes=ProbeView(**probes))["containerStatuses"][0]
        return entry["started"], entry["ready"]

    assert seen() == (False, False)
    assert seen(startup={"c0": True}) == (True, False)
    assert seen(startup={"c0": True}, readiness={"c0": True}) == (True, True)


def test_readiness_gates_hold_readiness_only() -> None:
    spec = pod(readinessGates=[{"conditionType": "example.com/g"}])
    result = status(spec, state(running()))
    assert "ContainersReady" in true(result)
    assert condition(result, "Ready")["reason"] == "ReadinessGatesNotReady"
    given = {"conditions": [{"type": "example.com/g", "status": "True", "lastTransitionTime": "x"}]}
    assert "Ready" in true(status(spec, state(running()), given))


def test_transition_times_move_only_with_the_status() -> None:
    before = status(pod(), state(running()))
    later = compute_status(Observed(pod(), state(running()), 2000.0, before))
    assert [c["lastTransitionTime"] for c in later["conditions"]] == [
        c["lastTransitionTime"] for c in before["conditions"]
    ]
    unready = compute_status(Observed(pod(), state(exited(code=1)), 2000.0, before))
    assert condition(unready, "Ready")["lastTransitionTime"] == "1970-01-01T00:33:20Z"


def test_a_container_that_the_runtime_forgot_keeps_its_last_word() -> None:
    before = status(pod(restartPolicy="Never"), state(exited(code=0)))
    result = status(pod(restartPolicy="Never"), NOTHING, before)
    assert result["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0


def test_a_patch_holds_only_what_changed_and_names_what_went() -> None:
    before = status(pod(), NOTHING)
    after = status(pod(), state(running()), before)
    patch = patch_for("u1", before, after)
    assert patch is not None
    assert patch["metadata"] == {"uid": "u1"}
    assert "startTime" not in patch["status"]
    ready = next(c for c in patch["status"]["conditions"] if c["type"] == "Ready")
    assert ready["message"] is None
    assert [c["type"] for c in patch["status"]["conditions"]] == [
        "PodReadyToStartContainers",
        "Ready",
        "ContainersReady",
    ]
    assert patch_for("u1", after, after) is None


def test_what_was_removed_for_a_restart_of_all_is_its_last_state() -> None:
    rule = [{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]
    spec = pod({"name": "c", "image": "i", "restartPolicy": "Never", "restartPolicyRules": rule}, restartPolicy="Never")
    removed = {"c": exited(code=42)}
    between = compute_status(Observed(spec, state(), 300.0, {}, removed=removed))
    entry = between["containerStatuses"][0]
    assert between["phase"] == "Running"
    assert entry["state"] == {"waiting": {"reason": "RestartingAllContainers"}}
    assert entry["lastState"]["terminated"]["exitCode"] == 42
    after = compute_status(Observed(spec, state(running(number=1)), 301.0, between, removed=removed))
    entry = after["containerStatuses"][0]
    assert (entry["restartCount"], entry["lastState"]["terminated"]["exitCode"]) == (1, 42)
    seen = compute_status(Observed(spec, state(exited(code=42)), 299.0, {}))
    assert seen["phase"] == "Running"
    first = {"name": "i", "image": "i", "restartPolicy": "Never", "restartPolicyRules": rule}
    spec = pod(restartPolicy="Never", initContainers=[first])
    for runtime, gone in ((state(exited("i", code=42)), {}), (state(), {"i": exited("i", code=42)})):
        assert compute_status(Observed(spec, runtime, 300.0, {}, removed=gone))["phase"] == "Pending"
    condition = next(c for c in seen["conditions"] if c["type"] == "AllContainersRestarting")
    assert condition["status"] == "True"
    assert after["phase"] == "Running"
