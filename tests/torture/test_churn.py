"""15. Churn: objects come and go all the time; memory, descriptors and the database stay as large as what is there."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from storage import ANY, Key, Put, Retention, RetentionPolicy, open_store
from tests.support.apiserver_process import ApiServerProcess
from tests.support.memory import resident_mb
from tests.support.rest import Rest
from tests.support.torture import FULL, figure, note, times
from tests.support.witness import LOST, PATH, Until

SECONDS = float(os.environ.get("CUTAWAY_CHURN_SECONDS", times(7200, 8)))
# After this the caches' rings are as full as they get: the figures are compared from here on.
WARM_WRITES = 12_000 if FULL else 1000
WRITERS, OBJECTS, CUT_OFF = 8, 20, 10
RATE = float(os.environ.get("CUTAWAY_CHURN_RATE", "0"))
"""Writes a second once it is warm, so that two hours of it may run beside other work; 0: as fast as it goes."""
GROWTH_MB_MAX = 40.0
"""What the process may grow by after it is warm: what an allocator keeps, not what a leak takes in hours."""


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def test_memory_and_descriptors_stay_flat(tmp_path: Path) -> None:
    server = ApiServerProcess(tmp_path, history_seconds=60, event_ttl_seconds=5).start()
    assert server.process is not None
    pid, until, writes = server.process.pid, Until(), 0
    samples: list[tuple[float, float, int, int]] = []

    async def churn(rest: Rest, number: int) -> None:
        nonlocal writes
        for turn in itertools.count():
            if until.ended:
                return
            name = f"c{number}-{turn % OBJECTS}"
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "x" * 1000}}
            assert (await rest.post(PATH, body))[0] == 201
            assert (await rest.patch(f"{PATH}/{name}", {"data": {"turn": str(turn)}}))[0] == 200
            assert (await rest.delete(f"{PATH}/{name}"))[0] == 200
            reference = {"kind": "ConfigMap", "namespace": "default", "name": name}
            event = {
                "metadata": {"generateName": f"{name}-"}, "involvedObject": reference, "reason": "Churned",
                "message": "turned", "type": "Normal",
            }  # fmt: skip
            assert (await rest.post("/api/v1/namespaces/default/events", event))[0] == 201
            writes += 4
            await pace(4 * WRITERS)

    async def come_and_go() -> None:
        """Watches that are opened and cut off, each over a connection of its own."""
        while not until.ended:
            async with Rest(server) as rest:
                with suppress(*LOST):
                    async with rest.watch(PATH, resourceVersion="0") as watch:
                        await watch.next(1)
                await rest.get(PATH, limit=5)
            await pace(4 * CUT_OFF)

    async def pace(share: int) -> None:
        if RATE and writes >= WARM_WRITES:
            await asyncio.sleep(share / RATE)

    def sample() -> None:
        size = sum(path.stat().st_size for path in tmp_path.glob("state.db*"))
        samples.append((time.monotonic(), resident_mb(pid), descriptors(pid), size))
        if FULL:
            note(f"churn: {writes} writes, {samples[-1][1]:.1f} MB, {samples[-1][2]} files, state {size / 1e6:.1f} MB")

    try:
        async with Rest(server) as rest, asyncio.TaskGroup() as group:
            for number in range(WRITERS):
                group.create_task(churn(rest, number))
            for _ in range(CUT_OFF):
                group.create_task(come_and_go())
            await until.reached(lambda: writes >= WARM_WRITES, 600, "it is warm")
            deadline = time.monotonic() + SECONDS
            while time.monotonic() < deadline:
                sample()
                await asyncio.sleep(SECONDS / 20)
            sample()
            until.ended = True
            # Everybody ends within a turn.
        async with Rest(server) as rest:
            _, listed = await rest.get(PATH)
        assert len(listed["items"]) <= WRITERS * OBJECTS
    finally:
        until.ended = True
        assert server.stop(signal.SIGTERM) == 0
    first, last = samples[: len(samples) // 3], samples[-len(samples) // 3 :]
    grown = min(s[1] for s in last) - max(s[1] for s in first)
    opened = min(s[2] for s in last) - max(s[2] for s in first)
    figure(
        15,
        f"{writes} writes in {samples[-1][0] - samples[0][0]:.0f} s: resident {samples[0][1]:.0f} -> "
        f"{samples[-1][1]:.0f} MB, files {samples[0][2]} -> {samples[-1][2]}, state {samples[-1][3] / 1e6:.0f} MB",
    )
    assert grown < GROWTH_MB_MAX, json.dumps(samples)
    assert opened <= 0, json.dumps(samples)


def rows(database: Path) -> int:
    """How many entries the log has."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM event_log").fetchone()[0])


async def test_the_log_is_bounded_by_age_and_events_and_leases_do_not_fill_it(tmp_path: Path) -> None:
    now = 1000.0
    policy = RetentionPolicy(
        Retention(seconds=3600, events=2000), {name: Retention(seconds=60) for name in ("events", "leases")}
    )
    store = await open_store(f"sqlite:///{tmp_path}/store.db", retention=policy, clock=lambda: now)
    sizes = []
    for turn in range(times(100, 20)):
        now += 30
        puts = [Put(Key("leases", "n", f"l{n}"), ANY, b"", b"x" * 100) for n in range(100)]
        puts += [Put(Key("pods", "n", f"p{turn * 5 % 40}"), ANY, b"", b"x" * 100) for _ in range(5)]
        await store.commit(*puts)
        await store.apply_retention()
        sizes.append(rows(tmp_path / "store.db"))
    pods = await store.history(Key("pods", "n", "p0"), limit=1000)
    assert max(sizes) <= 2200
    assert len(pods) >= 5, "heartbeats pushed the pods' past out"
    await store.close()
    figure(15, f"{len(sizes) * 105} writes, mostly heartbeats: the log holds at most {max(sizes)} entries")
