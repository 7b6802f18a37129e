"""Run as a program, under fault injection: write to a store, tell what was acknowledged, go on after each error.

    python -m tests.support.store_stress URL ACKNOWLEDGED_MAX SECONDS_MAX

Prints "<revision> <name>" for each acknowledged write and "failed <error type>" for each that was not. Ends without
closing anything, as a process that dies.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time

from storage import ANY, EXISTS, Delete, Key, Put, Store, open_store
from storage.errors import KeyMissing, StoreError

WRITERS = 8


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


async def opened(url: str, deadline: float) -> Store:
    """The store, as soon as a disk that fails now and then lets it be opened."""
    while True:
        try:
            return await open_store(url)
        except StoreError as error:
            say(f"failed {type(error).__name__}")
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


async def main(url: str, most: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    store = await opened(url, deadline)
    count = 0

    async def write(number: int) -> None:
        nonlocal count
        for turn in itertools.count():
            if count >= most or time.monotonic() > deadline:
                return
            key = Key("pods", "default", f"w{number}-{turn % 5}")
            size = 200 + turn * 997 % 9000
            try:
                if turn % 7 == 6:
                    events = await store.commit(Delete(key, EXISTS, b"", b""), Put(key, ANY, b"x" * size, b""))
                else:
                    events = await store.commit(Put(key, ANY, b"x" * size, b""))
            except KeyMissing:
                continue
            except StoreError as error:
                say(f"failed {type(error).__name__}")
                await asyncio.sleep(0.002)
                continue
            for event in events:
                say(f"{event.revision} {event.key.name}")
            count += len(events)
            # What is read while the disk fails is what was committed, or an error.
            try:
                entry = await store.get(key)
            except StoreError:
                continue
            assert entry is not None
            assert entry.revision >= events[-1].revision

    async with asyncio.TaskGroup() as group:
        for number in range(WRITERS):
            group.create_task(write(number))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
    os._exit(0)
