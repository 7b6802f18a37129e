"""One real apiserver for the attacks, and clients with various credentials."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from lab.pki import Identity
from tests.support.apiserver_process import ApiServerProcess


class Target:
    """The apiserver under attack."""

    def __init__(self, process: ApiServerProcess) -> None:
        self.process = process
        self.pki = process.pki

    def context(self, identity: Identity | None) -> ssl.SSLContext:
        """TLS as a client with that certificate, or none."""
        context = ssl.create_default_context(cafile=str(self.pki.ca_file))
        if identity is not None:
            context.load_cert_chain(identity.cert_file, identity.key_file)
        return context

    @asynccontextmanager
    async def session(self, identity: Identity | None, **headers: str) -> AsyncIterator[aiohttp.ClientSession]:
        """An HTTP session with that certificate."""
        connector = aiohttp.TCPConnector(ssl=self.context(identity), limit=0)
        async with aiohttp.ClientSession(self.process.url, connector=connector, headers=headers) as session:
            yield session

    def user(self, name: str, *groups: str) -> Identity:
        """A client certificate for a user."""
        return self.pki.client(f"user-{name.replace(':', '-')}", name, groups)

    async def create(self, path: str, obj: dict[str, Any]) -> None:
        """Create something as the administrator."""
        async with self.session(self.process.admin) as admin, admin.post(path, json=obj) as answer:
            assert answer.status in (201, 409), await answer.text()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The apiserver."""
    process = ApiServerProcess(tmp_path_factory.mktemp("apiserver")).start()
    yield Target(process)
    process.stop()
