from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from machinery.client.fake import FakeApiServer
from tests.support.pki import Pki


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer() as server:
        yield server


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    directory: Path = tmp_path_factory.mktemp("pki")
    return Pki(directory)
