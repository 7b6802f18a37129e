r"""The scheduler's contract: ours beside an apiserver, and whatever works in the cluster at an address.

    CUTAWAY_CONTRACT_APISERVER=HOST:PORT CUTAWAY_CONTRACT_PKI=FOLDER \
        pytest tests/contract/test_scheduler.py -k TestGiven

judges the scheduler of that cluster, in whatever language: its own one, or what `cutaway swap scheduler` put there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from machinery.client.api_client import ApiClient
from tests.contract import given
from tests.contract.scheduler_suite import SchedulerContract
from tests.support.apiserver_process import ApiServerProcess, files
from tests.support.scheduler_process import SchedulerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServerProcess]:
    """An apiserver with our scheduler."""
    directory = tmp_path_factory.mktemp("scheduler-contract")
    apiserver = ApiServerProcess(directory).start()
    scheduler = SchedulerProcess(apiserver, directory)
    scheduler.start()
    yield apiserver
    assert scheduler.stop() == 0
    apiserver.stop()


class TestOurScheduler(SchedulerContract):
    """Ours."""

    @pytest.fixture
    async def client(self, server: ApiServerProcess) -> AsyncIterator[ApiClient]:
        made = await ApiClient.connect(server.grpc, files(server.admin), user_agent="contract")
        yield made
        await made.close()

    @pytest.fixture
    async def namespace(self, client: ApiClient) -> AsyncIterator[str]:
        async with given.namespace_of(client) as name:
            yield name


class TestGivenScheduler(SchedulerContract):
    """That of a cluster; no tests at all where none is named."""

    __test__ = bool(given.ADDRESS)

    @pytest.fixture
    async def client(self) -> AsyncIterator[ApiClient]:
        async with given.client_of_given() as made:
            yield made

    @pytest.fixture
    async def namespace(self, client: ApiClient) -> AsyncIterator[str]:
        async with given.namespace_of(client) as name:
            yield name
