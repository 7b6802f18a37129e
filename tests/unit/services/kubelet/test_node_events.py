"""What is told of a node when its status changes, and whom a node under pressure refuses."""

from __future__ import annotations

from typing import Any

from lightkube.models import core_v1

from services.kubelet import admission
from services.kubelet.node_events import happened
from tests.support.kubelet_pods import pod


def status(boot: str = "b1", **conditions: str) -> dict[str, Any]:
    return {"nodeInfo": {"bootID": boot}, "conditions": [{"type": k, "status": v} for k, v in conditions.items()]}


def test_a_new_node_tells_what_it_has_enough_of_and_later_when_it_is_ready() -> None:
    new = status(MemoryPressure="False", DiskPressure="False", PIDPressure="False", Ready="False")
    reasons = [reason for _, reason, _ in happened("n", {}, new)]
    assert reasons == ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID"]
    ready = status(MemoryPressure="False", DiskPressure="False", PIDPressure="False", Ready="True")
    assert happened("n", new, ready) == [("Normal", "NodeReady", "Node n status is now: NodeReady")]
    assert happened("n", ready, ready) == []


def test_pressure_unreadiness_and_a_reboot_are_told() -> None:
    before = status(MemoryPressure="False", Ready="True")
    after = status(MemoryPressure="True", Ready="False")
    assert [reason for _, reason, _ in happened("n", before, after)] == ["NodeHasInsufficientMemory", "NodeNotReady"]
    assert happened("n", before, {**before, "nodeInfo": {"bootID": "b2"}}) == [
        ("Warning", "Rebooted", "Node n has been rebooted, boot id: b2")
    ]


def refused(value: core_v1.Pod, *pressures: str) -> str:
    refusal = admission.refuse(value, [], {}, 10, pressures=pressures)
    assert refusal is None or refusal.reason == "Evicted"
    return refusal.message if refusal else ""


def test_under_pressure_of_memory_pods_without_requests_are_refused() -> None:
    best_effort, burstable = pod(), pod({"name": "c", "resources": {"requests": {"memory": "1Mi"}}})
    assert refused(best_effort, "memory") == "The node had condition: [MemoryPressure]. "
    assert refused(burstable, "memory") == ""
    taint = "node.kubernetes.io/memory-pressure"
    for toleration, message in (
        ({"key": taint, "operator": "Exists"}, ""),
        ({"operator": "Exists"}, ""),
        ({"key": taint, "operator": "Exists", "effect": "NoExecute"}, "The node had condition: [MemoryPressure]. "),
        ({"key": "other", "operator": "Exists"}, "The node had condition: [MemoryPressure]. "),
    ):
        assert refused(pod(tolerations=[toleration]), "memory") == message


def test_under_other_pressure_only_critical_pods_are_taken() -> None:
    burstable = pod({"name": "c", "resources": {"requests": {"memory": "1Mi"}}})
    assert refused(burstable, "disk") == "The node had condition: [DiskPressure]. "
    assert refused(burstable, "memory", "pid") == "The node had condition: [MemoryPressure PIDPressure]. "
    assert refused(pod(priority=2_000_001_000), "disk") == ""
