"""Last words and exit codes, restart policies, readiness gates, hooks, modes of files, copies and logs of a pod."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from machinery.api import kinds
from machinery.client.api_client import PatchType
from tests.support.kubelet_node import Cluster, b64, busybox, is_ready

pytestmark = pytest.mark.root
LIVE = "trap 'exit 0' TERM; while true; do sleep 0.05; done"


def over(pod: Any) -> bool:
    return bool(pod.status and pod.status.phase in ("Succeeded", "Failed"))


async def test_last_words_and_exit_codes_are_told_by_each_containers_policy(cluster: Cluster) -> None:
    ns = cluster.namespace
    log = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    containers = [
        busybox("file", "echo log; printf words > /own/message; exit 4", terminationMessagePath="/own/message"),
        busybox("log", "echo from the log; exit 5", **log),
        busybox("well", "echo from the log; exit 0", **log),
        busybox("long", "yes 0123456789 | head -c 6000 > /dev/termination-log"),
        busybox("killed", "sh -c 'kill -9 $$$$'; exit $?"),
    ]
    await cluster.pod("p", ns, {"restartPolicy": "Never", "containers": containers})
    pod = await cluster.wait(kinds.POD, "p", ns, over)
    assert pod.status.phase == "Failed"
    ends = {entry.name: entry.state.terminated for entry in pod.status.containerStatuses}
    assert (ends["file"].exitCode, ends["file"].reason, ends["file"].message) == (4, "Error", "words")
    assert (ends["log"].exitCode, ends["log"].message) == (5, "from the log\n")
    assert (ends["well"].exitCode, ends["well"].reason, ends["well"].message) == (0, "Completed", None)
    assert len(ends["long"].message) == 4096
    assert (ends["killed"].exitCode, ends["killed"].reason) == (137, "Error")
    conditions = {c.type: (c.status, c.reason) for c in pod.status.conditions}
    assert conditions["Ready"] == conditions["ContainersReady"] == ("False", "PodFailed")
    assert all(c.observedGeneration == pod.metadata.generation for c in pod.status.conditions if c.type == "Ready")


async def test_on_failure_restarts_what_failed_and_not_what_ended_well(cluster: Cluster) -> None:
    ns = cluster.namespace
    mount = {"volumeMounts": [{"name": "e", "mountPath": "/e"}]}
    once = "test -e /e/been || { touch /e/been; exit 3; }"
    spec = {
        "restartPolicy": "OnFailure",
        "containers": [busybox("again", once, **mount), busybox("well", "exit 0")],
        "volumes": [{"name": "e", "emptyDir": {}}],
    }
    await cluster.pod("p", ns, spec)
    pod = await cluster.wait(kinds.POD, "p", ns, over, 40)
    assert pod.status.phase == "Succeeded"
    again, well = pod.status.containerStatuses
    assert (again.restartCount, again.lastState.terminated.exitCode) == (1, 3)
    assert (well.restartCount, well.state.terminated.exitCode) == (0, 0)


async def test_a_readiness_gate_holds_the_pod_back_until_its_condition_is_true(cluster: Cluster) -> None:
    ns, gate = cluster.namespace, "example.com/fit"
    await cluster.pod("p", ns, {"readinessGates": [{"conditionType": gate}], "containers": [busybox()]})

    def waits(pod: Any) -> bool:
        found = {c.type: c for c in pod.status.conditions or ()} if pod.status else {}
        return "Ready" in found and found["ContainersReady"].status == "True"

    pod = await cluster.wait(kinds.POD, "p", ns, waits)
    ready = next(c for c in pod.status.conditions if c.type == "Ready")
    assert (ready.status, ready.reason) == ("False", "ReadinessGatesNotReady")
    assert ready.message == f'corresponding condition of pod readiness gate "{gate}" does not exist.'
    patch = {"status": {"conditions": [{"type": gate, "status": "True"}]}}
    await cluster.client.patch(kinds.POD, "p", ns, patch, type=PatchType.STRATEGIC, subresource="status")
    await cluster.wait(kinds.POD, "p", ns, is_ready)


async def test_hooks_sleep_and_one_that_fails_ends_its_container(cluster: Cluster) -> None:
    ns = cluster.namespace
    sleepy = busybox("sleepy", LIVE, lifecycle={"preStop": {"sleep": {"seconds": 2}}})
    await cluster.pod("sleepy", ns, {"terminationGracePeriodSeconds": 20, "containers": [sleepy]})
    failing = busybox("c", LIVE, lifecycle={"postStart": {"exec": {"command": ["sh", "-c", "echo secret; exit 7"]}}})
    await cluster.pod("failing", ns, {"containers": [failing]})

    def failed(pod: Any) -> bool:
        entry = (pod.status.containerStatuses or [None])[0] if pod.status else None
        waiting = entry.state.waiting if entry is not None and entry.state else None
        return waiting is not None and waiting.reason in ("PostStartHookError", "CrashLoopBackOff")

    await cluster.wait(kinds.POD, "failing", ns, failed)
    await cluster.told(ns, "PostStartHook failed")
    events = await cluster.client.list(kinds.EVENT, ns)
    assert not any("secret" in (event.message or "") for event in events.items)
    await cluster.until_ready("sleepy", ns)
    began = time.monotonic()
    await cluster.client.delete(kinds.POD, "sleepy", ns)
    await cluster.gone("sleepy", ns)
    assert time.monotonic() - began >= 2


async def test_files_have_the_modes_that_were_asked_for_and_optional_ones_may_be_missing(cluster: Cluster) -> None:
    ns = cluster.namespace
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": ns}, "data": {"k": "v"}}
    await cluster.client.create(kinds.CONFIG_MAP, config, ns)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": ns}}
    await cluster.client.create(kinds.SECRET, {**secret, "data": {"a": b64("one"), "b": b64("two")}}, ns)
    sources = [
        {"configMap": {"name": "m", "items": [{"key": "k", "path": "deep/er/k", "mode": 0o440}]}},
        {"secret": {"name": "s", "items": [{"key": "b", "path": "b"}]}},
        {"configMap": {"name": "missing", "optional": True}},
        {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {"serviceAccountToken": {"path": "token", "audience": "somebody", "expirationSeconds": 600}},
    ]
    volumes = [
        {"name": "all", "projected": {"defaultMode": 0o400, "sources": sources}},
        {"name": "s", "secret": {"secretName": "s", "defaultMode": 0o111}},
        {"name": "gone", "secret": {"secretName": "missing", "optional": True}},
    ]
    script = (
        "cd /all; stat -Lc '%n %a' deep/er/k b name; ls; cat deep/er/k b name; echo; stat -Lc '%n %a' /s/*; ls /gone;"
        "touch /all/x 2>&1 | grep -o Read-only; " + LIVE
    )
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in ("all", "s", "gone")]
    await cluster.pod("p", ns, {"containers": [busybox(script=script, volumeMounts=mounts)], "volumes": volumes})
    await cluster.until_ready("p", ns)
    async with asyncio.timeout(20):
        while "Read-only" not in (log := await asyncio.to_thread(cluster.kubectl, "-n", ns, "logs", "p")):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert log.split() == [
        "deep/er/k", "440", "b", "400", "name", "400", "b", "deep", "name", "token", "vtwop", "/s/a", "111", "/s/b",
        "111", "Read-only",
    ]  # fmt: skip


async def test_files_are_copied_and_logs_are_cut_as_asked(cluster: Cluster, tmp_path: Path) -> None:
    ns = cluster.namespace
    script = f"for i in 1 2 3 4 5; do echo line $i; done; sleep 3; echo late; {LIVE}"
    await cluster.pod("p", ns, {"containers": [busybox(script=script)]})
    await cluster.until_ready("p", ns)
    (tmp_path / "there").write_bytes(os.urandom(200_000))

    async def kubectl(*arguments: str) -> str:
        return await asyncio.to_thread(cluster.kubectl, "-n", ns, *arguments)

    await kubectl("cp", str(tmp_path / "there"), "p:/tmp/there")
    await kubectl("cp", "p:/tmp/there", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == (tmp_path / "there").read_bytes()
    assert (await kubectl("logs", "p", "--limit-bytes=9")) == "line 1\nli"
    followed = await kubectl("logs", "p", "--pod-running-timeout=10s", "--tail=1", "-f", "--limit-bytes=12")
    assert followed in ("line 5\nlate\n", "late\n")
    async with asyncio.timeout(20):
        while await kubectl("logs", "p", "--since=1s"):  # noqa: ASYNC110 - time is what is waited for
            await asyncio.sleep(0.3)
    assert (await kubectl("logs", "p")).splitlines()[-1] == "late"


async def test_the_nodes_processes_and_shared_memory_are_seen_only_where_that_is_asked_for(cluster: Cluster) -> None:
    ns = cluster.namespace
    await cluster.pod("host", ns, {"hostPID": True, "hostIPC": True, "containers": [busybox()]})
    await cluster.pod("own", ns, {"containers": [busybox()]})
    for name in ("host", "own"):
        await cluster.until_ready(name, ns)

    async def said(pod: str, *command: str) -> str:
        return (await asyncio.to_thread(cluster.kubectl, "-n", ns, "exec", pod, "--", *command)).strip()

    assert await said("host", "readlink", "/proc/self/ns/ipc") == os.readlink("/proc/self/ns/ipc")
    assert await said("own", "readlink", "/proc/self/ns/ipc") != os.readlink("/proc/self/ns/ipc")
    mine = f"/proc/{os.getpid()}/comm"
    assert await said("host", "cat", mine) == (await asyncio.to_thread(Path(mine).read_text)).strip()
    assert await said("own", "sh", "-c", f"test -e {mine} || echo not seen") == "not seen"
