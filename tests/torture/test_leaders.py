"""5 and 10. Leaders that are killed, frozen, or have a wrong clock: never two write at once."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from machinery.api import kinds
from machinery.client.api_client import ApiClient
from storage import open_store
from storage.store import Key
from tests.support.apiserver_process import ROOT, ApiServerProcess, files
from tests.support.torture import FULL, figure, full_only, times
from tests.support.witness import Until

# Upstream's timings in full; in CI much shorter.
DURATION, DEADLINE, RETRY = (15.0, 10.0, 2.0) if FULL else (2.0, 1.5, 0.3)
FROZEN_SECONDS = 20.0 if FULL else 3.0
TAKEOVER_SECONDS_MAX = 20.0
ROUNDS = times(10, 1)


class Candidate:
    """One process that wants to lead."""

    def __init__(self, server: ApiServerProcess, name: str, *, clock: dict[str, str] | None = None) -> None:
        tls = files(server.admin)
        argv = [
            sys.executable, "-m", "tests.support.leader_process", server.grpc, tls.ca_file, tls.cert_file, tls.key_file,
            name, str(DURATION), str(DEADLINE), str(RETRY),
        ]  # fmt: skip
        self.name = name
        self.log = server.directory / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(argv, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, **(clock or {})})

    def said(self, word: str) -> int:
        """How many lines begin with a word."""
        return sum(line.split()[:1] == [word] for line in self.log.read_text().splitlines())

    def end(self) -> None:
        self.process.kill()
        self.process.wait(5)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServerProcess]:
    running = ApiServerProcess(tmp_path).start()
    client = await ApiClient.connect(running.grpc, files(running.admin), user_agent="test")
    ledger = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ledger"}}
    await client.create(kinds.CONFIG_MAP, ledger, "default")
    await client.close()
    yield running
    if running.process is not None:
        running.stop()


async def written(server: ApiServerProcess) -> list[tuple[str, int]]:
    """(leader, epoch) of every write, in revision order; the apiserver is stopped for it."""
    server.stop()
    store = await open_store(str(server.settings["storage_url"]))
    events = await store.history(Key("configmaps", "default", "ledger"), limit=1_000_000)
    await store.close()
    data = [json.loads(event.value).get("data") for event in reversed(events)]
    return [(entry["leader"], int(entry["epoch"])) for entry in data if entry]


def check_ledger(writes: list[tuple[str, int]]) -> int:
    """No leader writes after a later one has; how many leaderships there were."""
    epochs = [epoch for _, epoch in writes]
    assert epochs == sorted(epochs), "a former leader's write was accepted"
    assert all(len({leader for leader, _ in group}) == 1 for _, group in itertools.groupby(writes, lambda w: w[1]))
    return len(set(epochs))


async def until(condition: Callable[[], bool], what: str) -> None:
    await Until().reached(condition, 60, what)


async def test_killed_and_frozen_leaders_never_write_into_their_successors_time(server: ApiServerProcess) -> None:
    candidates = [Candidate(server, "c0"), Candidate(server, "c1")]
    takeovers: list[float] = []

    def leads() -> int:
        return sum(candidate.said("leads") for candidate in candidates)

    try:
        await until(lambda: leads() == 1, "somebody leads")
        for _ in range(ROUNDS):
            for how in (signal.SIGKILL, signal.SIGSTOP):
                name = await holder(server)
                leader = next(candidate for candidate in candidates if candidate.name == name)
                before, began = leads(), time.monotonic()
                leader.process.send_signal(how)
                frozen_until = began + (FROZEN_SECONDS if how is signal.SIGSTOP else 0)
                await until(lambda before=before: leads() > before, "another one leads")
                takeovers.append(time.monotonic() - began)
                if how is signal.SIGSTOP:
                    await asyncio.sleep(frozen_until - time.monotonic())
                    leader.process.send_signal(signal.SIGCONT)
                if how is signal.SIGKILL:
                    leader.end()
                    candidates.remove(leader)
                    candidates.append(Candidate(server, f"c{before + 2}"))
                    await asyncio.sleep(RETRY * 2)
        await until(lambda: any(c.said("refused") or c.said("lost") for c in candidates), "the frozen one has noticed")
    finally:
        for candidate in candidates:
            candidate.end()
    count = check_ledger(await written(server))
    assert count >= 2 * ROUNDS
    figure(
        5,
        f"{2 * ROUNDS} leaders killed or frozen {FROZEN_SECONDS:g} s (lease {DURATION:g} s): {count} leaderships, 0 "
        f"stale writes accepted, takeover within {max(takeovers):.1f} s",
    )
    assert not FULL or max(takeovers) <= TAKEOVER_SECONDS_MAX


async def holder(server: ApiServerProcess) -> str:
    """Whom the Lease names: a frozen leader does not know yet that it is none."""
    lease = await asyncio.to_thread(server.json, "get", "lease", "torture")
    return str(lease["spec"]["holderIdentity"]).partition("_")[0]


FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


@pytest.mark.skipif(FAKETIME is None, reason="needs libfaketime (Debian: faketime)")
@pytest.mark.parametrize(
    "wrong", ["an hour ahead", *(pytest.param(how, marks=full_only) for how in ("an hour behind", "twice as fast"))]
)
async def test_a_wrong_clock_makes_nobody_take_over(server: ApiServerProcess, tmp_path: Path, wrong: str) -> None:
    rate = tmp_path / "clock"
    rate.write_text("+0")
    clock = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(rate), "FAKETIME_NO_CACHE": "1"}
    if wrong != "twice as fast":
        # Setting a machine's clock moves the time of day; no machine's monotonic clock jumps.
        clock["FAKETIME_DONT_FAKE_MONOTONIC"] = clock["DONT_FAKE_MONOTONIC"] = "1"
    leader = Candidate(server, "leader", clock=clock if wrong != "twice as fast" else None)
    candidate = None
    try:
        await until(lambda: leader.said("leads") == 1, "the first one leads")
        candidate = Candidate(server, "candidate", clock=clock)
        await asyncio.sleep(RETRY * 3)
        rate.write_text({"an hour ahead": "+3600", "an hour behind": "-3600", "twice as fast": "+0 x2"}[wrong])
        await asyncio.sleep(DURATION * (3 if FULL else 2))
        assert candidate.process.poll() is None, candidate.log.read_text()
        assert (leader.said("leads"), leader.said("lost"), candidate.said("leads")) == (1, 0, 0)
    finally:
        leader.end()
        if candidate is not None:
            candidate.end()
    assert check_ledger(await written(server)) == 1
    figure(10, f"clock {wrong} under a leader and a candidate: no failover in {DURATION * (3 if FULL else 2):g} s")
