"""The shell of a controller: workers that take keys from a queue and call `reconcile(key)`.

Level-triggered: `reconcile` gets a key, looks at the present state (listers), and brings the world one step nearer to
what is wanted. It may be called at any time, for a key that no longer exists, twice in a row, or after a crash in the
middle. If it raises, the key comes again with back-off; if it answers a Result with `requeue_after_seconds`, it comes
again then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from machinery.api import objects
from machinery.api.errors import ApiError, Conflict, ServiceUnavailable
from machinery.client.workqueue import WorkQueue
from machinery.component import logs, metrics
from machinery.component.process import Ended

REQUEUE_SECONDS_MIN = 0.05


class Result(msgspec.Struct, frozen=True):
    """What `reconcile` wants next: to be called again after so many seconds."""

    requeue_after_seconds: float | None = None


class ControllerState(msgspec.Struct, kw_only=True):
    """What a controller does now; the fields are those of cutaway.v1.ControllerState."""

    name: str
    running: bool
    paused: bool
    queue_depth: int
    in_work: int
    retrying: int
    reconciles_total: int
    errors_total: int
    last_error: str
    last_error_key: str
    last_error_time: str


Reconcile = Callable[[str], Awaitable[Result | None]]


class Controller:
    """A named set of workers over one queue. `run` it in a TaskGroup."""

    def __init__(self, name: str, reconcile: Reconcile, *, workers: int = 2, queue: WorkQueue | None = None) -> None:
        self.name = name
        self.queue = queue if queue is not None else WorkQueue(name)
        self._reconcile = reconcile
        self._workers = workers
        self._unpaused = asyncio.Event()
        self._unpaused.set()
        self._running = False
        self._reconciles = 0
        self._errors = 0
        self._last_error: tuple[str, str, datetime | None] = ("", "", None)
        self._log = logs.get("controller", controller=name)
        total = metrics.counter("controller_reconcile_total", "Reconciliations by result.", ("controller", "result"))
        # Every outcome starts at zero, so that a rate over it is right from the first one on.
        self._totals = {
            result: total.labels(name, result) for result in ("success", "error", "conflict", "requeue_after")
        }

    # --- feeding ------------------------------------------------------------------------------------------------------

    def add(self, key: str) -> None:
        """Queue a key."""
        self.queue.add(key)

    def enqueue(self, old: Any, new: Any) -> None:
        """An informer handler that queues the changed object's own key."""
        self.queue.add(objects.object_key(new if new is not None else old))

    def enqueue_owner(self, kind: str) -> Callable[[Any, Any], None]:
        """An informer handler that queues the key of the controlling owner of this kind, before and after a change."""

        def handler(old: Any, new: Any) -> None:
            for obj in (old, new):
                owner = objects.controller_of(obj) if obj is not None else None
                if owner is None:
                    continue
                owner_kind, name = (
                    (owner["kind"], owner["name"]) if isinstance(owner, dict) else (owner.kind, owner.name)
                )
                if owner_kind == kind:
                    namespace, _ = objects.split_key(objects.object_key(obj))
                    self.queue.add(objects.key_of(namespace, name))

        return handler

    # --- running ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work for ever. Only cancellation, or an `Ended` that reconcile raises, ends it."""
        self._running = True
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._workers):
                    group.create_task(self._work(), name=f"{self.name} worker {number}")
        finally:
            self._running = False

    async def _work(self) -> None:
        while True:
            await self._unpaused.wait()
            key = await self.queue.get()
            if not self._unpaused.is_set():
                # Paused while waiting for a key: marked dirty while in work, it goes back to the queue.
                self.queue.add(key)
                self.queue.done(key)
                continue
            try:
                await self._reconcile_once(key)
            finally:
                self.queue.done(key)

    async def _reconcile_once(self, key: str) -> None:
        self._reconciles += 1
        try:
            result = await self._reconcile(key)
        except Ended:
            raise
        except Exception as err:
            self._failed(key, err)
            return
        self.queue.forget(key)
        if result is not None and result.requeue_after_seconds is not None:
            self._totals["requeue_after"].inc()
            # Never at once: a reconcile that waits for nothing and always asks for another would stop the whole loop.
            self.queue.add_after(key, max(result.requeue_after_seconds, REQUEUE_SECONDS_MIN))
        else:
            self._totals["success"].inc()

    def _failed(self, key: str, err: Exception) -> None:
        retry_seconds = self.queue.add_rate_limited(key)
        if isinstance(err, Conflict):
            # Somebody was faster: the informer brings the news, and the next look decides anew. Not an error.
            self._totals["conflict"].inc()
            return
        self._errors += 1
        self._totals["error"].inc()
        text = err.message if isinstance(err, ApiError) else f"{type(err).__name__}: {err}"
        self._last_error = (text, key, datetime.now(UTC))
        if isinstance(err, ApiError):
            level = self._log.info if isinstance(err, ServiceUnavailable) else self._log.warning
            level("reconcile failed", key=key, error=text, retry_seconds=round(retry_seconds, 3))
        else:
            self._log.error("reconcile failed", key=key, retry_seconds=round(retry_seconds, 3), exc_info=err)

    # --- the hand on it -----------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Take no more keys; those in work are finished, and the queue goes on filling."""
        self._unpaused.clear()

    def resume(self) -> None:
        """Go on."""
        self._unpaused.set()

    def state(self) -> ControllerState:
        """What it does now."""
        error, key, moment = self._last_error
        return ControllerState(
            name=self.name,
            running=self._running,
            paused=not self._unpaused.is_set(),
            queue_depth=self.queue.depth,
            in_work=self.queue.in_work,
            retrying=self.queue.retrying,
            reconciles_total=self._reconciles,
            errors_total=self._errors,
            last_error=error,
            last_error_key=key,
            last_error_time=objects.format_time(moment) if moment else "",
        )
