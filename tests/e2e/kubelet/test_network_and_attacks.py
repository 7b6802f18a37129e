"""Port-forward, attach, names in a pod, and what a pod may not reach."""

from __future__ import annotations

import asyncio
import subprocess
import urllib.request
from typing import Any

import pytest

from machinery.api import kinds
from tests.support.apiserver_process import free_port
from tests.support.kubelet_node import Cluster, busybox

pytestmark = pytest.mark.root
LIVE = "trap 'exit 0' TERM; while true; do sleep 0.05; done"


def start(command: list[str], **streams: Any) -> subprocess.Popen[bytes]:
    """A program whose output the test reads."""
    return subprocess.Popen(command, stdout=subprocess.PIPE, **streams)


async def test_port_forward_reaches_a_server_on_loopback_only(cluster: Cluster) -> None:
    ns = cluster.namespace
    script = f"mkdir /w; echo hello > /w/index.html; httpd -p 127.0.0.1:8080 -h /w; {LIVE}"
    await cluster.pod("p", ns, {"containers": [busybox(script=script)]})
    await cluster.until_ready("p", ns)
    port = free_port()
    config = str(cluster.apiserver.kubeconfig())
    command = ["kubectl", "--kubeconfig", config, "-n", ns, "port-forward", "pod/p", f"{port}:8080"]
    process = start(command, stderr=subprocess.STDOUT)
    try:
        await asyncio.to_thread(process.stdout.readline)
        for _ in range(3):
            body = await asyncio.to_thread(
                lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
            )
            assert body == b"hello\n"
    finally:
        process.terminate()
        process.wait(5)


async def test_exec_with_stdin_and_attach(cluster: Cluster) -> None:
    ns = cluster.namespace
    container = {**busybox(), "command": ["cat"], "stdin": True}
    await cluster.pod("p", ns, {"containers": [container]})
    await cluster.until_ready("p", ns)
    if "cri.sock" in cluster.node.settings["runtime_endpoint"]:  # containerd 1.6 can't be told the end of stdin
        out = await asyncio.to_thread(
            lambda: cluster.kubectl("-n", ns, "exec", "-i", "p", "--", "sh", "-c", "cat; echo end", input="in\n")
        )
        assert out == "in\nend\n"
    command = ["kubectl", "--kubeconfig", str(cluster.apiserver.kubeconfig()), "-n", ns, "attach", "-i", "p"]
    process = start(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        process.stdin.write(b"echoed\n")
        process.stdin.flush()
        line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), 10)
        assert line == b"echoed\n"
    finally:
        process.kill()
        process.wait(5)


async def test_names_in_a_pod(cluster: Cluster) -> None:
    ns = cluster.namespace
    spec = {
        "hostname": "web",
        "subdomain": "sub",
        "hostAliases": [{"ip": "10.9.8.7", "hostnames": ["one", "two"]}],
        "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]},
        "containers": [busybox(script=f"hostname; cat /etc/hosts /etc/resolv.conf; {LIVE}")],
    }
    await cluster.pod("p", ns, spec)
    pod = await cluster.until_ready("p", ns)
    log = cluster.kubectl("-n", ns, "logs", "p")
    assert log.startswith("web\n")
    assert f"{pod.status.podIP}\tweb.sub.{ns}.svc.cluster.local\tweb" in log
    assert "10.9.8.7\tone\ttwo" in log
    assert "nameserver 10.96.0.10" in log
    assert f"search {ns}.svc.cluster.local svc.cluster.local cluster.local" in log
    assert "ndots:2" in log


async def test_host_network_and_shared_processes(cluster: Cluster) -> None:
    ns = cluster.namespace
    await cluster.pod("host", ns, {"hostNetwork": True, "containers": [busybox()]})
    pod = await cluster.until_ready("host", ns)
    assert pod.status.podIP == pod.status.hostIP == "127.0.0.1"
    spec = {"shareProcessNamespace": True, "containers": [busybox("a"), busybox("b", f"sleep 0.5; ps; {LIVE}")]}
    await cluster.pod("shared", ns, spec)
    await cluster.until_ready("shared", ns)
    await asyncio.sleep(1)
    assert cluster.kubectl("-n", ns, "logs", "shared", "-c", "b").count("trap") >= 2


async def test_a_sub_path_link_does_not_lead_out_of_its_volume(cluster: Cluster) -> None:
    ns = cluster.namespace
    secret = cluster.node.directory / "secret"
    secret.mkdir(exist_ok=True)
    (secret / "token").write_text("stolen")
    shared = [{"name": "e", "mountPath": "/e"}]
    spec = {
        "initContainers": [busybox("i", f"ln -s {secret} /e/link; ln -s /etc /e/etc", volumeMounts=shared)],
        "containers": [busybox(volumeMounts=[{"name": "e", "mountPath": "/out", "subPath": "link"}])],
        "volumes": [{"name": "e", "emptyDir": {}}],
    }
    await cluster.pod("p", ns, spec)
    pod = await cluster.wait(
        kinds.POD, "p", ns,
        lambda p: bool(
            p.status and p.status.containerStatuses and p.status.containerStatuses[0].state.waiting
            and p.status.containerStatuses[0].state.waiting.reason == "CreateContainerConfigError"
        ),
    )  # fmt: skip
    assert "leads out of its volume" in pod.status.containerStatuses[0].state.waiting.message


async def test_an_ephemeral_container_joins(cluster: Cluster) -> None:
    ns = cluster.namespace
    await cluster.pod("p", ns, {"containers": [busybox()]})
    await cluster.until_ready("p", ns)
    out = await asyncio.to_thread(
        lambda: cluster.kubectl(
            "-n",
            ns,
            "debug",
            "p",
            "--image=busybox:1.36",
            "--target=c",
            "--container=dbg",
            "--",
            "sh",
            "-c",
            "ps; exit 0",
        )
    )
    pod = await cluster.wait(
        kinds.POD, "p", ns,
        lambda p: bool(p.status.ephemeralContainerStatuses and p.status.ephemeralContainerStatuses[0].state.terminated),
    )  # fmt: skip
    assert pod.status.ephemeralContainerStatuses[0].state.terminated.exitCode == 0, out
    assert "trap" in cluster.kubectl("-n", ns, "logs", "p", "-c", "dbg")
