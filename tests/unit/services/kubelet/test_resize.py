"""What a resize in place changes, and when it has to wait."""

from __future__ import annotations

from services.kubelet import qos, resize
from services.kubelet.container_config import NodeSettings, linux_resources
from services.kubelet.status import Observed, compute_status
from services.kubelet.status_manager import patch_for
from tests.support.kubelet_pods import pod, running, state


def sized(cpu: str, uid: str = "u1", **more: object):  # type: ignore[no-untyped-def]
    found = pod({"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}, **more})
    found.metadata.uid = uid
    return found


def test_a_change_is_one_of_value_not_of_writing() -> None:
    container = sized("1000m").spec.containers[0]
    assert resize.changed(container, {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}) == set()
    assert resize.changed(container, {"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}) == {"cpu"}


def test_a_policy_can_ask_for_a_restart() -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    container = sized("1", resizePolicy=policy).spec.containers[0]
    assert resize.needs_restart(container, {"memory"})
    assert not resize.needs_restart(container, {"cpu"})


def test_what_never_fits_and_what_may_fit_later() -> None:
    node = {"cpu": "4", "memory": "8Gi"}
    assert resize.obstacle(sized("2"), [], node) is None
    assert resize.obstacle(sized("5"), [], node).reason == "Infeasible"
    assert resize.obstacle(sized("3"), [sized("2", "u2")], node).reason == "Deferred"


def test_the_status_shows_what_was_applied_and_what_is_pending() -> None:
    applied = {"c": {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}}
    pending = resize.Pending("Deferred", "later")
    before = compute_status(Observed(sized("2"), state(running()), 1.0, {}, applied=applied, resize=pending))
    entry = before["containerStatuses"][0]
    assert entry["allocatedResources"] == {"cpu": "1"}
    assert before["conditions"][-1]["type"] == "PodResizePending"
    after = compute_status(Observed(sized("2"), state(running()), 2.0, before))
    assert after["containerStatuses"][0]["allocatedResources"] == {"cpu": "2"}
    patch = patch_for("u1", before, after)
    assert {"type": "PodResizePending", "$patch": "delete"} in patch["status"]["conditions"]


def shared(limits: dict[str, str], **more: object):  # type: ignore[no-untyped-def]
    own = {"name": "own", "image": "i", "resources": {"limits": {"cpu": "100m", "memory": "10Mi"}}}
    return pod(own, {"name": "c", "image": "i"}, resources={"limits": limits, "requests": limits}, **more)


def test_a_container_without_limits_has_the_pods() -> None:
    found = shared({"cpu": "200m", "memory": "50Mi"})
    node = NodeSettings("n", "/logs")
    mine, inherited = (linux_resources(found, c, node) for c in found.spec.containers)
    assert (mine.cpu_quota, mine.memory_limit_in_bytes) == (10_000, 10 << 20)
    assert (inherited.cpu_quota, inherited.memory_limit_in_bytes) == (20_000, 50 << 20)


def test_a_change_of_the_pods_own_resources_reaches_who_inherits_them() -> None:
    before = qos.pod_resources_shown(shared({"cpu": "200m", "memory": "50Mi"}))
    assert before == {side: {"cpu": "200m", "memory": "50Mi"} for side in ("requests", "limits")}
    after = shared({"cpu": "0.2", "memory": "60Mi"})
    names = resize.pod_level_changed(after, before)
    assert names == {"memory"}
    assert [resize.inherits(c, names) for c in after.spec.containers] == [False, True]


def test_a_limit_below_what_is_in_use_is_not_set() -> None:
    found = shared({"cpu": "200m", "memory": "50Mi"})
    assert resize.memory_obstacle(found, {"own": 9 << 20, "c": 30 << 20}) is None
    for usage, what in (({"own": 11 << 20}, "container own"), ({"own": 9 << 20, "c": 45 << 20}, "pod")):
        pending = resize.memory_obstacle(found, usage)
        assert pending is not None
        assert (pending.condition, pending.reason) == ("PodResizeInProgress", "Error")
        assert pending.message.startswith(f"{what}: attempting to set memory limit")


def test_the_status_shows_the_sum_where_the_pod_has_nothing_of_its_own() -> None:
    one = {"name": "a", "image": "i", "resources": {"requests": {"cpu": "250m", "memory": "1Gi"}}}
    status = compute_status(Observed(pod(one, {**one, "name": "b"}), state(), 1.0, {}))
    assert status["allocatedResources"] == {"cpu": "500m", "memory": "2Gi"}
    assert status["resources"] == {"requests": {"cpu": "500m", "memory": "2Gi"}}
