"""The store's figures: `python -m benchmarks.store [NAME …]`; without names, all of them.

Each prints what it measured beside its target. Nothing is warmed up or left out; a write counts once it is durable.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from storage import ABSENT, ANY, Key, Put, Store, open_store
from tests.support.postgres import run_postgres

BODY = b'"},"spec":"' + b"x" * 1450 + b'"}'
HEAD = b'{"metadata":{"resourceVersion":"'
WRITERS = 64


def put(name: str, expect: int = ANY, resource: str = "pods") -> Put:
    return Put(Key(resource, "default", name), expect, HEAD, BODY)


async def write_rate(store: Store, count: int, *, keys: int = 20) -> tuple[float, list[float]]:
    """Writes a second by 64 writers, each waiting for its own acknowledgement, and every write's seconds, sorted."""
    taken: list[float] = []

    async def write(writer: int) -> None:
        revisions: dict[str, int] = {}
        for turn in range(count // WRITERS):
            name = f"pod-{writer}-{turn % keys}"
            started = time.perf_counter()
            (event,) = await store.commit(put(name, revisions.get(name, ANY)))
            taken.append(time.perf_counter() - started)
            revisions[name] = event.revision

    started = time.perf_counter()
    await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
    return len(taken) / (time.perf_counter() - started), sorted(taken)


def show(what: str, rate: float, taken: list[float], target: str) -> None:
    p50, p99 = (taken[int(len(taken) * part)] * 1e3 for part in (0.5, 0.99))
    print(
        f"{what}: {rate:,.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {taken[-1] * 1e3:.1f} ms   (target {target})"
    )


async def sqlite_writes(directory: Path) -> None:
    store = await open_store(f"sqlite:///{directory}/store.db")
    rate, taken = await write_rate(store, 100_000)
    show("SQLite FULL, 64 writers, 1.5 kB", rate, taken, ">= 10,000/s, p99 <= 20 ms")
    await store.close()


async def postgres_writes(directory: Path) -> None:
    with run_postgres() as server:
        store = await open_store(server.url())
        rate, taken = await write_rate(store, 50_000)
        show("Postgres, 64 writers, 1.5 kB", rate, taken, ">= 5,000/s")
        await store.close()


async def watch(directory: Path) -> None:
    """Events through `follow` to ten followers that take what is committed in large groups."""
    store = await open_store(f"sqlite:///{directory}/store.db")
    total, followers = 50_000, 10
    seconds = 0.0

    async def follow() -> int:
        nonlocal seconds
        count = 0
        async for batch in store.follow(0):
            started = time.perf_counter()
            for event in batch:
                count += 1
                assert event.revision == count
            seconds += time.perf_counter() - started
            if count >= total:
                break
        return count

    tasks = [asyncio.create_task(follow()) for _ in range(followers)]
    await asyncio.sleep(0)
    started = time.perf_counter()
    for start in range(0, total, 500):
        await store.commit(*(put(f"p{n}") for n in range(start, start + 500)))
    delivered = sum(await asyncio.gather(*tasks))
    live = time.perf_counter() - started
    print(f"watch, {followers} followers beside the writer: {delivered / live:,.0f} events/s")
    started = time.perf_counter()
    hub = store._hub  # type: ignore[attr-defined]
    events = list(await store.events(0, limit=10_000))
    hub.newest = 0
    tasks = [asyncio.create_task(_drain(store, len(events))) for _ in range(followers)]
    await asyncio.sleep(0)
    started = time.perf_counter()
    for start in range(0, len(events), 100):
        hub.publish(events[start : start + 100])
        await asyncio.sleep(0)
    delivered = sum(await asyncio.gather(*tasks))
    took = time.perf_counter() - started
    print(f"watch, in-process delivery alone: {delivered / took:,.0f} events/s   (target >= 200,000/s)")
    await store.close()


async def _drain(store: Store, total: int) -> int:
    count = 0
    async for batch in store.follow(0):
        for event in batch:
            count += 1
            assert event.revision == count
        if count >= total:
            break
    return count


async def opening(directory: Path) -> None:
    """Open with 100,000 objects and read all of them, in a process of its own."""
    url = f"sqlite:///{directory}/store.db"
    store = await open_store(url)
    for start in range(0, 100_000, 500):
        await store.commit(*(put(f"p{n}", ABSENT) for n in range(start, start + 500)))
    await store.close()
    await _open_elsewhere(url)


async def _open_elsewhere(url: str) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "benchmarks.store", "--open", url)
    assert await process.wait() == 0


async def open_and_list(url: str) -> None:
    started = time.perf_counter()
    store = await open_store(url)
    opened = time.perf_counter() - started
    entries = [entry for name in await store.resources() for entry in (await store.list(name)).entries]
    took = time.perf_counter() - started
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"open in {opened:.2f} s, all {len(entries):,} objects read after {took:.2f} s, "
        f"{megabytes:.0f} MB   (target <= 3 s, <= 600 MB)"
    )
    await store.close()


async def slope(directory: Path) -> None:
    """The hot path as the log grows to a million events (CUTAWAY_EVENTS sets another number)."""
    url = f"sqlite:///{directory}/store.db"
    store = await open_store(url)
    total = int(os.environ.get("CUTAWAY_EVENTS", "1000000"))
    for part in range(5):
        rate, taken = await write_rate(store, 20_000)
        show(f"with {await store.revision() - 20_000:,} events in the log", rate, taken, "no slope")
        if part < 4:
            for start in range(0, total // 4 - 20_000, 500):
                await store.commit(*(put(f"bulk-{(start + n) % 5000}") for n in range(500)))
    await store.close()
    await _open_elsewhere(url)


async def compacting(directory: Path) -> None:
    """The slowest write while 100,000 rows are compacted, with one writer and with 64."""
    for writers in (1, WRITERS):
        store = await open_store(f"sqlite:///{directory}/store-{writers}.db")
        for start in range(0, 105_000, 500):
            await store.commit(*(put(f"p{(start + n) % 5000}") for n in range(500)))
        taken: list[float] = []
        done = asyncio.Event()

        async def write(
            number: int, store: Store = store, taken: list[float] = taken, done: asyncio.Event = done
        ) -> None:
            while not done.is_set():
                started = time.perf_counter()
                await store.commit(put(f"w{number}"))
                taken.append(time.perf_counter() - started)

        tasks = [asyncio.create_task(write(number)) for number in range(writers)]
        started = time.perf_counter()
        removed = await store.compact(await store.revision())
        took = time.perf_counter() - started
        done.set()
        await asyncio.gather(*tasks)
        taken.sort()
        show(
            f"{removed:,} rows compacted in {took:.1f} s beside {writers} writers",
            len(taken) / took,
            taken,
            "max <= 50 ms",
        )
        await store.close()


BENCHMARKS: dict[str, Callable[[Path], Awaitable[None]]] = {
    "sqlite": sqlite_writes,
    "postgres": postgres_writes,
    "watch": watch,
    "open": opening,
    "compact": compacting,
    "slope": slope,
}


def main(names: list[str]) -> None:
    if names[:1] == ["--open"]:
        uvloop.run(open_and_list(names[1]))
        return
    for name in names or list(BENCHMARKS):
        directory = Path(tempfile.mkdtemp(prefix="cutaway-bench-"))
        try:
            uvloop.run(BENCHMARKS[name](directory))  # type: ignore[arg-type]
        finally:
            shutil.rmtree(directory)


if __name__ == "__main__":
    main(sys.argv[1:])
