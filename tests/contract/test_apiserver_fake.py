"""The fake apiserver keeps the ApiServer contract, so that it may stand in for the real one in unit tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from machinery.client.api_client import ApiClient
from machinery.client.fake import FakeApiServer
from tests.contract.apiserver_suite import ApiServerContract


@pytest.fixture
async def client() -> AsyncIterator[ApiClient]:
    async with FakeApiServer() as server:
        yield await server.client()


@pytest.fixture
def namespace() -> str:
    return "contract"


class TestFakeApiServer(ApiServerContract):
    pass
