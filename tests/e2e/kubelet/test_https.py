"""The kubelet's HTTPS API: who may read, and what it says."""

from __future__ import annotations

import asyncio
import json
import ssl
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.support.apiserver_process import files
from tests.support.kubelet_node import Cluster, busybox

pytestmark = pytest.mark.root


def fetch(cluster: Cluster, path: str, identity: Any = None, method: str = "GET") -> tuple[int, str]:
    context = ssl.create_default_context(cafile=str(cluster.apiserver.pki.ca_file))
    if identity is not None:
        tls = files(identity)
        context.load_cert_chain(tls.cert_file, tls.key_file)
    url = f"https://{cluster.node.settings['http_address']}{path}"
    try:
        request = urllib.request.Request(url, method=method)
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def test_health_for_all_the_rest_for_whom_the_apiserver_lets(cluster: Cluster) -> None:
    stranger = cluster.apiserver.pki.client("stranger", "stranger")
    admin = cluster.apiserver.admin

    async def get(path: str, identity: Any = None) -> tuple[int, str]:
        return await asyncio.to_thread(fetch, cluster, path, identity)

    assert (await get("/livez"))[0] == (await get("/readyz"))[0] == (await get("/healthz", admin))[0] == 200
    for path in (
        "/healthz",
        "/metrics",
        "/pods",
        "/stats/summary",
        "/metrics/resource",
        "/containerLogs/a/b/c",
        "/configz",
    ):
        assert (await get(path))[0] == 401, path
        assert (await get(path, stranger))[0] == 403, path
    assert (await get("/nothing", admin))[0] == 404
    metrics = (await get("/metrics", admin))[1]
    assert 'kubelet_started_containers_total{container_type="container"}' in metrics


async def test_a_checkpoint_is_refused_as_the_runtime_words_it(cluster: Cluster) -> None:
    ns, admin = cluster.namespace, cluster.apiserver.admin
    await cluster.pod("p", ns, {"containers": [busybox()]})
    await cluster.until_ready("p", ns)
    for path, expected in (
        (f"{ns}/p/c", (500, f"checkpointing of {ns}/p/c failed (")),
        (f"{ns}/p/other", (404, "container other does not exist")),
        (f"{ns}/other/c", (404, "pod does not exist")),
        (f"{ns}/p/c?timeout=soon", (404, "cannot parse value of timeout parameter")),
    ):
        status, text = await asyncio.to_thread(fetch, cluster, f"/checkpoint/{path}", admin, "POST")
        assert (status, text[: len(expected[1])]) == expected


async def test_pods_usage_and_logs(cluster: Cluster) -> None:
    ns = cluster.namespace
    await cluster.pod("p", ns, {"containers": [busybox(script="echo hello; while true; do :; done")]})
    await cluster.until_ready("p", ns)
    await asyncio.sleep(1.2)

    async def get(path: str) -> str:
        status, body = await asyncio.to_thread(fetch, cluster, path, cluster.apiserver.admin)
        assert status == 200, body
        return body

    pods = json.loads(await get("/pods"))
    assert ("p", "Running") in [(p["metadata"]["name"], p["status"]["phase"]) for p in pods["items"]]
    await get("/stats/summary")
    await asyncio.sleep(1.2)
    summary = json.loads(await get("/stats/summary"))
    pod = next(p for p in summary["pods"] if p["podRef"]["namespace"] == ns)
    assert pod["containers"][0]["memory"]["workingSetBytes"] > 0
    assert pod["cpu"]["usageNanoCores"] > 100_000_000
    assert summary["node"]["memory"]["workingSetBytes"] > 0
    metrics = await get("/metrics/resource")
    assert f'container_memory_working_set_bytes{{container="c",namespace="{ns}",pod="p"}}' in metrics
    assert await get(f"/containerLogs/{ns}/p/c?tailLines=1") == "hello\n"


async def test_a_summary_has_volumes_logs_network_and_file_systems(cluster: Cluster) -> None:
    ns = cluster.namespace
    container = busybox(
        script="dd if=/dev/zero of=/data/f bs=1k count=300 2>/dev/null; echo said; sleep 600",
        volumeMounts=[{"name": "e", "mountPath": "/data"}],
        readinessProbe={"exec": {"command": ["test", "-s", "/data/f"]}, "periodSeconds": 1},
    )
    await cluster.pod("p", ns, {"containers": [container], "volumes": [{"name": "e", "emptyDir": {}}]})
    await cluster.until_ready("p", ns)
    _, body = await asyncio.to_thread(fetch, cluster, "/stats/summary", cluster.apiserver.admin)
    summary = json.loads(body)
    pod = next(p for p in summary["pods"] if p["podRef"]["namespace"] == ns)
    volume = next(v for v in pod["volume"] if v["name"] == "e")
    assert volume["usedBytes"] >= 300 * 1024
    assert pod["ephemeral-storage"]["usedBytes"] >= 300 * 1024
    assert pod["containers"][0]["logs"]["inodesUsed"] == 1
    assert summary["node"]["runtime"]["imageFs"]["usedBytes"] > 0
    assert summary["node"]["rlimit"]["curproc"] > 0
    _, body = await asyncio.to_thread(fetch, cluster, "/runningpods", cluster.apiserver.admin)
    names = [
        c["name"]
        for p in json.loads(body)["items"]
        if p["metadata"]["namespace"] == ns
        for c in p["spec"]["containers"]
    ]
    assert names == ["c"]


async def test_configuration_and_logs_of_the_node(cluster: Cluster) -> None:
    admin, stranger = cluster.apiserver.admin, cluster.apiserver.pki.client("stranger", "stranger")
    _, body = await asyncio.to_thread(fetch, cluster, "/configz", admin)
    config = json.loads(body)["kubeletconfig"]
    assert (config["kind"], config["maxPods"], config["cgroupDriver"]) == ("KubeletConfiguration", 110, "cgroupfs")
    assert not [value for value in config.values() if ".key" in str(value)]
    assert (await asyncio.to_thread(fetch, cluster, "/logs/", stranger))[0] == 403
    path = "/logs/?query=kubelet&tailLines=5&pattern=kubelet+runs"
    status, body = await asyncio.to_thread(fetch, cluster, path, admin)
    assert (status, "kubelet runs" in body) == (200, True)
    assert (await asyncio.to_thread(fetch, cluster, "/logs/?query=kubelet&tailLines=x", admin))[0] == 400
    assert (await asyncio.to_thread(fetch, cluster, "/logs/../kubelet.yaml", admin))[0] in (400, 404)
