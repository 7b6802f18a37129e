"""What a pod is given and what its status says, on real containers."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from machinery.api import kinds
from tests.support.kubelet_node import Cluster, b64, busybox

pytestmark = pytest.mark.root


async def test_a_pod_gets_its_environment_volumes_and_token(cluster: Cluster) -> None:
    ns = cluster.namespace
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm", "namespace": ns}}
    await cluster.client.create(kinds.CONFIG_MAP, {**config, "data": {"a": "one", "file.txt": "hello"}}, ns)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": ns}}
    await cluster.client.create(kinds.SECRET, {**secret, "data": {"pw": b64("hush")}}, ns)
    script = (
        "echo A=$A PW=$PW B=$B IP=$IP NODE=$NODE CPU=$CPU; cat /cm/file.txt /s/pw /one; echo; cat /d/labels; echo;"
        "test -s /var/run/secrets/kubernetes.io/serviceaccount/token && echo token;"
        "grep -c BEGIN /var/run/secrets/kubernetes.io/serviceaccount/ca.crt; stat -f -c %T /s;"
        "touch /e/x /m/y && echo written; trap 'exit 0' TERM; while true; do sleep 0.05; done"
    )
    env = [
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "a"}}},
        {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "s", "key": "pw"}}},
        {"name": "B", "value": "$(A)-two"},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
    ]
    mounts = [
        {"name": "cm", "mountPath": "/cm"}, {"name": "cm", "mountPath": "/one", "subPath": "file.txt"},
        {"name": "s", "mountPath": "/s"}, {"name": "d", "mountPath": "/d"}, {"name": "e", "mountPath": "/e"},
        {"name": "m", "mountPath": "/m"},
    ]  # fmt: skip
    volumes = [
        {"name": "cm", "configMap": {"name": "cm"}},
        {"name": "s", "secret": {"secretName": "s"}},
        {"name": "d", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "e", "emptyDir": {}},
        {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    ]
    container = busybox(
        script=script, env=env, volumeMounts=mounts, resources={"limits": {"cpu": "500m", "memory": "32Mi"}}
    )
    await cluster.pod("p", ns, {"containers": [container], "volumes": volumes}, labels={"app": "x"})
    pod = await cluster.until_ready("p", ns)
    log = cluster.kubectl("-n", ns, "logs", "p")
    assert f"A=one PW=hush B=one-two IP={pod.status.podIP} NODE=n1 CPU=500" in log
    assert "hellohushhello" in log
    assert 'app="x"' in log
    assert "token\n" in log
    assert "tmpfs" in log
    assert "written" in log
    status = pod.status
    assert (status.phase, status.qosClass, status.hostIP) == ("Running", "Guaranteed", "127.0.0.1")
    assert [c.type for c in status.conditions if c.status == "True"] == [
        "PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled",
    ]  # fmt: skip
    ready = status.containerStatuses[0]
    assert (ready.ready, ready.started, ready.restartCount) == (True, True, 0)
    assert ready.containerID.startswith("containerd://")
    assert ready.imageID


async def test_config_map_files_follow_the_object(cluster: Cluster) -> None:
    ns = cluster.namespace
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "cm", "namespace": ns},
        "data": {"k": "old"},
    }
    await cluster.client.create(kinds.CONFIG_MAP, config, ns)
    script = (
        "until grep -q new /cm/k; do sleep 0.05; done; echo seen; trap 'exit 0' TERM; while true; do sleep 0.05; done"
    )
    container = busybox(script=script, volumeMounts=[{"name": "cm", "mountPath": "/cm"}])
    await cluster.pod("p", ns, {"containers": [container], "volumes": [{"name": "cm", "configMap": {"name": "cm"}}]})
    await cluster.until_ready("p", ns)
    await cluster.client.patch(kinds.CONFIG_MAP, "cm", ns, {"data": {"k": "new"}})
    for _ in range(100):
        if "seen" in cluster.kubectl("-n", ns, "logs", "p"):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the file did not follow")


async def test_exec_carries_streams_and_exit_code(cluster: Cluster) -> None:
    ns = cluster.namespace
    await cluster.pod("p", ns, {"containers": [busybox()]})
    await cluster.until_ready("p", ns)
    assert cluster.kubectl("-n", ns, "exec", "p", "--", "echo", "hi") == "hi\n"
    out = cluster.kubectl("-n", ns, "exec", "p", "--", "sh", "-c", "exit 7", check=False)
    assert "exit code 7" in out


async def test_a_failed_container_is_restarted_with_back_off(cluster: Cluster) -> None:
    ns = cluster.namespace
    container = busybox(script="echo bye > /dev/termination-log; exit 3")
    await cluster.pod("p", ns, {"containers": [container]})
    pod = await cluster.wait(
        kinds.POD, "p", ns,
        lambda p: bool(
            p.status.containerStatuses
            and p.status.containerStatuses[0].state.waiting
            and p.status.containerStatuses[0].state.waiting.reason == "CrashLoopBackOff"
        ),
    )  # fmt: skip
    entry = pod.status.containerStatuses[0]
    assert entry.restartCount >= 1
    assert "back-off 10s restarting failed container=c" in entry.state.waiting.message
    last = entry.lastState.terminated
    assert (last.exitCode, last.reason, last.message) == (3, "Error", "bye\n")
    assert pod.status.phase == "Running"
    for words in (
        "Container created", "Container started",
        f"Back-off restarting failed container c in pod p_{ns}({pod.metadata.uid})",
    ):  # fmt: skip
        await cluster.told(ns, words)


async def test_a_pod_that_ends_is_succeeded_or_failed(cluster: Cluster) -> None:
    ns = cluster.namespace
    for name, script, phase, reason in (
        ("good", "exit 0", "Succeeded", "Completed"),
        ("bad", "exit 1", "Failed", "Error"),
    ):
        await cluster.pod(name, ns, {"restartPolicy": "Never", "containers": [busybox(script=script)]})
        pod = await cluster.wait(kinds.POD, name, ns, lambda p, phase=phase: bool(p.status and p.status.phase == phase))
        assert pod.status.containerStatuses[0].state.terminated.reason == reason


async def test_init_containers_run_in_order_before_the_rest(cluster: Cluster) -> None:
    ns = cluster.namespace
    mounts = [{"name": "e", "mountPath": "/e"}]
    inits = [busybox(f"i{n}", f"echo {n} >> /e/order", volumeMounts=mounts) for n in (1, 2, 3)]
    script = "cat /e/order; trap 'exit 0' TERM; while true; do sleep 0.05; done"
    spec = {
        "initContainers": inits,
        "containers": [busybox(script=script, volumeMounts=mounts)],
        "volumes": [{"name": "e", "emptyDir": {}}],
    }
    await cluster.pod("p", ns, spec)
    pod = await cluster.until_ready("p", ns)
    assert cluster.kubectl("-n", ns, "logs", "p") == "1\n2\n3\n"
    assert [c.state.terminated.reason for c in pod.status.initContainerStatuses] == ["Completed"] * 3


async def test_a_deleted_pod_ends_gracefully_and_leaves_nothing(cluster: Cluster) -> None:
    ns = cluster.namespace
    marker = cluster.node.directory / "marker"
    marker.mkdir(exist_ok=True)
    script = "trap 'echo bye > /marker/x; exit 0' TERM; while true; do sleep 0.05; done"
    spec = {
        "containers": [busybox(script=script, volumeMounts=[{"name": "h", "mountPath": "/marker"}])],
        "volumes": [{"name": "h", "hostPath": {"path": str(marker), "type": "Directory"}}],
    }
    created = await cluster.pod("p", ns, spec)
    await cluster.until_ready("p", ns)
    await cluster.client.delete(kinds.POD, "p", ns, grace_period_seconds=5)
    await cluster.gone("p", ns, 6)
    assert (marker / "x").read_text() == "bye\n"
    assert not (cluster.node.root / "pods" / created.metadata.uid).exists()


async def test_a_pod_deleted_by_force_does_not_live_out_its_grace_period(cluster: Cluster) -> None:
    ns, marker = cluster.namespace, "sleep\x003579\x00"
    script = "trap '' TERM; sleep 3579 & while true; do sleep 1; done"
    await cluster.pod("p", ns, {"containers": [busybox(script=script)], "terminationGracePeriodSeconds": 600})
    await cluster.until_ready("p", ns)

    def alive() -> bool:
        return any(_command(name) == marker for name in os.listdir("/proc") if name.isdigit())

    assert alive()
    cluster.kubectl("delete", "pod", "p", "-n", ns, "--grace-period=0", "--force")

    def wait_ended() -> None:
        deadline = time.monotonic() + 60
        while alive():
            assert time.monotonic() < deadline, "it still runs"
            time.sleep(0.1)

    await asyncio.to_thread(wait_ended)


def _command(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
