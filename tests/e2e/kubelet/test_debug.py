"""kubectl debug on real containers: into a running pod's processes, onto the node, and as a copy of a pod."""

from __future__ import annotations

import json
from typing import Any

import pytest

from machinery.api import kinds
from tests.support.kubelet_node import Cluster, busybox
from tests.support.private_containerd import BUSYBOX_IMAGE

pytestmark = pytest.mark.root


def _ended(name: str, status: str) -> Any:
    def test(pod: Any) -> bool:
        entries = getattr(pod.status, status) or () if pod.status else ()
        return any(entry.name == name and entry.state and entry.state.terminated for entry in entries)

    return test


async def test_a_debugger_sees_the_processes_of_its_target_and_its_files(cluster: Cluster) -> None:
    ns = cluster.namespace
    await cluster.pod("p", ns, {"containers": [busybox(script="echo here > /mark; exec sleep 4242")]})
    await cluster.until_ready("p", ns)
    cluster.kubectl(
        "debug", "-n", ns, "p", f"--image={BUSYBOX_IMAGE}", "--target=c", "--container=dbg", "--profile=general",
        "--", "sh", "-c", "ps; cat /proc/1/root/mark",
    )  # fmt: skip
    pod = await cluster.wait(kinds.POD, "p", ns, _ended("dbg", "ephemeralContainerStatuses"))
    said = cluster.kubectl("logs", "-n", ns, "p", "-c", "dbg")
    assert "sleep 4242" in said, (said, pod.status.ephemeralContainerStatuses)
    assert said.endswith("here\n")
    assert pod.status.containerStatuses[0].restartCount == 0


async def test_a_debugger_on_the_node_sees_its_files_processes_and_network(cluster: Cluster) -> None:
    ns = cluster.namespace
    script = "test -d /host/proc/1 && test -e /proc/2 && ip link | grep -q kt0 && echo on the node"
    said = cluster.kubectl(
        "debug", "-n", ns, f"node/{cluster.node.name}", f"--image={BUSYBOX_IMAGE}", "--profile=general",
        "--", "sh", "-c", script,
    )  # fmt: skip
    assert "Creating debugging pod" in said
    name = said.split("pod ")[1].split()[0]
    pod = await cluster.wait(kinds.POD, name, ns, _ended("debugger", "containerStatuses"))
    assert cluster.kubectl("logs", "-n", ns, name) == "on the node\n", pod.status
    assert (pod.spec.hostPID, pod.spec.hostNetwork) == (True, True)


async def test_a_copy_of_a_pod_with_another_command_and_shared_processes(cluster: Cluster) -> None:
    ns = cluster.namespace
    await cluster.pod("p", ns, {"containers": [busybox(script="exit 1")], "restartPolicy": "Always"}, labels={"a": "b"})
    cluster.kubectl(
        "debug", "-n", ns, "p", "--copy-to=copy", "--same-node", "--share-processes", "--container=c",
        "--", "sleep", "4243",
    )  # fmt: skip
    copy = await cluster.until_ready("copy", ns)
    assert copy.spec.shareProcessNamespace
    assert not copy.metadata.labels
    assert "sleep 4243" in cluster.kubectl("exec", "-n", ns, "copy", "--", "ps")
    events = json.loads(cluster.kubectl("get", "pod", "-n", ns, "p", "-o", "json"))
    assert events["spec"]["containers"][0]["command"] != ["sleep", "4243"]
