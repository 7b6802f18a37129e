"""What the client tries again, and what it does not."""

from __future__ import annotations

import asyncio

import pytest

from machinery.api import errors, kinds
from machinery.client.api_client import ApiClient
from machinery.client.fake import FakeApiServer

BODY = {"metadata": {"name": "a"}, "data": {"k": "v"}}


async def test_reads_outlast_a_restart_of_the_apiserver(server: FakeApiServer) -> None:
    client = await server.client()
    await client.create(kinds.CONFIG_MAP, BODY, "d")
    await server.stop()
    reads = asyncio.gather(client.get(kinds.CONFIG_MAP, "a", "d"), client.list(kinds.CONFIG_MAP, "d"))
    await asyncio.sleep(0)
    await server.start()
    found, listing = await reads
    assert found.data == {"k": "v"}
    assert len(listing) == 1


async def test_a_write_that_was_never_sent_is_tried_until_its_deadline(server: FakeApiServer) -> None:
    client = await server.client()
    await server.stop()
    write = asyncio.create_task(client.create(kinds.CONFIG_MAP, BODY, "d"))
    await asyncio.sleep(0)
    await server.start()
    assert (await write).metadata.uid
    await server.stop()
    with pytest.raises(errors.ServiceUnavailable):
        await client.create(kinds.CONFIG_MAP, BODY, "d", timeout=0.3)


async def test_a_write_whose_answer_is_lost_is_not_repeated(server: FakeApiServer) -> None:
    client = await server.client()
    server.intercept = lambda method, request: errors.ServiceUnavailable("it may or may not have happened")
    with pytest.raises(errors.ServiceUnavailable):
        await client.create(kinds.CONFIG_MAP, BODY, "d")
    assert server.calls == ["Create"]


async def test_another_apiserver_takes_over(server: FakeApiServer) -> None:
    async with FakeApiServer(server.state) as other:
        client = await ApiClient.connect([other.address, server.address], None, user_agent="test")
        await client.create(kinds.CONFIG_MAP, BODY, "d")
        assert (other.calls, server.calls) == (["Create"], [])
        await other.stop()
        assert (await client.get(kinds.CONFIG_MAP, "a", "d")).data == {"k": "v"}
        assert server.calls == ["Get"]
        await client.close()
    with pytest.raises(errors.ServiceUnavailable, match="the client is closed"):
        await client.get(kinds.CONFIG_MAP, "a", "d")
