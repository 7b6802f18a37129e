"""`cutaway watch`: the page, or the lines, until somebody ends it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lab.cluster import Cluster
from lab.errors import LabError
from lab.explain import kind_of
from lab.progress import Say
from lab.watching.gather import Gatherer
from lab.watching.page import Page
from lab.watching.story import Name
from lab.watching.terminal import Lines

BEGIN_SECONDS = 20.0


@asynccontextmanager
async def gathering(cluster: Cluster) -> AsyncIterator[Gatherer]:
    """A story that is being told inside the block, which ends with what ends it. Raises LabError if it can't begin."""
    gatherer = Gatherer(cluster)
    work = asyncio.current_task()
    assert work is not None
    task = asyncio.create_task(gatherer.run(), name="gather")
    heard = asyncio.create_task(gatherer.listening.wait(), name="wait until heard")
    failed: list[BaseException] = []

    def ended(done: asyncio.Task[None]) -> None:
        error = None if done.cancelled() else done.exception()
        if error is not None:
            failed.append(error)
            work.cancel()

    try:
        await asyncio.wait({task, heard}, timeout=BEGIN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        if not heard.done():
            raise LabError("the apiserver does not answer", "`cutaway status` shows what is ill")
        task.add_done_callback(ended)
        yield gatherer
    except asyncio.CancelledError:
        if failed:
            raise failed[0] from None
        raise
    finally:
        task.remove_done_callback(ended)
        for each in (task, heard):
            each.cancel()
        await asyncio.gather(task, heard, return_exceptions=True)


async def page(cluster: Cluster, port: int, say: Say) -> None:
    """Serve the page for ever. Raises LabError."""
    async with gathering(cluster) as gatherer:
        server = Page(gatherer, cluster.name)
        await server.start(port)
        try:
            say(f"cutaway: watch it work at {server.url} (Ctrl-C ends it)")
            await asyncio.Event().wait()
        finally:
            await server.stop()


async def lines(cluster: Cluster, target: str, namespace: str, say: Say, *, as_json: bool = False) -> None:
    """Print steps for ever, of one object's family or (empty) of everything. Raises LabError."""
    name = named(target, namespace) if target else None
    async with gathering(cluster) as gatherer:
        note = "" if not name or gatherer.holds(name) else ", which does not exist yet"
        told = Lines(gatherer.family(name) if name else None)
        say(f"cutaway: watching {target or 'everything'}{note}")
        with gatherer.listen() as (_, queue):
            while True:
                step = await queue.get()
                if name:
                    told.add(gatherer.family(name))
                line = told.line(step)
                if line is not None:
                    say(json.dumps(step.to_dict()) if as_json else line)


def named(target: str, namespace: str) -> Name:
    """ "deploy/web" as an object's name. Raises LabError."""
    word, slash, name = target.partition("/")
    if not slash or not name:
        raise LabError(f"{target!r} names no object", "KIND/NAME, as in deployment/web")
    kind = kind_of(word)
    return Name(kind.kind, namespace if kind.namespaced else "", name)
