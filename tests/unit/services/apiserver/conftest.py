"""A core on a store in a temporary file, for tests of what needs both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.apiserver_core import CoreClient, running_core


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[CoreClient]:
    async with running_core(tmp_path) as client:
        yield client
