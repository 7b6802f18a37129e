"""One real apiserver for the folder, an HTTP client for it, and a kubelet behind a node and a pod."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.integration.apiserver_rest import fake_kubelet
from tests.support.apiserver_process import ApiServerProcess, files
from tests.support.kubectl import Kubectl


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServerProcess]:
    """The apiserver."""
    process = ApiServerProcess(tmp_path_factory.mktemp("apiserver")).start()
    yield process
    process.stop()


@pytest.fixture(scope="module")
def kubectl(server: ApiServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """kubectl as the administrator, in a namespace with a service account."""
    admin = Kubectl(server.kubeconfig(), tmp_path_factory.mktemp("home"))
    admin("create", "serviceaccount", "default", "-n", "default")
    return admin


@pytest_asyncio.fixture
async def http(server: ApiServerProcess) -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client as the administrator."""
    import ssl

    context = ssl.create_default_context(cafile=str(server.admin.ca_file))
    context.load_cert_chain(server.admin.cert_file, server.admin.key_file)
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    async with aiohttp.ClientSession(server.url, connector=connector) as session:
        yield session


@pytest_asyncio.fixture
async def kubelet(server: ApiServerProcess, kubectl: Kubectl) -> AsyncIterator[fake_kubelet.EchoKubelet]:
    """A kubelet that runs what it is told here, and the pod `box` on its node."""
    identity = server.pki.server("kubelet-server", "system:node:n1", ["127.0.0.1"])
    running, port, service = await fake_kubelet.start(files(identity))

    def cluster_state() -> None:
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "n1", "annotations": {"cutaway.dev/kubelet-grpc": f"127.0.0.1:{port}"}},
        }
        pod: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "box", "namespace": "default"},
            "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "x"}]},
        }
        import json

        kubectl("apply", "-f", "-", stdin=json.dumps(node))
        kubectl("apply", "-f", "-", stdin=json.dumps(pod))
        status = (
            '{"status":{"phase":"Running","containerStatuses":[{"name":"main","ready":true,"image":"x","imageID":""'
        )
        status += ',"restartCount":0,"state":{"running":{"startedAt":"2026-01-01T00:00:00Z"}}}]}}'
        kubectl("patch", "pod", "box", "--subresource=status", "--type=merge", "-p", status)

    await asyncio.to_thread(cluster_state)
    yield service
    await running.stop(0)
