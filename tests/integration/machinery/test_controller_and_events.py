"""Controllers retry with back-off, pause and resume; events are aggregated and never in the way."""

from __future__ import annotations

import asyncio
from typing import Any

from machinery.api import errors, kinds
from machinery.client.controller import Controller, Result
from machinery.client.events import EventRecorder
from machinery.client.fake import FakeApiServer
from machinery.client.workqueue import WorkQueue


async def test_a_key_that_fails_comes_again_and_its_error_is_shown() -> None:
    seen: list[str] = []
    done = asyncio.Event()

    async def reconcile(key: str) -> None:
        seen.append(key)
        if len(seen) < 3:
            raise errors.Forbidden("not yet")
        done.set()

    controller = Controller("t", reconcile, queue=WorkQueue(backoff_seconds_first=0.001))
    task = asyncio.create_task(controller.run())
    controller.add("d/a")
    await asyncio.wait_for(done.wait(), 5)
    state = controller.state()
    assert (state.reconciles_total, state.errors_total, state.last_error, state.last_error_key) == (
        3,
        2,
        "not yet",
        "d/a",
    )
    assert controller.queue.failures("d/a") == 0
    task.cancel()


async def test_a_paused_controller_takes_nothing_and_its_queue_goes_on_filling() -> None:
    seen: list[str] = []
    idle = asyncio.Event()

    async def reconcile(key: str) -> Result | None:
        seen.append(key)
        idle.set()
        return None

    controller = Controller("t", reconcile, workers=2, queue=WorkQueue())
    task = asyncio.create_task(controller.run())
    await asyncio.sleep(0)  # The workers wait for a key now; pausing must hold them all the same.
    controller.pause()
    for key in ("a", "b", "c"):
        controller.add(key)
    for _ in range(10):
        await asyncio.sleep(0)
    assert seen == []
    assert controller.state().paused
    assert controller.state().queue_depth == 3
    controller.resume()
    async with asyncio.timeout(5):
        while len(seen) < 3:
            idle.clear()
            await idle.wait()
    assert sorted(seen) == ["a", "b", "c"]
    task.cancel()


POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "d", "uid": "u1"}}


def events(server: FakeApiServer) -> list[dict[str, Any]]:
    return server.state.list(kinds.EVENT, "", lambda event: True)


async def test_repeats_raise_the_count_of_one_event(server: FakeApiServer) -> None:
    recorder = EventRecorder(await server.client(), "test", "host")
    recorder.record(POD, "Normal", "Started", "it runs")
    await recorder.flush()
    for _ in range(3):
        recorder.record(POD, "Normal", "Started", "it runs")
    await recorder.flush()
    [event] = events(server)
    assert (event["count"], event["reason"], event["source"]) == (4, "Started", {"component": "test", "host": "host"})
    assert event["involvedObject"] == {"apiVersion": "v1", "kind": "Pod", "namespace": "d", "name": "p", "uid": "u1"}


async def test_many_similar_events_are_combined_and_a_flood_is_bounded(server: FakeApiServer) -> None:
    now = [0.0]
    recorder = EventRecorder(await server.client(), "test", clock=lambda: now[0])
    for number in range(100):
        recorder.record(POD, "Warning", "Failed", f"attempt {number}")
    await recorder.flush()
    told = events(server)
    assert len(told) == 11
    assert sum(event["count"] for event in told) == 25
    assert sum(event["message"].startswith("(combined from similar events): ") for event in told) == 1
    now[0] += 3600
    recorder.record(POD, "Warning", "Failed", "much later")
    await recorder.flush()
    assert len(events(server)) == 12


async def test_an_event_that_expired_is_told_anew(server: FakeApiServer) -> None:
    recorder = EventRecorder(await server.client(), "test")
    recorder.record(POD, "Normal", "Started", "it runs")
    await recorder.flush()
    [event] = events(server)
    server.state.delete(kinds.EVENT, "d", event["metadata"]["name"])
    recorder.record(POD, "Normal", "Started", "it runs")
    await recorder.flush()
    assert len(events(server)) == 1


async def test_an_apiserver_that_is_away_costs_the_caller_nothing() -> None:
    async with FakeApiServer() as server:
        recorder = EventRecorder(await server.client(), "test")
        await server.stop()
        for number in range(5000):
            recorder.record({**POD, "metadata": {"name": f"p{number}", "namespace": "d"}}, "Normal", "R", "m")
        assert len(recorder._pending) == 1000
        recorder.record(object(), "Normal", "R", "nonsense")
