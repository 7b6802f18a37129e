"""Large documents are worked on in a thread, only so many bytes of them at once, so that nobody waits for another's.

What a write costs grows with its document: one of three megabytes keeps Python busy for seconds, and may take a hundred
times its size while it is decoded. So whoever reads a body, or finds that the stored object is large, takes a turn,

    async with large.turn(req, len(body)):
        document = await aside(req, bodies.decode_object, body, content_type)

and within it, what is pure work on documents is done by `aside`: in the thread, while the event loop serves everybody
else between two bytecodes of it. A small document needs no turn, and `aside` then calls at once, in the loop.

What is given to `aside` must touch nothing but its arguments: caches, allocators and the like belong to the loop. A
request that ends early leaves its work behind in the thread, where it ends by itself.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from machinery.api import errors
from services.apiserver.request import Request

LARGE_BYTES_MIN = 32 * 1024
"""From here on a document costs more (some 5 ms and up) than the ways to a thread and back."""
UNDER_WAY_BYTES_MAX = 6 * 1024 * 1024
"""Two bodies of the largest size: what is decoded of them at once bounds the memory."""
USER_BYTES_MAX = UNDER_WAY_BYTES_MAX // 2
"""What one user may have under way: others, a webhook that the first one waits for among them, get their turn."""
WAITING_BYTES_MAX = 64 * 1024 * 1024
"""Bodies that wait. One user may have half of it waiting; beyond, requests are refused with 429."""
WAIT_SECONDS_MAX = 30.0
RETRY_AFTER_SECONDS = 5
SWITCH_SECONDS = 0.001
"""How long the loop waits for the thread to let go of the interpreter; Python's own 5 ms would make a GET, which needs
it several times, ten times as slow."""

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")
_AT_ONCE: AbstractAsyncContextManager[None] = nullcontext()


async def aside(req: Request, work: Callable[_Args, _Result], *args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
    """`work(*args)`: in the thread during a turn of the request, else at once. Raises what `work` raises."""
    worker = req.worker
    if worker is None:
        return work(*args, **kwargs)
    return await worker.run(work, *args, **kwargs)


class Worker:
    """One thread. While it works, it lets go of the interpreter more often than Python's threads do."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="large documents")
        self._busy = 0
        self._usual_seconds = 0.0

    async def run(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What `work` returns, once it is its turn in the thread."""
        if not self._busy:
            self._usual_seconds = sys.getswitchinterval()
            sys.setswitchinterval(min(SWITCH_SECONDS, self._usual_seconds))
        self._busy += 1
        loop = asyncio.get_running_loop()
        future = self._executor.submit(work, *args, **kwargs)

        def tell(_: object) -> None:
            with suppress(RuntimeError):  # The loop has ended meanwhile.
                loop.call_soon_threadsafe(self._done)

        # Of the work itself, not of who waits for it: that one may be cancelled.
        future.add_done_callback(tell)
        return await asyncio.wrap_future(future)

    def _done(self) -> None:
        self._busy -= 1
        if not self._busy:
            sys.setswitchinterval(self._usual_seconds)


class LargeRequests:
    """Whose turn it is. The next one is the first of those that wait whose user has the least under way."""

    def __init__(
        self,
        under_way_bytes_max: int = UNDER_WAY_BYTES_MAX,
        user_bytes_max: int = USER_BYTES_MAX,
        waiting_bytes_max: int = WAITING_BYTES_MAX,
    ) -> None:
        self.worker = Worker()
        self._under_way_bytes_max = under_way_bytes_max
        self._user_bytes_max = user_bytes_max
        self._waiting_bytes_max = waiting_bytes_max
        self._under_way: dict[str, int] = {}
        self._waiting: dict[Turn, asyncio.Future[None]] = {}

    def turn(self, req: Request, size: int) -> AbstractAsyncContextManager[None]:
        """A block within which a request may work on a document of so many bytes. Entering it waits, and raises
        TooManyRequests if too much waits already or it takes too long. Small documents, and requests that have their
        turn, enter at once."""
        if size < LARGE_BYTES_MIN or req.worker is not None:
            return _AT_ONCE
        return Turn(self, req, size)

    async def enter(self, turn: Turn) -> None:
        """Wait for a turn."""
        if not self._waiting and self._fits(turn):
            self._begin(turn)
            return
        user = turn.user
        waiting = [one.size for one in self._waiting]
        of_user = [one.size for one in self._waiting if one.user == user]
        if sum(waiting, turn.size) > self._waiting_bytes_max or sum(of_user, turn.size) > self._waiting_bytes_max // 2:
            raise _refused()
        future = self._waiting[turn] = asyncio.get_running_loop().create_future()
        self._next()
        try:
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                await future
        except BaseException as err:
            if self._waiting.pop(turn, None) is None:
                # Its turn had come, and it does not use it.
                self.leave(turn)
            if isinstance(err, TimeoutError):
                raise _refused() from err
            raise

    def leave(self, turn: Turn) -> None:
        """A turn has ended."""
        left = self._under_way.pop(turn.user) - turn.size
        if left:
            self._under_way[turn.user] = left
        self._next()

    def _begin(self, turn: Turn) -> None:
        self._under_way[turn.user] = self._under_way.get(turn.user, 0) + turn.size

    def _fits(self, turn: Turn) -> bool:
        """Whether there is room. The first one of a user has all of the user's, the first one at all has all."""
        own, total = self._under_way.get(turn.user, 0), sum(self._under_way.values())
        return (not own or own + turn.size <= self._user_bytes_max) and (
            not total or total + turn.size <= self._under_way_bytes_max
        )

    def _next(self) -> None:
        while self._waiting:
            first = min(self._waiting, key=lambda turn: self._under_way.get(turn.user, 0))
            if not self._fits(first):
                return
            self._begin(first)
            future = self._waiting.pop(first)
            if not future.done():
                future.set_result(None)


class Turn:
    """One request's turn."""

    __slots__ = ("_large", "_req", "size", "user")

    def __init__(self, large: LargeRequests, req: Request, size: int) -> None:
        self._large = large
        self._req = req
        self.size = size
        self.user = req.user.name

    async def __aenter__(self) -> None:
        await self._large.enter(self)
        self._req.worker = self._large.worker

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._req.worker = None
        self._large.leave(self)


def _refused() -> errors.TooManyRequests:
    message = "Too many large requests, please try again later."
    return errors.TooManyRequests(message, retry_after_seconds=RETRY_AFTER_SECONDS)
