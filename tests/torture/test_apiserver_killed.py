"""1. An apiserver that is killed again and again under load: nothing acknowledged is lost, no watch has a gap."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

from storage import open_store
from tests.support.apiserver_process import ApiServerProcess
from tests.support.rest import Rest
from tests.support.torture import figure, percentile, times
from tests.support.witness import Journal, Until, judge, witnesses, write

KILLS = times(200, 6)
WRITERS = 8
ACKNOWLEDGED_BETWEEN = 60


async def test_nothing_acknowledged_is_lost_and_no_watch_has_a_gap(tmp_path: Path) -> None:
    server = ApiServerProcess(tmp_path).start()
    journal, until, watched = Journal(), Until(), witnesses()
    ready: list[float] = []
    began = time.monotonic()
    try:
        async with Rest(server) as rest, asyncio.TaskGroup() as group:
            for number in range(WRITERS):
                group.create_task(write(rest, journal, number, until))
            for witness in watched:
                group.create_task(witness.run(rest, until))
            await until.reached(lambda: all(witness.stretches for witness in watched), 20, "every watch has begun")
            for _ in range(KILLS):
                enough = len(journal.acknowledged) + ACKNOWLEDGED_BETWEEN
                await until.reached(lambda enough=enough: len(journal.acknowledged) >= enough, 30, "writes go on")
                await asyncio.to_thread(server.stop, signal.SIGKILL)
                killed = time.monotonic()
                await asyncio.to_thread(server.start)
                before = len(journal.acknowledged)
                await until.reached(lambda before=before: len(journal.acknowledged) > before, 30, "it serves again")
                ready.append(time.monotonic() - killed)
            newest = max(revision for revision, _ in journal.acknowledged)
            await until.reached(
                lambda: all(witness.revision >= newest for witness in watched[:3]), 30, "the watches have seen it all"
            )
            until.ended = True
    finally:
        until.ended = True
        if server.process is not None:
            server.stop()
    store = await open_store(str(server.settings["storage_url"]))
    newest = await judge(store, journal, watched)
    await store.close()
    rate = len(journal.acknowledged) / (time.monotonic() - began)
    figure(
        1,
        f"{KILLS} kills, {len(journal.acknowledged)} acknowledged writes ({rate:.0f}/s with the restarts), none lost "
        f"of {newest} revisions, {journal.unknown} unknown; {sum(w.resumed for w in watched)} resumptions without gap; "
        f"serves again after {percentile(ready, 0.5):.1f} s (at most {max(ready):.1f} s)",
    )
