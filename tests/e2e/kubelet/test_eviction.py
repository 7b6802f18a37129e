"""A node that runs out of disk: what it says, whom it ends and whom it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from machinery.api import kinds
from tests.support.kubelet_node import Cluster, busybox

pytestmark = pytest.mark.root
LIVE = "trap 'exit 0' TERM; while true; do sleep 0.05; done"


def failed(pod: Any) -> bool:
    return bool(pod.status and pod.status.phase == "Failed")


async def test_a_full_disk_ends_who_uses_most_and_takes_nobody_in(cluster: Cluster) -> None:
    ns, node = cluster.namespace, cluster.node
    script = f"dd if=/dev/zero of=/big bs=1M count=3 2>/dev/null; {LIVE}"
    await cluster.pod("large", ns, {"containers": [busybox(script=script)]})
    critical = {"priorityClassName": "system-node-critical"}
    await cluster.pod("critical", ns, {"containers": [busybox(script=script)], **critical})
    for name in ("large", "critical"):
        await cluster.until_ready(name, ns)
    before = node.settings.get("eviction_hard")
    node.stop()
    # No disk has all of its bytes free.
    node.settings["eviction_hard"] = {"nodefs.available": "100%"}
    node.start()
    try:
        large = await cluster.wait(kinds.POD, "large", ns, failed, 30)
        assert large.status.reason == "Evicted"
        assert large.status.message.startswith("The node was low on resource: ephemeral-storage. Threshold quantity: ")
        assert "Container c was using 3" in large.status.message
        assert "request is 0, has larger consumption of ephemeral-storage. " in large.status.message
        condition = next(c for c in large.status.conditions if c.type == "DisruptionTarget")
        assert (condition.status, condition.reason) == ("True", "TerminationByKubelet")

        def pressed(found: Any) -> bool:
            return any(c.type == "DiskPressure" and c.status == "True" for c in found.status.conditions)

        await cluster.wait(kinds.NODE, node.name, "", pressed, 30)
        await cluster.pod("late", ns, {"containers": [busybox(script=LIVE)]})
        late = await cluster.wait(kinds.POD, "late", ns, failed, 30)
        assert (late.status.reason, late.status.message) == (
            "Evicted", "The node had condition: [DiskPressure]. "
        )  # fmt: skip
        survivor = await cluster.client.get(kinds.POD, "critical", ns)
        assert survivor.status.phase == "Running"
        await cluster.told("default", "Attempting to reclaim ephemeral-storage")
        await cluster.told("default", "Node n1 status is now: NodeHasDiskPressure")
    finally:
        node.stop()
        node.settings.pop("eviction_hard")
        if before is not None:
            node.settings["eviction_hard"] = before
        node.start()
    await cluster.ready_node()
