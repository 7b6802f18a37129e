"""The kubelet, the shim and containerd can be killed at any time: containers go on, and are adopted."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from cri_api.v1 import api_pb2 as cri
from cri_api.v1 import api_pb2_grpc

from machinery.api import kinds
from tests.support import cgroups
from tests.support.kubelet_node import Cluster, busybox, is_ready
from tests.support.private_containerd import PrivateContainerd
from tests.support.torture import figure, times

pytestmark = pytest.mark.root
KILLS = times(50, 3)
RESTARTS = times(20, 2)


def pids_of(pod: Any) -> set[str]:
    """Process ids in the pod's cgroup."""
    roots = [path for path in cgroups.below(cgroups.ROOT / "pids") if f"pod{pod.metadata.uid}" in path.name]
    return {pid for root in roots for pid in cgroups.processes(root)}


def shells_of(pod: Any) -> set[str]:
    """Those of the container's main process: what it starts comes and goes."""
    return {pid for pid in pids_of(pod) if Path(f"/proc/{pid}/comm").exists() and _started_by_shim(pid)}


def _started_by_shim(pid: str) -> bool:
    try:
        parent = re.search(r"PPid:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]
        return "shim" in Path(f"/proc/{parent}/comm").read_text()
    except (FileNotFoundError, TypeError):
        return False


def main_shell(pod: Any) -> int:
    """The process id of the container's own shell."""
    found = [p for p in shells_of(pod) if Path(f"/proc/{p}/cmdline").read_bytes().startswith(b"sh\0")]
    return int(found[0])


@pytest.mark.torture
async def test_a_killed_kubelet_adopts_its_pods(cluster: Cluster) -> None:
    ns = cluster.namespace
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    pods = {}
    for name in ("a", "b", "c"):
        mounts = [{"name": "e", "mountPath": "/e"}, {"name": "m", "mountPath": "/m"}]
        volumes = [{"name": "e", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}}]
        container = busybox(readinessProbe=probe, volumeMounts=mounts)
        await cluster.pod(name, ns, {"containers": [container], "volumes": volumes})
    for name in ("a", "b", "c"):
        pods[name] = await cluster.until_ready(name, ns)
    before = {name: shells_of(pod) for name, pod in pods.items()}
    assert all(before.values()), before
    for _ in range(KILLS):
        cluster.node.stop(signal.SIGKILL)
        cluster.node.start()
        await asyncio.sleep(1.0)
    # A pod that is created and one that is deleted while the kubelet is away are both taken care of.
    cluster.node.stop(signal.SIGKILL)
    await cluster.client.delete(kinds.POD, "c", ns, grace_period_seconds=1)
    await cluster.pod("d", ns, {"containers": [busybox()]})
    cluster.node.start()
    await cluster.until_ready("d", ns)
    await cluster.gone("c", ns)
    for name in ("a", "b"):
        pod = await cluster.client.get(kinds.POD, name, ns)
        assert is_ready(pod)
        assert pod.status.containerStatuses[0].restartCount == 0
        assert pod.status.containerStatuses[0].containerID == pods[name].status.containerStatuses[0].containerID
        assert pod.status.podIP == pods[name].status.podIP
        assert shells_of(pod) == before[name]
        ready = {c.type: c.lastTransitionTime for c in pod.status.conditions}
        assert ready["Ready"] == {c.type: c.lastTransitionTime for c in pods[name].status.conditions}["Ready"]
    figure(8, f"kubelet killed {KILLS + 1} times under 3 pods: same pids, addresses, containers and restart counts")


async def test_a_pod_force_deleted_while_the_kubelet_is_away_is_ended(cluster: Cluster) -> None:
    ns = cluster.namespace
    await cluster.pod("p", ns, {"containers": [busybox()]})
    pod = await cluster.until_ready("p", ns)
    cluster.node.stop(signal.SIGKILL)
    await cluster.client.delete(kinds.POD, "p", ns, grace_period_seconds=0)
    await cluster.gone("p", ns)
    assert pids_of(pod)
    cluster.node.start()
    for _ in range(200):
        if not pids_of(pod) and not (cluster.node.root / "pods" / pod.metadata.uid).exists():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the orphan lives")


@pytest.mark.torture
async def test_containerd_restarts_under_running_pods(cluster: Cluster, containerd: PrivateContainerd) -> None:
    ns = cluster.namespace
    await cluster.pod("p", ns, {"containers": [busybox()]})
    pod = await cluster.until_ready("p", ns)
    before = shells_of(pod)
    for _ in range(RESTARTS):
        await asyncio.to_thread(containerd.stop)
        await asyncio.to_thread(containerd.start)
    await cluster.pod("q", ns, {"containers": [busybox()]})
    await cluster.until_ready("q", ns)
    after = await cluster.client.get(kinds.POD, "p", ns)
    assert shells_of(after) == before
    assert after.status.containerStatuses[0].restartCount == 0
    figure(8, f"containerd restarted {RESTARTS} times: same pids and restart counts, and new pods start")


async def test_a_killed_container_is_restarted_at_once(cluster: Cluster) -> None:
    ns = cluster.namespace
    await cluster.pod("p", ns, {"containers": [busybox()]})
    pod = await cluster.until_ready("p", ns)
    before = pod.status.containerStatuses[0].containerID
    os.kill(main_shell(pod), signal.SIGKILL)

    def again(pod: Any) -> bool:
        return pod.status.containerStatuses[0].containerID != before and is_ready(pod)

    pod = await cluster.wait(kinds.POD, "p", ns, again, 10)
    entry = pod.status.containerStatuses[0]
    assert entry.restartCount == 1
    assert entry.lastState.terminated.exitCode == 137


async def test_a_sandbox_that_ended_is_made_anew_and_told(cluster: Cluster, containerd: PrivateContainerd) -> None:
    ns = cluster.namespace
    await cluster.pod("p", ns, {"containers": [busybox()]})
    before = await cluster.until_ready("p", ns)
    async with grpc.aio.insecure_channel(containerd.endpoint) as channel:
        runtime = api_pb2_grpc.RuntimeServiceStub(channel)
        labels = {"io.kubernetes.pod.uid": before.metadata.uid}
        wanted = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(label_selector=labels))
        (sandbox,) = (await runtime.ListPodSandbox(wanted)).items
        await runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox.id))
    await cluster.told(ns, "Pod sandbox changed, it will be killed and re-created.")

    def again(pod: Any) -> bool:
        return is_ready(pod) and pod.status.containerStatuses[0].restartCount >= 1

    await cluster.wait(kinds.POD, "p", ns, again)
