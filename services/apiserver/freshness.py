"""Reads that are as fresh as the last write that anybody was told of, when several apiservers share one database.

This process's cache follows the log, and may be a moment behind what another apiserver has acknowledged. A client
behind a balancer writes at one and reads at the other; so a read without a resourceVersion first asks the database how
far the log is, and waits until the cache has got there. Upstream calls it a quorum (or consistent) read.

    requests   a b | c d e          | f
    database       [ asked for a b ]  [ asked for c d e ] [ f ]
                   answer 41           answer 57           answer 57

One question is on its way at a time, and answers everybody who came before it was asked: who comes later may have been
told of a write that it did not see. So the database hears at most one question a round trip, whatever the load.

On SQLite nobody else writes and the cache is never behind: nothing is asked.
"""

from __future__ import annotations

import asyncio

from machinery.api import errors
from services.apiserver.watch_cache import FRESH_SECONDS_MAX, WatchCache
from storage.errors import StoreError


class Freshness:
    """Waits until the cache has caught up with the database. Invariant: `_asking` runs while anybody waits."""

    def __init__(self, cache: WatchCache) -> None:
        self._cache = cache
        self._waiting: list[asyncio.Future[None]] = []
        self._asking: asyncio.Task[None] | None = None
        # How often the database was asked, for tests and for whoever wonders.
        self.questions = 0

    async def confirm(self) -> None:
        """Return when the cache holds whatever any apiserver had acknowledged before this call.

        Raises ServiceUnavailable if the database does not say within FRESH_SECONDS_MAX: an answer could be outdated.
        """
        if not self._cache.store.shared:
            return
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiting.append(waiter)
        if self._asking is None:
            self._asking = loop.create_task(self._ask(), name="confirm freshness")
        await waiter

    async def _ask(self) -> None:
        try:
            while waiting := self._waiting:
                self._waiting = []
                failure = await self._catch_up()
                for waiter in waiting:
                    if waiter.done():
                        continue  # The client has gone.
                    if failure is None:
                        waiter.set_result(None)
                    else:
                        # One exception for each: each raise adds to its traceback.
                        waiter.set_exception(errors.ServiceUnavailable(failure, retry_after_seconds=1))
        finally:
            self._asking = None

    async def _catch_up(self) -> str | None:
        """Ask and follow; what failed, in words."""
        self.questions += 1
        try:
            async with asyncio.timeout(FRESH_SECONDS_MAX):
                await self._cache.wait_revision(await self._cache.store.newest(), timeout=None)
        except StoreError as err:
            return f"the store does not answer: {err}"
        except TimeoutError:
            return f"the store did not answer within {FRESH_SECONDS_MAX:g} s"
        return None
