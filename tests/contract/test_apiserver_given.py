"""The ApiServer contract against whatever answers at an address: another implementation, in whatever language.

    CUTAWAY_CONTRACT_APISERVER=HOST:PORT CUTAWAY_CONTRACT_PKI=FOLDER pytest tests/contract/test_apiserver_given.py

The folder holds ca.crt, and admin.crt with admin.key of a client that may do everything. It works in namespaces of its
own, which it deletes. Schedulers and controllers that act on what it makes must not run meanwhile.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from machinery.api import errors, kinds
from machinery.client.api_client import ApiClient
from machinery.component.tls import TlsFiles
from tests.contract.apiserver_suite import ApiServerContract

ADDRESS = os.environ.get("CUTAWAY_CONTRACT_APISERVER", "")


@pytest.fixture
async def client() -> AsyncIterator[ApiClient]:
    folder = Path(os.environ["CUTAWAY_CONTRACT_PKI"])
    ca, cert, key = (str(folder / name) for name in ("ca.crt", "admin.crt", "admin.key"))
    files = TlsFiles(ca_file=ca, cert_file=cert, key_file=key)
    made = await ApiClient.connect(ADDRESS, files, user_agent="contract")
    yield made
    await made.close()


@pytest.fixture
async def namespace(client: ApiClient) -> AsyncIterator[str]:
    name = f"contract-{secrets.token_hex(4)}"
    await client.create(kinds.NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    # A controller that makes it may have been faster.
    with suppress(errors.AlreadyExists):
        await client.create(kinds.SERVICE_ACCOUNT, account, name)
    yield name
    await client.delete(kinds.NAMESPACE, name)


class TestGivenApiServer(ApiServerContract):
    """The suite, as it is; no tests at all where no server is named."""

    __test__ = bool(ADDRESS)
