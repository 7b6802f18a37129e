"""Several components in one process: for a cluster inside a test, where start-up time and memory count more than
separation.

`run([("services.apiserver", ["--config", "a.yaml"]), …])` runs what `python -m services.apiserver --config a.yaml` and
the others would run, in one event loop. They still meet only through their contracts, over real connections. If one
fails, all end.
"""

from __future__ import annotations

import asyncio
import contextlib
import runpy
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from machinery.component import logs, process
from machinery.component.config import ComponentConfig

Main = Callable[[process.Context[Any]], Awaitable[None]]
STOP_SECONDS = 5.0


def load(module: str, argv: Sequence[str]) -> tuple[Main, ComponentConfig]:
    """What `python -m module argv…` would run: its main function and its configuration."""
    taken: list[tuple[Main, ComponentConfig]] = []
    before = sys.argv
    sys.argv = [module, *argv]
    token = process.intercept.set(lambda main, config: taken.append((main, config)))
    try:
        runpy.run_module(module, run_name="__main__")
    finally:
        process.intercept.reset(token)
        sys.argv = before
    (part,) = taken
    return part


def run(parts: Sequence[tuple[str, Sequence[str]]], *, log_level: str = "warning") -> None:
    """Run until SIGTERM, SIGINT, or a part's failure; then exit the interpreter."""
    import uvloop

    logs.setup("together", log_level, "json")
    loaded = [load(module, argv) for module, argv in parts]
    try:
        uvloop.run(_run_all(loaded))
    except* process.Fatal as group:
        print(group.exceptions[0], file=sys.stderr)
        sys.exit(process.EXIT_FATAL)


class _Stop(Exception):
    """Ends the TaskGroup once all parts have closed."""


async def _run_all(parts: Sequence[tuple[Main, ComponentConfig]]) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    with contextlib.suppress(_Stop):
        try:
            async with asyncio.TaskGroup() as tasks:
                contexts = [process.Context(config, tasks) for _, config in parts]
                for (main, config), context in zip(parts, contexts, strict=True):
                    tasks.create_task(_as_coroutine(main, context), name=config.name)
                await stopping.wait()
                for context in contexts:
                    context.stop()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STOP_SECONDS):
                        # Clients first and the apiserver last: whoever writes at the end can still do it.
                        for context in reversed(contexts):
                            await context.close()
                raise _Stop
        except* _Stop:
            pass


async def _as_coroutine(main: Main, context: process.Context[Any]) -> None:
    await main(context)
