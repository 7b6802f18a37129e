"""The real apiserver keeps the ApiServer contract: a process of its own, over mutual TLS."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from machinery.api import kinds
from machinery.client.api_client import ApiClient
from tests.contract.apiserver_suite import ApiServerContract
from tests.support.apiserver_process import ApiServerProcess, files

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServerProcess]:
    directory: Path = tmp_path_factory.mktemp("apiserver")
    process = ApiServerProcess(directory).start()
    yield process
    assert process.stop() == 0, process.log


@pytest.fixture
async def client(server: ApiServerProcess) -> AsyncIterator[ApiClient]:
    client = await ApiClient.connect(server.grpc, files(server.admin), user_agent="contract")
    yield client
    await client.close()


@pytest.fixture
async def namespace(client: ApiClient) -> str:
    name = f"contract-{next(_numbers)}"
    await client.create(kinds.NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    # The controller that makes it is not part of this test.
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    await client.create(kinds.SERVICE_ACCOUNT, account, name)
    return name


class TestRealApiServer(ApiServerContract):
    pass
