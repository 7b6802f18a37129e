"""The ApiServer contract against whatever answers at an address: another implementation, in whatever language.

    CUTAWAY_CONTRACT_APISERVER=HOST:PORT CUTAWAY_CONTRACT_PKI=FOLDER pytest tests/contract/test_apiserver_given.py

The folder holds ca.crt, and admin.crt with admin.key of a client that may do everything. It works in namespaces of its
own, which it deletes. Schedulers and controllers that act on what it makes must not run meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from machinery.client.api_client import ApiClient
from tests.contract import given
from tests.contract.apiserver_suite import ApiServerContract


@pytest.fixture
async def client() -> AsyncIterator[ApiClient]:
    async with given.client_of_given() as made:
        yield made


@pytest.fixture
async def namespace(client: ApiClient) -> AsyncIterator[str]:
    async with given.namespace_of(client) as name:
        yield name


class TestGivenApiServer(ApiServerContract):
    """The suite, as it is; no tests at all where no server is named."""

    __test__ = bool(given.ADDRESS)
