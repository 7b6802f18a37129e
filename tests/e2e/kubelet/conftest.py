"""A node for the tests of this folder: a real apiserver, a containerd of their own, a kubelet process. Started once a
session.

Over Cutaway's own CRI server; `CUTAWAY_TEST_RUNTIME=plugin` runs the same tests over containerd's CRI plugin.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from machinery.client.api_client import ApiClient
from tests.support.apiserver_process import ApiServerProcess, files
from tests.support.kubelet_node import Cluster, KubeletNode
from tests.support.private_containerd import PrivateContainerd, available

PORT = 21610


@pytest.fixture(scope="session")
def containerd() -> Iterator[PrivateContainerd]:
    if not available():
        pytest.skip("needs root, containerd, runc and busybox")
    with PrivateContainerd(shim=os.environ.get("CUTAWAY_TEST_RUNTIME") != "plugin") as daemon:
        yield daemon


@pytest.fixture(scope="session")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServerProcess]:
    server = ApiServerProcess(tmp_path_factory.mktemp("apiserver"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def node(containerd: PrivateContainerd, apiserver: ApiServerProcess) -> Iterator[KubeletNode]:
    shutdown = {"shutdown_grace_seconds": 12, "shutdown_grace_critical_seconds": 6}
    kubelet = KubeletNode(apiserver, containerd.endpoint, Path(containerd.dir) / "node", PORT, **shutdown)
    kubelet.start()
    yield kubelet
    if kubelet.process is not None:
        kubelet.stop()
    kubelet.clean()


@pytest_asyncio.fixture
async def cluster(
    apiserver: ApiServerProcess, node: KubeletNode, request: pytest.FixtureRequest
) -> AsyncIterator[Cluster]:
    """The cluster, with a namespace of the test's own as `cluster.namespace`."""
    client = await ApiClient.connect(apiserver.grpc, files(apiserver.admin), user_agent="test")
    cluster = Cluster(apiserver, client, node)
    cluster.namespace = request.node.name.lower().replace("_", "-").replace("[", "-").replace("]", "")[:50].strip("-")
    await cluster.prepare(cluster.namespace)
    await cluster.ready_node()
    try:
        yield cluster
    finally:
        await _delete_pods(cluster)
        await client.close()


async def _delete_pods(cluster: Cluster) -> None:
    from machinery.api import errors, kinds

    pods = (await cluster.client.list(kinds.POD, cluster.namespace)).items
    for pod in pods:
        try:
            await cluster.client.delete(kinds.POD, pod.metadata.name, cluster.namespace, grace_period_seconds=1)
        except errors.NotFound:
            continue
    await asyncio.gather(*(cluster.gone(pod.metadata.name, cluster.namespace) for pod in pods))
