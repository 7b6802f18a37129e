"""One leader at a time, a fence for its writes, and a quick hand-over."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from machinery.api import errors, kinds
from machinery.client.api_client import Fence
from machinery.client.fake import FakeApiServer
from machinery.client.leader_election import LeaderElector, LeadershipLost

FAST = {"lease_duration": 3.0, "renew_deadline": 2.0, "retry_period": 0.05}


class Work:
    """What a leader does: note its fence and go on until it is stopped."""

    def __init__(self) -> None:
        self.fences: list[Fence] = []
        self.began = asyncio.Event()

    async def __call__(self, fence: Fence) -> None:
        self.fences.append(fence)
        self.began.set()
        await asyncio.Event().wait()


async def lead(server: FakeApiServer, name: str) -> tuple[asyncio.Task[None], Work]:
    elector = LeaderElector(await server.client(), "test", name, **FAST)
    work = Work()
    return asyncio.create_task(elector.run(work)), work


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))


async def test_a_lease_that_is_given_back_is_taken_at_once_with_the_next_epoch(server: FakeApiServer) -> None:
    first, one = await lead(server, "one")
    await asyncio.wait_for(one.began.wait(), 5)
    second, two = await lead(server, "two")
    await asyncio.sleep(0)
    assert not two.began.is_set()
    await stop(first)
    await asyncio.wait_for(two.began.wait(), 2.5)  # Less than the lease's duration.
    assert (one.fences[0].epoch, two.fences[0].epoch) == (1, 2)
    await stop(second)


async def test_a_silent_leader_is_replaced_and_its_late_writes_are_refused(server: FakeApiServer) -> None:
    first, one = await lead(server, "one")
    await asyncio.wait_for(one.began.wait(), 5)
    writer = (await server.client()).fenced(one.fences[0])
    body = {"metadata": {"name": "by-one"}}
    await writer.create(kinds.CONFIG_MAP, body, "d")

    def only_two(method: str, request: Any) -> errors.ApiError | None:
        is_lease = method == "Patch" and request.resource.resource == "leases"
        return errors.ServiceUnavailable("cut off") if is_lease and b"two" not in request.patch else None

    server.intercept = only_two
    second, two = await lead(server, "two")
    with pytest.raises(LeadershipLost, match="could not be renewed"):
        await asyncio.wait_for(first, 10)
    await asyncio.wait_for(two.began.wait(), 10)
    with pytest.raises(errors.Conflict):
        await writer.create(kinds.CONFIG_MAP, {"metadata": {"name": "too-late"}}, "d")
    server.intercept = None
    await stop(second)


async def test_a_lease_that_another_takes_ends_the_leader(server: FakeApiServer) -> None:
    task, work = await lead(server, "one")
    await asyncio.wait_for(work.began.wait(), 5)
    patch = {"spec": {"holderIdentity": "thief", "leaseTransitions": 7}}
    await (await server.client()).patch(kinds.LEASE, "test", "kube-system", patch)
    with pytest.raises(LeadershipLost, match="was taken by thief"):
        await asyncio.wait_for(task, 5)


async def test_a_label_on_the_lease_does_not_end_the_leader(server: FakeApiServer) -> None:
    task, work = await lead(server, "one")
    await asyncio.wait_for(work.began.wait(), 5)
    await (await server.client()).patch(kinds.LEASE, "test", "kube-system", {"metadata": {"labels": {"a": "b"}}})
    renewals = server.calls.count("Patch")
    async with asyncio.timeout(5):
        while server.calls.count("Patch") < renewals + 3:
            await server.changed()
    assert not task.done()
    await stop(task)


async def test_what_the_work_raises_comes_out_and_the_lease_is_free(server: FakeApiServer) -> None:
    async def fail(fence: Fence) -> None:
        raise RuntimeError("broken")

    elector = LeaderElector(await server.client(), "test", "one", **FAST)
    with pytest.raises(RuntimeError, match="broken"):
        await elector.run(fail)
    assert server.state.get(kinds.LEASE, "kube-system", "test")["spec"]["holderIdentity"] == ""
