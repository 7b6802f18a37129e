"""Run as a program: write to a store as fast as possible, tell what was acknowledged, and die at a chosen point.

    python -m tests.support.store_crasher URL POINT COUNT

Prints "<revision> <name>" for each acknowledged write. At the COUNT-th time that POINT is reached the process ends at
once.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import Callable
from typing import Any

from storage import ANY, EXISTS, Delete, Key, Put, compactor, open_store, postgres, sqlite, writer

POINTS = ("before commit", "after commit", "before notify", "mid-compaction", "after a compaction batch")
WRITERS = 16


def die() -> None:
    os._exit(9)


def arm(point: str, count: int) -> None:
    """Wrap the function that passes the point."""
    reached = itertools.count(1)

    def hit() -> None:
        if next(reached) >= count:
            die()

    def wrap(owner: Any, name: str, *, before: bool) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if before:
                hit()
            result = original(*args, **kwargs)
            if not before:
                hit()
            return result

        setattr(owner, name, wrapped)

    session = postgres.PostgresSession if sys.argv[1].startswith("postgresql") else sqlite.SqliteSession
    if point == "before commit":
        wrap(session, "commit", before=True)
    elif point == "after commit":
        wrap(session, "commit", before=False)
    elif point == "before notify":
        wrap(writer.Writer, "_acknowledge", before=True)
    elif point == "mid-compaction":
        wrap(compactor, "update", before=True)  # the last statement of a batch, after its rows are removed
    else:
        wrap(compactor, "sweep", before=False)


async def main(url: str, point: str, count: int) -> None:
    store = await open_store(url)
    arm(point, count)

    async def write(number: int) -> None:
        for turn in itertools.count():
            key = Key("pods", "default", f"w{number}-{turn % 5}")
            if turn % 5 == 4 and turn > 5:
                events = await store.commit(Delete(key, EXISTS, b"", b""), Put(key, ANY, b"x" * 1000, b""))
            else:
                events = await store.commit(Put(key, ANY, b"x" * 1000, b""))
            os.write(1, "".join(f"{event.revision} {event.key.name}\n" for event in events).encode())

    async def forget() -> None:
        while True:
            await store.compact(max(0, await store.revision() - 50))

    async with asyncio.TaskGroup() as group:
        for number in range(WRITERS):
            group.create_task(write(number))
        if "compaction" in point:
            group.create_task(forget())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
