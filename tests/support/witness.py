"""Witnesses of what an apiserver promises: writers that note what was acknowledged, watchers that note what they were
shown, and a judge that compares both with the store's log.

    writers ──acknowledged (revision, key)──┐
    watchers ──seen (revision, type, name)──┤── judge ── the log, read from the database itself
                                            └── no acknowledged write is missing, no watch has a gap or a duplicate
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import aiohttp

from storage import Event, EventType, Key, Store
from tests.support.rest import Rest
from tests.support.store_checks import check_store

RESOURCE, NAMESPACE = "configmaps", "default"
PATH = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
LOST = (aiohttp.ClientError, OSError, TimeoutError)
"""What a client gets when its server dies: it can't know whether its request was carried out."""

AGAIN_SECONDS = 0.1
"""After a failure, as clients wait: fourteen that never do take what the server needs to start."""

Seen = tuple[int, str, str]


@dataclass
class Journal:
    """What all writers were told."""

    acknowledged: list[tuple[int, Key]] = field(default_factory=list)
    # By HTTP status.
    refused: dict[int, int] = field(default_factory=dict)
    unknown: int = 0
    # How long writes took, in seconds.
    seconds: list[float] = field(default_factory=list)

    def take(self, status: int, body: object, name: str, took: float) -> None:
        """Note an answer."""
        if status in (200, 201) and isinstance(body, dict):
            revision = int(body["metadata"]["resourceVersion"])
            self.acknowledged.append((revision, Key(RESOURCE, NAMESPACE, name)))
            self.seconds.append(took)
        else:
            self.refused[status] = self.refused.get(status, 0) + 1


class Until:
    """Said when everybody shall come to an end."""

    def __init__(self) -> None:
        self.ended = False

    async def reached(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait for a condition. Raises AssertionError."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
            await asyncio.sleep(0.005)


async def write(rest: Rest, journal: Journal, number: int, until: Until, *, objects: int = 5, size: int = 200) -> None:
    """Create, change, relabel and delete objects of our own, for as long as nobody says stop."""
    for turn in itertools.count():
        if until.ended:
            return
        name = f"w{number}-{turn % objects}"
        step = turn // objects % 4
        labels = {"parity": "odd" if (turn + number) % 2 else "even"}
        body = {"metadata": {"name": name, "labels": labels}, "data": {"turn": str(turn), "ballast": "x" * size}}
        began = time.monotonic()
        try:
            if step == 0:
                status, answer = await rest.post(PATH, {"apiVersion": "v1", "kind": "ConfigMap", **body})
            elif step == 3:
                # A deletion's answer is a Status without a revision; the log says what became of it.
                status, answer = await rest.delete(f"{PATH}/{name}")
                if status == 200:
                    continue
            else:
                status, answer = await rest.patch(f"{PATH}/{name}", body)
        except LOST:
            journal.unknown += 1
            await asyncio.sleep(AGAIN_SECONDS)
            continue
        journal.take(status, answer, name, time.monotonic() - began)
        if status >= 500 or status == 429:
            await asyncio.sleep(AGAIN_SECONDS)


class WatchWitness:
    """One watch, resumed from the last revision that it has seen whenever it breaks.

    `seen` holds stretches: a new one begins where the server said that the past is gone (410), with a list.
    """

    def __init__(self, selector: dict[str, str], matches: Callable[[str, dict[str, str]], bool]) -> None:
        self.selector = selector
        self.matches = matches
        self.stretches: list[tuple[int, list[Seen]]] = []
        self.revision = 0
        self.resumed = 0
        self.bookmarks = 0
        # From each event's commit to its arrival, in seconds, where the writer put the time of its request in.
        self.lags: list[float] = []

    async def run(self, rest: Rest, until: Until) -> None:
        """Watch for as long as nobody says stop."""
        while not until.ended:
            try:
                if not self.stretches:
                    await self._list(rest)
                await self._watch(rest, until)
            except LOST:
                await asyncio.sleep(AGAIN_SECONDS)
            self.resumed += 1

    async def _list(self, rest: Rest) -> None:
        status, listed = await rest.get(PATH, **self.selector)
        if status != 200:
            raise TimeoutError(status)
        self.revision = int(listed["metadata"]["resourceVersion"])
        self.stretches.append((self.revision, []))

    async def _watch(self, rest: Rest, until: Until) -> None:
        query = {"resourceVersion": self.revision, "allowWatchBookmarks": "true", "timeoutSeconds": 300}
        async with rest.watch(PATH, **query, **self.selector) as watch:
            if watch.response.status == 410:
                await self._list(rest)
                return
            if watch.response.status != 200:
                raise TimeoutError(watch.response.status)
            while not until.ended:
                try:
                    event = await watch.next(0.5)
                except TimeoutError:
                    continue
                if event is None:
                    return
                if not self._take(event):
                    await self._list(rest)
                    return

    def _take(self, event: dict[str, dict[str, object]]) -> bool:
        """Note an event; False if the past is gone."""
        kind, obj = str(event["type"]), event["object"]
        if kind == "ERROR":
            assert obj["code"] == 410, obj
            return False
        metadata: dict[str, str] = obj["metadata"]  # type: ignore[assignment]
        revision = int(metadata["resourceVersion"])
        if kind == "BOOKMARK":
            assert revision >= self.revision, f"a bookmark of {revision} after {self.revision}"
            self.bookmarks += 1
        else:
            assert revision > self.revision, f"revision {revision} came after {self.revision}"
            self.stretches[-1][1].append((revision, kind, metadata["name"]))
        self.revision = revision
        return True


def witnesses() -> list[WatchWitness]:
    """Six watches: of everything, by label, by name."""
    everything = [WatchWitness({}, lambda name, labels: True) for _ in range(3)]
    odd = WatchWitness({"labelSelector": "parity=odd"}, lambda name, labels: labels.get("parity") == "odd")
    not_odd = WatchWitness({"labelSelector": "parity!=odd"}, lambda name, labels: labels.get("parity") != "odd")
    one = WatchWitness({"fieldSelector": "metadata.name=w0-1"}, lambda name, labels: name == "w0-1")
    return [*everything, odd, not_odd, one]


def expected(events: Iterable[Event], matches: Callable[[str, dict[str, str]], bool]) -> list[Seen]:
    """What a watch with this selector must show of the log."""
    out: list[Seen] = []
    for event in events:
        if (event.key.resource, event.key.namespace) != (RESOURCE, NAMESPACE):
            continue
        name = event.key.name
        is_now = event.type is EventType.PUT and matches(name, _labels(event.value))
        was = event.previous is not None and matches(name, _labels(event.previous))
        if is_now or was:
            out.append((event.revision, "MODIFIED" if is_now and was else "ADDED" if is_now else "DELETED", name))
    return out


def _labels(value: bytes) -> dict[str, str]:
    labels: dict[str, str] = json.loads(value)["metadata"].get("labels") or {}
    return labels


async def judge(store: Store, journal: Journal, watched: Sequence[WatchWitness]) -> int:
    """Replay the log and compare; the newest revision. The witnesses must have come to rest."""
    assert len({revision for revision, _ in journal.acknowledged}) == len(journal.acknowledged), "one revision twice"
    newest = await check_store(store, journal.acknowledged)
    oldest = await store.compacted_revision(RESOURCE)  # type: ignore[call-arg]
    events: list[Event] = []
    after = max(0, oldest - 1)
    while batch := await store.events(after, resource=RESOURCE, limit=10_000):
        events += batch
        after = batch[-1].revision
    for witness in watched:
        assert witness.stretches, "a watch never began"
        ends = [start for start, _ in witness.stretches[1:]] + [witness.revision]
        for (start, seen), end in zip(witness.stretches, ends, strict=True):
            last = seen[-1][0] if seen and seen[-1][0] > end else end
            wanted = expected((e for e in events if start < e.revision <= last), witness.matches)
            # The last stretch ends where the witness has got to; one that was cut off with 410 may end earlier.
            if end != witness.revision:
                wanted = wanted[: len(seen)]
            assert seen == wanted, f"a watch with {witness.selector} has a gap, a duplicate or a wrong event"
    return newest
