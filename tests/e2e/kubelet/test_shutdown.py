"""A node that shuts down says so, takes no more pods, and ends those that it has: ordinary ones first."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from machinery.api import kinds
from tests.support.kubelet_node import Cluster, busybox

pytestmark = pytest.mark.root
# Ends by its SIGTERM, and says when.
LAST_WORDS = (
    "trap 'read up idle < /proc/uptime; echo $up > /dev/termination-log; exit 0' TERM; while true; do sleep 0.1; done"
)


def ended(pod: Any) -> bool:
    return pod.status.phase == "Failed"


async def test_pods_end_by_priority_when_the_node_shuts_down(cluster: Cluster) -> None:
    ns, node = cluster.namespace, cluster.node
    container = busybox(command=["sh", "-c", LAST_WORDS])
    await cluster.pod("web", ns, {"containers": [container], "terminationGracePeriodSeconds": 5})
    critical = {
        "containers": [container],
        "priorityClassName": "system-cluster-critical",
        "terminationGracePeriodSeconds": 5,
    }
    await cluster.pod("dns", ns, critical)
    # An image that is not to be had: its pod is in the middle of trying.
    await cluster.pod("stuck", ns, {"containers": [busybox(image="registry.invalid/none:1")]})
    for name in ("web", "dns"):
        await cluster.until_ready(name, ns)
    assert node.process is not None
    node.process.send_signal(signal.SIGPWR)
    try:
        pods = {name: await cluster.wait(kinds.POD, name, ns, ended) for name in ("web", "dns", "stuck")}
        for pod in pods.values():
            assert pod.status.reason == "Terminated"
            assert pod.status.message == "Pod was terminated in response to imminent node shutdown."
            target = next(c for c in pod.status.conditions if c.type == "DisruptionTarget")
            assert (target.status, target.reason) == ("True", "TerminationByKubelet")
        words = {n: float(pods[n].status.containerStatuses[0].state.terminated.message) for n in ("web", "dns")}
        assert words["web"] < words["dns"]

        def says_so(found: Any) -> bool:
            ready = next(c for c in found.status.conditions if c.type == "Ready")
            return ready.status == "False" and "node is shutting down" in ready.message

        await cluster.wait(kinds.NODE, node.name, "", says_so)
        await cluster.pod("late", ns, {"containers": [container]})
        late = await cluster.wait(kinds.POD, "late", ns, ended)
        assert (late.status.reason, late.status.message) == (
            "NodeShutdown",
            "Pod was rejected as the node is shutting down.",
        )
    finally:
        node.stop()
        node.start()
        await cluster.ready_node()
