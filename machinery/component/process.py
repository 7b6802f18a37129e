"""The life of a component's process: start, run, stop gracefully, with an exit code that says how it went.

    def main() -> None:
        process.run(serve, config.load(SchedulerConfig, prog="scheduler"))

    async def serve(ctx: process.Context) -> None:
        client = await ApiClient.connect(...)
        ctx.on_stop(client.close)
        ctx.tasks.create_task(informer.run(), name="informer pods")

Exit codes: 0 after SIGTERM or SIGINT; 1 if a task failed; 2 if the configuration can't work (`Fatal`), with one line
on stderr.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from machinery.component import logs
from machinery.component.config import ComponentConfig
from machinery.component.health import Health

ConfigT = TypeVar("ConfigT", bound=ComponentConfig)

GC_THRESHOLDS = (50_000, 50, 100)
"""Measured on an informer of 20,000 pods: half the cpu of Python's defaults, for some megabytes of waiting garbage."""

EXIT_FAILED = 1
EXIT_FATAL = 2


class Fatal(Exception):
    """The process can't do its work, and starting it again with the same configuration would not help.

    One line, for a person.
    """


class Ended(Exception):
    """The process must end now for a reason that is no defect (leadership lost, say).

    One line is logged; the exit code is 1.
    """


class Context(Generic[ConfigT]):
    """What a component's main function gets.

    `tasks` is the process's root TaskGroup: a task in it that raises ends the process. `stopping` is set when a
    graceful stop begins.
    """

    def __init__(self, config: ConfigT, tasks: asyncio.TaskGroup) -> None:
        self.config = config
        self.tasks = tasks
        self.stopping = asyncio.Event()
        self.health = Health()
        self.log = logs.get()
        self._closers: list[Callable[[], Awaitable[Any]]] = []

    def on_stop(self, close: Callable[[], Awaitable[Any]]) -> None:
        """Have `close()` awaited when the process stops; the last one registered comes first."""
        self._closers.append(close)

    def stop(self) -> None:
        """Begin a graceful stop, as SIGTERM does."""
        self.stopping.set()

    @staticmethod
    async def finished(task: asyncio.Task[Any]) -> None:
        """Wait until a task has ended, however it ends; its error stays with whoever owns the task."""
        await asyncio.wait((task,))

    async def close(self) -> None:
        """Await what `on_stop` registered, the last one first."""
        while self._closers:
            close = self._closers.pop()
            try:
                await close()
            except Exception as err:  # One part that can't stop cleanly must not keep the others from it.
                self.log.warning(
                    "part did not stop cleanly", part=getattr(close, "__qualname__", str(close)), exc_info=err
                )


class _Stop(Exception):
    """Ends the root TaskGroup once the graceful stop is over."""


# Who takes main function and configuration instead of having them run.
intercept: ContextVar[Callable[[Callable[[Any], Awaitable[None]], ComponentConfig], None] | None] = ContextVar(
    "intercept", default=None
)


def run(main: Callable[[Context[ConfigT]], Awaitable[None]], config: ConfigT) -> None:
    """Run `main` until a signal or a failure, then exit the interpreter.

    `main` may return when everything is started; the process lives on until it is stopped. On SIGTERM or SIGINT
    `stopping` is set, the `on_stop` functions run, `main` gets what is left of `drain_seconds` to return, and
    whatever still runs is cancelled. A second signal ends the process at once. While `machinery.component.together`
    loads a component, both are only handed over to it.
    """
    taker = intercept.get()
    if taker is not None:
        taker(main, config)
        return
    import uvloop

    try:
        logs.setup(config.name, config.log_level, config.log_format)
    except ValueError as err:
        print(f"{config.name or 'component'}: {err}", file=sys.stderr)
        sys.exit(EXIT_FATAL)
    # A connection is a descriptor: the soft limit (often 1,024) is for programs that use select.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Long-lived caches make full collections long pauses; most garbage here is acyclic and freed by reference counts.
    gc.set_threshold(*GC_THRESHOLDS)
    # What is loaded by now stays: no collection needs to look at it.
    gc.freeze()
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(uvloop.run(_root(main, config)))
    sys.exit(128 + signal.SIGINT)


# Nothing outside cancels the root task (signals set `stopping`), so that catching its group's errors loses no
# cancellation; and on CPython 3.11 and 3.12 `cancelling()` can't tell, because a group that fails while it is being
# left counts its own one (#116720).
async def _root(main: Callable[[Context[ConfigT]], Awaitable[None]], config: ConfigT) -> int:
    log = logs.get()
    failed: list[BaseException] = []
    try:
        async with asyncio.TaskGroup() as tasks:
            ctx = Context(config, tasks)
            # Before anything of the component runs: what has said that it is ready must be stoppable.
            _follow_signals(ctx)
            main_task = tasks.create_task(_as_coroutine(main, ctx), name="main")
            tasks.create_task(_supervise(ctx, main_task), name="stop on signal")
    except BaseExceptionGroup as group:
        failed = [leaf for leaf in _leaves(group) if not isinstance(leaf, _Stop)]
    return _report(failed, config, log)


async def _as_coroutine(main: Callable[[Context[ConfigT]], Awaitable[None]], ctx: Context[ConfigT]) -> None:
    await main(ctx)


def _follow_signals(ctx: Context[Any]) -> None:
    """SIGTERM and SIGINT begin a graceful stop; a second one ends the process at once."""
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if ctx.stopping.is_set():
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            signal.raise_signal(signal.SIGKILL)
        ctx.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)


async def _supervise(ctx: Context[Any], main_task: asyncio.Task[None]) -> None:
    try:
        await ctx.stopping.wait()
        ctx.health.stopping = True
        ctx.log.info("stopping")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ctx.config.drain_seconds):
                await ctx.close()
                await asyncio.wait([main_task])
        raise _Stop
    except asyncio.CancelledError:
        # Another task failed. The parts still get their moment to close, but the failure decides how the process ends.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(1.0, ctx.config.drain_seconds)):
                await ctx.close()
        raise


def _leaves(group: BaseException) -> Iterator[BaseException]:
    if isinstance(group, BaseExceptionGroup):
        for inner in group.exceptions:
            yield from _leaves(inner)
    else:
        yield group


def _report(failed: list[BaseException], config: ComponentConfig, log: Any) -> int:
    if not failed:
        log.info("stopped")
        return 0
    fatal = next((error for error in failed if isinstance(error, Fatal)), None)
    if fatal is not None:
        print(f"{config.name or 'component'}: {fatal}", file=sys.stderr)
        return EXIT_FATAL
    for error in failed:
        if isinstance(error, Ended):
            log.error("process ends", reason=str(error))
        else:
            log.error("process failed", exc_info=error)
    return EXIT_FAILED
