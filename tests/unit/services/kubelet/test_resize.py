"""What a resize in place changes, and when it has to wait."""

from __future__ import annotations

from services.kubelet import resize
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
