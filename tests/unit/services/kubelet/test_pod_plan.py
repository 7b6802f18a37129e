"""What the plan decides, step by step and for any state."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.kubelet.back_off import BackOff
from services.kubelet.pod_plan import (
    CreateSandbox,
    Inputs,
    KillContainer,
    Plan,
    ProbeView,
    RemoveContainers,
    StartContainer,
    StopSandboxes,
    back_off_key,
    plan_pod,
    termination_order,
)
from services.kubelet.runtime_state import PodRuntime
from tests.support.kubelet_pods import NOTHING, exited, pod, running, state

INIT = [{"name": "i1", "image": "i"}, {"name": "i2", "image": "i"}]
SIDECAR = [{"name": "side", "image": "i", "restartPolicy": "Always"}]


def plan(
    spec: object, runtime: PodRuntime, now: float = 200.0, back_off: BackOff | None = None, **probes: dict
) -> Plan:
    return plan_pod(Inputs(spec, runtime, now, back_off or BackOff(), ProbeView(**probes)))


def starts(result: Plan) -> list[str]:
    return [a.name for a in result.actions if isinstance(a, StartContainer)]


def test_a_new_pod_gets_its_sandbox_first() -> None:
    assert plan(pod(), NOTHING).actions == [CreateSandbox(0)]


def test_containers_start_in_the_ready_sandbox() -> None:
    assert plan(pod({"name": "a", "image": "i"}, {"name": "b", "image": "i"}), state()).actions == [
        StartContainer("a", 0),
        StartContainer("b", 0),
    ]


def test_a_running_pod_needs_nothing() -> None:
    assert plan(pod(), state(running())).actions == []


def test_a_lost_sandbox_is_replaced_and_its_containers_killed() -> None:
    result = plan(pod(), state(running(), ready=False))
    assert [type(a) for a in result.actions] == [KillContainer, StopSandboxes, CreateSandbox]
    assert result.actions[-1] == CreateSandbox(1)


def test_a_lost_sandbox_of_a_finished_never_pod_is_not_replaced() -> None:
    result = plan(pod(restartPolicy="Never"), state(exited(code=0), ready=False))
    assert result.over
    assert result.actions == []


def test_the_first_restart_is_at_once_and_the_next_waits() -> None:
    spec, back_off = pod(), BackOff()
    first = plan(spec, state(exited(code=1, at=180)), now=190.5, back_off=back_off)
    assert first.actions == [StartContainer("c", 1, is_restart=True)]
    back_off.next(back_off_key(spec, "c"), 190.0)
    again = plan(spec, state(exited(number=1, code=1, at=181)), now=192.0, back_off=back_off)
    assert again.actions == []
    assert again.waiting["c"].reason == "CrashLoopBackOff"
    assert again.waiting["c"].message == "back-off 10s restarting failed container=c pod=p_ns(u1)"
    assert again.requeue_after_seconds == 9.0


def test_restart_policies() -> None:
    for policy, code, restarts in (
        ("Always", 0, True), ("Always", 1, True), ("OnFailure", 0, False), ("OnFailure", 1, True),
        ("Never", 0, False), ("Never", 1, False),
    ):  # fmt: skip
        result = plan(pod(restartPolicy=policy), state(exited(code=code)))
        assert (starts(result) == ["c"]) is restarts, (policy, code)
        assert result.over is not restarts


def test_a_container_may_have_rules_of_its_own() -> None:
    rules = [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]
    container = {"name": "c", "image": "i", "restartPolicy": "Never", "restartPolicyRules": rules}
    assert starts(plan(pod(container, restartPolicy="Never"), state(exited(code=42)))) == ["c"]
    assert starts(plan(pod(container, restartPolicy="Never"), state(exited(code=1)))) == []


def test_init_containers_go_one_by_one() -> None:
    spec = pod(initContainers=INIT)
    assert starts(plan(spec, state())) == ["i1"]
    assert starts(plan(spec, state(running("i1")))) == []
    assert starts(plan(spec, state(exited("i1")))) == ["i2"]
    assert starts(plan(spec, state(exited("i1"), exited("i2")))) == ["c"]


def test_a_failed_init_container_is_tried_again_or_ends_the_pod() -> None:
    assert starts(plan(pod(initContainers=INIT), state(exited("i1", code=1)))) == ["i1"]
    never = plan(pod(initContainers=INIT, restartPolicy="Never"), state(exited("i1", code=1)))
    assert never.over
    assert starts(never) == []


def test_init_containers_run_again_in_a_new_sandbox() -> None:
    spec = pod(initContainers=INIT[:1])
    runtime = state(exited("i1"), exited("c", sandbox="s0"), attempt=1)
    assert starts(plan(spec, runtime)) == ["i1"]


def test_a_sidecar_holds_the_rest_until_it_has_started() -> None:
    probed = [{**SIDECAR[0], "startupProbe": {"exec": {"command": ["true"]}}}]
    spec = pod(initContainers=[*probed, INIT[0]])
    assert starts(plan(spec, state())) == ["side"]
    assert starts(plan(spec, state(running("side")))) == []
    assert starts(plan(spec, state(running("side")), startup={"side0": True})) == ["i1"]


def test_a_sidecar_restarts_whatever_the_policy_and_ends_with_the_pod() -> None:
    spec = pod(initContainers=SIDECAR, restartPolicy="Never")
    assert starts(plan(spec, state(exited("side"), running()))) == ["side"]
    result = plan(spec, state(running("side"), exited()))
    assert result.over
    assert result.actions == [KillContainer("side0", "side", "Stopping container side"), StopSandboxes(("s0",))]


def test_failed_probes_kill() -> None:
    probe = {"exec": {"command": ["true"]}, "terminationGracePeriodSeconds": 3}
    spec = pod({"name": "c", "image": "i", "livenessProbe": probe})
    result = plan(spec, state(running()), liveness={"c0": False})
    assert result.actions == [
        KillContainer("c0", "c", "Container c failed liveness probe, will be restarted", 3, "Unhealthy")
    ]
    assert plan(spec, state(running()), liveness={"other": False}).actions == []


def test_a_changed_image_replaces_the_container() -> None:
    result = plan(pod({"name": "c", "image": "new"}), state(running()))
    assert isinstance(result.actions[0], KillContainer)
    assert "definition changed" in result.actions[0].message


def test_an_ephemeral_container_starts_once() -> None:
    spec = pod(ephemeralContainers=[{"name": "e", "image": "i"}])
    assert starts(plan(spec, state(running()))) == ["e"]
    assert starts(plan(spec, state(running(), exited("e", code=1)))) == []


def test_the_restart_count_goes_on_when_the_runtime_forgot() -> None:
    entry = {
        "name": "c",
        "image": "i",
        "imageID": "",
        "ready": True,
        "restartCount": 4,
        "containerID": "containerd://x",
    }
    spec = pod(status={"containerStatuses": [entry]})
    assert plan(spec, state()).actions == [StartContainer("c", 5)]


def test_sidecars_end_last_and_in_reverse() -> None:
    two = [{**SIDECAR[0], "name": "s1"}, {**SIDECAR[0], "name": "s2"}]
    spec = pod({"name": "a", "image": "i"}, {"name": "b", "image": "i"}, initContainers=two)
    order = termination_order(spec, state(running("s1"), running("s2"), running("a"), running("b")))
    assert [sorted(c.name for c in phase) for phase in order] == [["a", "b"], ["s2"], ["s1"]]


records = st.lists(
    st.one_of(
        st.builds(running, st.sampled_from(["c", "d", "i1", "side"]), st.integers(0, 3)),
        st.builds(exited, st.sampled_from(["c", "d", "i1", "side"]), st.integers(0, 3), code=st.integers(0, 2)),
    ),
    max_size=6,
    unique_by=lambda r: r.id,
)


@given(records, st.booleans(), st.sampled_from(["Always", "OnFailure", "Never"]))
def test_no_plan_starts_what_runs_or_starts_anything_twice(found: list, ready: bool, policy: str) -> None:
    spec = pod(
        {"name": "c", "image": "i"},
        {"name": "d", "image": "i"},
        initContainers=[INIT[0], *SIDECAR],
        restartPolicy=policy,
    )
    runtime = state(*found, ready=ready)
    result = plan(spec, runtime)
    names = starts(result)
    assert len(names) == len(set(names))
    sandbox = runtime.ready_sandbox
    for name in names:
        assert sandbox is not None, "a container starts only in a ready sandbox"
        latest = runtime.latest(name, sandbox.id)
        assert latest is None or not latest.running
    if result.over:
        assert names == []


RULE = [{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]


def test_a_container_can_end_so_that_all_begin_anew_in_the_same_sandbox() -> None:
    source = {"name": "a", "image": "i", "restartPolicy": "Never", "restartPolicyRules": RULE}
    spec = pod(source, {"name": "b", "image": "i"}, restartPolicy="Never", initContainers=INIT[:1])
    first = state(exited("i1"), exited("a", code=42), running("b"))
    assert plan(spec, first).actions == [
        KillContainer("b0", "b", "Restarting all containers of the pod", 0, "RestartAllContainers")
    ]
    second = state(exited("i1"), exited("a", code=42), exited("b", code=137))
    (action,) = plan(spec, second).actions
    assert isinstance(action, RemoveContainers)
    assert set(action.ids) == {"i10", "a0", "b0"}
    assert action.ids[-1] == "a0"  # what caused it is seen until the end
    removed = {"i1": exited("i1"), "a": exited("a", code=42), "b": exited("b", code=137)}
    third = plan_pod(Inputs(spec, state(), 200.0, BackOff(), ProbeView(), removed))
    assert third.actions == [StartContainer("i1", 1)]
    other = plan(spec, state(exited("i1"), exited("a", code=1), running("b")))
    assert other.actions == []
