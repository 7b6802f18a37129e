"""Probes, hooks, sidecars and ends, on real containers."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from machinery.api import kinds
from tests.support.kubelet_node import Cluster, busybox, is_ready

pytestmark = pytest.mark.root

LIVE = "trap 'exit 0' TERM; while true; do sleep 0.05; done"


def first(pod: Any) -> Any:
    return pod.status.containerStatuses[0] if pod.status and pod.status.containerStatuses else None


async def test_readiness_by_exec_http_and_tcp(cluster: Cluster) -> None:
    ns = cluster.namespace
    serve = f"mkdir /w; echo ok > /w/index.html; httpd -p 8080 -h /w; touch /tmp/ready; {LIVE}"
    probes = {
        "exec": {"exec": {"command": ["test", "-e", "/tmp/ready"]}},
        "http": {"httpGet": {"port": "web", "path": "/index.html"}},
        "tcp": {"tcpSocket": {"port": 8080}},
    }
    for name, probe in probes.items():
        container = busybox(
            script=serve, ports=[{"name": "web", "containerPort": 8080}], readinessProbe={**probe, "periodSeconds": 1}
        )
        await cluster.pod(name, ns, {"containers": [container]})
    for name in probes:
        await cluster.until_ready(name, ns, 10)
    cluster.kubectl("-n", ns, "exec", "exec", "--", "rm", "/tmp/ready")

    def is_unready(pod: Any) -> bool:
        return not is_ready(pod)

    pod = await cluster.wait(kinds.POD, "exec", ns, is_unready, 10)
    reasons = {c.type: c.reason for c in pod.status.conditions}
    assert reasons["Ready"] == "ContainersNotReady"


async def test_a_failing_liveness_probe_restarts_the_container(cluster: Cluster) -> None:
    ns = cluster.namespace
    probe = {"exec": {"command": ["test", "!", "-e", "/tmp/dead"]}, "periodSeconds": 1, "failureThreshold": 1}
    await cluster.pod("p", ns, {"containers": [busybox(livenessProbe=probe)]})
    await cluster.until_ready("p", ns)
    cluster.kubectl("-n", ns, "exec", "p", "--", "touch", "/tmp/dead")
    pod = await cluster.wait(kinds.POD, "p", ns, lambda p: first(p).restartCount == 1 and is_ready(p), 10)
    assert first(pod).lastState.terminated is not None
    await cluster.told(ns, "Liveness probe failed")


async def test_readiness_waits_for_the_startup_probe(cluster: Cluster) -> None:
    ns = cluster.namespace
    container = busybox(
        script=f"sleep 1; touch /tmp/up; {LIVE}",
        startupProbe={"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 10},
        livenessProbe={"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 1},
    )
    await cluster.pod("p", ns, {"containers": [container]})
    running = await cluster.wait(kinds.POD, "p", ns, lambda p: bool(first(p) and first(p).state.running))
    assert first(running).started is False
    pod = await cluster.until_ready("p", ns, 10)
    assert (first(pod).started, first(pod).restartCount) == (True, 0)


async def test_sidecars_start_before_and_end_after_the_rest(cluster: Cluster) -> None:
    ns = cluster.namespace
    mounts = [{"name": "h", "mountPath": "/h"}]
    shared = cluster.node.directory / "sidecars"
    shared.mkdir(exist_ok=True)

    def told(name: str) -> str:
        end = f"trap 'echo end-{name} >> /h/log; exit 0' TERM"
        return f"echo start-{name} >> /h/log; {end}; while true; do sleep 0.05; done"

    spec = {
        "terminationGracePeriodSeconds": 8,
        "initContainers": [
            busybox("s1", told("s1"), restartPolicy="Always", volumeMounts=mounts),
            busybox("i", "echo init >> /h/log", volumeMounts=mounts),
            busybox("s2", told("s2"), restartPolicy="Always", volumeMounts=mounts),
        ],
        "containers": [busybox("c", told("c"), volumeMounts=mounts)],
        "volumes": [{"name": "h", "hostPath": {"path": str(shared)}}],
    }
    await cluster.pod("p", ns, spec)
    await cluster.until_ready("p", ns)
    await asyncio.sleep(0.5)
    await cluster.client.delete(kinds.POD, "p", ns)
    await cluster.gone("p", ns)
    lines = (shared / "log").read_text().split()
    assert lines == ["start-s1", "init", "start-s2", "start-c", "end-c", "end-s2", "end-s1"]


async def test_a_job_like_pod_with_a_sidecar_succeeds(cluster: Cluster) -> None:
    ns = cluster.namespace
    spec = {
        "restartPolicy": "Never",
        "initContainers": [busybox("side", restartPolicy="Always")],
        "containers": [busybox("main", "sleep 0.3; exit 0")],
    }
    await cluster.pod("p", ns, spec)
    pod = await cluster.wait(kinds.POD, "p", ns, lambda p: bool(p.status and p.status.phase == "Succeeded"))
    assert pod.status.initContainerStatuses[0].state.terminated is not None


async def test_hooks_run_after_the_start_and_before_the_end(cluster: Cluster) -> None:
    ns = cluster.namespace
    shared = cluster.node.directory / "hooks"
    shared.mkdir(exist_ok=True)
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo post >> /h/log"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo pre >> /h/log"]}},
    }
    script = "trap 'echo term >> /h/log; exit 0' TERM; while true; do sleep 0.05; done"
    container = busybox(script=script, lifecycle=hooks, volumeMounts=[{"name": "h", "mountPath": "/h"}])
    volumes = [{"name": "h", "hostPath": {"path": str(shared)}}]
    await cluster.pod("p", ns, {"terminationGracePeriodSeconds": 5, "containers": [container], "volumes": volumes})
    await cluster.until_ready("p", ns)
    await cluster.client.delete(kinds.POD, "p", ns)
    await cluster.gone("p", ns)
    assert (shared / "log").read_text().split() == ["post", "pre", "term"]


async def test_a_container_that_ignores_term_is_killed_after_its_grace(cluster: Cluster) -> None:
    ns = cluster.namespace
    await cluster.pod("p", ns, {"containers": [busybox(script="trap '' TERM; while true; do sleep 0.05; done")]})
    await cluster.until_ready("p", ns)
    began = time.monotonic()
    await cluster.client.delete(kinds.POD, "p", ns, grace_period_seconds=2)
    await cluster.gone("p", ns)
    assert 1.8 < time.monotonic() - began < 4.5


async def test_readiness_is_told_until_the_pod_has_ended(cluster: Cluster) -> None:
    ns = cluster.namespace
    script = "touch /tmp/ready; trap 'rm -f /tmp/ready' TERM; while true; do sleep 0.05; done"
    probe = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1, "failureThreshold": 1}
    await cluster.pod("p", ns, {"containers": [busybox(script=script, readinessProbe=probe)]})
    await cluster.until_ready("p", ns)
    await cluster.client.delete(kinds.POD, "p", ns, grace_period_seconds=60)

    def drains(pod: Any) -> bool:
        return pod.metadata.deletionTimestamp is not None and not is_ready(pod) and first(pod).state.running is not None

    await cluster.wait(kinds.POD, "p", ns, drains, 20)
    # Shortened and not forced: by force the object would go, and the container keep its minute.
    await cluster.client.delete(kinds.POD, "p", ns, grace_period_seconds=1)
    await cluster.gone("p", ns)


async def test_a_pod_over_its_deadline_fails(cluster: Cluster) -> None:
    ns = cluster.namespace
    await cluster.pod("p", ns, {"activeDeadlineSeconds": 1, "containers": [busybox()]})
    pod = await cluster.wait(kinds.POD, "p", ns, lambda p: bool(p.status and p.status.phase == "Failed"), 10)
    assert pod.status.reason == "DeadlineExceeded"


async def test_what_is_missing_is_said_in_the_status(cluster: Cluster) -> None:
    ns = cluster.namespace
    env = [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "k"}}}]
    await cluster.pod("config", ns, {"containers": [busybox(env=env)]})
    await cluster.pod("command", ns, {"containers": [{**busybox(), "command": ["/no/such/program"]}]})
    image = {"name": "c", "image": "localhost:1/none:1", "imagePullPolicy": "IfNotPresent"}
    await cluster.pod("image", ns, {"containers": [image]})
    await cluster.pod("user", ns, {"securityContext": {"runAsNonRoot": True}, "containers": [busybox()]})

    def waits_for(*reasons: str) -> Any:
        def test(pod: Any) -> bool:
            return bool(first(pod) and first(pod).state.waiting and first(pod).state.waiting.reason in reasons)

        return test

    pod = await cluster.wait(kinds.POD, "config", ns, waits_for("CreateContainerConfigError"))
    assert first(pod).state.waiting.message == 'configmap "absent" not found'
    await cluster.wait(kinds.POD, "command", ns, waits_for("RunContainerError", "CrashLoopBackOff"))
    pod = await cluster.wait(kinds.POD, "image", ns, waits_for("ErrImagePull"))
    assert pod.status.phase == "Pending"
    reason = first(pod).state.waiting.message
    pod = await cluster.wait(kinds.POD, "image", ns, waits_for("ImagePullBackOff"))
    assert first(pod).state.waiting.message == f'Back-off pulling image "localhost:1/none:1": ErrImagePull: {reason}'
    for words in ("Error: ErrImagePull", "Error: ImagePullBackOff"):
        await cluster.told(ns, words)
    pod = await cluster.wait(kinds.POD, "user", ns, waits_for("CreateContainerConfigError"))
    assert "runAsNonRoot" in first(pod).state.waiting.message
    # The missing config map comes, and the pod goes on by itself.
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "absent", "namespace": ns},
        "data": {"k": "v"},
    }
    await cluster.client.create(kinds.CONFIG_MAP, config, ns)
    await cluster.until_ready("config", ns, 10)


async def test_previous_logs_tail_and_timestamps(cluster: Cluster) -> None:
    ns = cluster.namespace
    mounts = [{"name": "e", "mountPath": "/e"}]
    script = f"if [ -e /e/x ]; then seq 3; {LIVE}; fi; touch /e/x; echo first; exit 1"
    spec = {"containers": [busybox(script=script, volumeMounts=mounts)], "volumes": [{"name": "e", "emptyDir": {}}]}
    await cluster.pod("p", ns, spec)
    await cluster.wait(kinds.POD, "p", ns, lambda p: bool(first(p) and first(p).restartCount == 1 and is_ready(p)))
    assert cluster.kubectl("-n", ns, "logs", "p", "--previous") == "first\n"
    for _ in range(50):
        if cluster.kubectl("-n", ns, "logs", "p") == "1\n2\n3\n":
            break
        await asyncio.sleep(0.1)
    assert cluster.kubectl("-n", ns, "logs", "p", "--tail=1") == "3\n"
    stamped = cluster.kubectl("-n", ns, "logs", "p", "--timestamps", "--tail=1").split()
    assert stamped[0].startswith("20")
    assert stamped[1] == "3"


async def test_security_context_reaches_the_process(cluster: Cluster) -> None:
    ns = cluster.namespace
    script = "id; touch /x 2>&1; stat -c %g /e; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; " + LIVE
    security = {
        "runAsUser": 1234, "runAsGroup": 2345, "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    spec = {
        "securityContext": {"fsGroup": 3456, "supplementalGroups": [4567]},
        "containers": [
            busybox(script=script, securityContext=security, volumeMounts=[{"name": "e", "mountPath": "/e"}])
        ],
        "volumes": [{"name": "e", "emptyDir": {}}],
    }
    await cluster.pod("p", ns, spec)
    await cluster.until_ready("p", ns)
    log = cluster.kubectl("-n", ns, "logs", "p")
    assert "uid=1234 gid=2345" in log
    assert "3456" in log.splitlines()[0]
    assert "4567" in log.splitlines()[0]
    assert "Read-only file system" in log
    assert "NoNewPrivs:\t1" in log
    assert "CapEff:\t0000000000000000" in log
    assert "Seccomp:\t2" in log
