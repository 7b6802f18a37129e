"""Objects that an apiserver keeps in step with something it follows: woken by changes, repeated after failures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from machinery.api import errors
from machinery.component import logs

log = logs.get("reconcile")

RETRY_SECONDS = 1.0


class Reconciler:
    """Does a piece of work at once and whenever it is woken; again after a pause if it failed, and every so many
    seconds if it shall. The work looks at the state as it is, never at what changed, and may be done once too often:
    every apiserver does it.
    """

    def __init__(self, what: str, work: Callable[[], Awaitable[None]], every_seconds: float | None = None) -> None:
        self._what = what
        self._work = work
        self._every_seconds = every_seconds
        self._wake = asyncio.Event()
        self.done_once = False

    def wake(self, *_: object) -> None:
        """Something has changed. Takes, and ignores, what listeners are told."""
        self._wake.set()

    async def once(self) -> None:
        """Do the work now. Raises what it raises."""
        await self._work()
        self.done_once = True

    async def run(self) -> None:
        """Do it, for ever."""
        while True:
            # Before the work: what changes while it goes on is looked at once more.
            self._wake.clear()
            seconds = self._every_seconds
            try:
                await self.once()
            except errors.ApiError as err:
                log.warning("could not be kept in step", what=self._what, error=err.message)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                continue
