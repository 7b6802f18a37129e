"""Lists in chunks end when they were begun too long ago, and go on inconsistently if the client wants that."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from machinery.api import errors
from services.apiserver.continuation import KEEP_SECONDS, Continuation
from tests.support.apiserver_core import running_core


async def test_a_list_that_was_begun_too_long_ago_is_expired_and_can_go_on(tmp_path: Path) -> None:
    async with running_core(tmp_path) as client:
        for name in ("a", "b", "c", "d", "e"):
            await client.create("configmaps", {"metadata": {"name": name}}, "default")
        first = await client.list("configmaps", "default", limit=2)
        token = Continuation.parse(first.continue_token)
        assert abs(token.began - time.time()) < 60
        second = await client.list("configmaps", "default", limit=2, continue_token=first.continue_token)
        # Its age is that of the whole list.
        assert Continuation.parse(second.continue_token).began == token.began
        old = Continuation(token.revision, token.after, int(time.time() - KEEP_SECONDS) - 1)
        with pytest.raises(errors.Expired) as refused:
            await client.list("configmaps", "default", limit=2, continue_token=old.text())
        await client.create("configmaps", {"metadata": {"name": "bb"}}, "default")
        rest = await client.list("configmaps", "default", limit=9, continue_token=refused.value.continue_token)
        assert [entry.name for entry in rest.entries] == ["bb", "c", "d", "e"]
        assert rest.revision > first.revision
