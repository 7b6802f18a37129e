"""What health checks say of a store that does not answer, of a cache that is behind it, and of what is done once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.apiserver import checks
from services.apiserver.bootstrap import Bootstrap
from services.apiserver.checks import StoreCheck
from services.apiserver.watch_cache import WatchCache
from storage.errors import Unavailable
from tests.support.apiserver_core import CoreClient


class Store:
    """At a revision, or not to be reached."""

    def __init__(self, revision: int | Exception | None) -> None:
        self.at = revision
        self.asked = 0

    async def revision(self) -> int:
        self.asked += 1
        if self.at is None:
            await asyncio.Event().wait()
        if isinstance(self.at, Exception):
            raise self.at
        return cast(int, self.at)


class Cache:
    """At a revision, for good."""

    def __init__(self, store: Store, revision: int) -> None:
        self.store = store
        self.revision = revision

    async def wait_revision(self, revision: int, timeout: Any) -> None:
        await asyncio.Event().wait()


def check(store: Store, revision: int = 5) -> StoreCheck:
    return StoreCheck(cast(WatchCache, Cache(store, revision)))


async def test_a_store_that_answers() -> None:
    judged = check(Store(5))
    assert (await judged.answers(), await judged.caught_up()) == ("", "")


async def test_many_who_ask_at_once_are_one_question() -> None:
    store = Store(5)
    judged = check(store)
    assert set(await asyncio.gather(*(judged.answers() for _ in range(50)))) == {""}
    assert store.asked == 1


async def test_one_that_does_not_answer_or_is_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await check(Store(Unavailable("gone"))).answers() == "the store does not answer: gone"
    monkeypatch.setattr(checks, "ANSWER_SECONDS_MAX", 0.01)
    assert await check(Store(None)).answers() == "the store did not answer within 0.01 s"
    assert await check(Store(7)).caught_up() == "the watch cache is at revision 5, the store at 7"


async def test_what_comes_after_the_start_does_not_make_the_start_unfinished(core: CoreClient) -> None:
    live, _ = checks.of(core.core, cast(Bootstrap, SimpleNamespace(done=set())))
    told = "autoregister-completion", "poststarthook/apiservice-status-local-available-controller"
    assert await live[told[0]]() == "APIServices are missing"
    await core.core.registrations.reconciler.once()
    assert [await live[name]() for name in told] == ["", ""]
    spec = {"group": "late.io", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1}
    await core.create("apiservices", {"metadata": {"name": "v1.late.io"}, "spec": spec}, group="apiregistration.k8s.io")
    await core.delete("apiservices", "v1.apps", group="apiregistration.k8s.io")
    assert [await live[name]() for name in told] == ["", ""]
