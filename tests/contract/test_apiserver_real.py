"""The real apiserver keeps the ApiServer contract: a process of its own, over mutual TLS."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from machinery.api import errors, kinds
from machinery.client.api_client import ApiClient
from protos.cutaway.v1 import apiserver_pb2
from tests.contract.apiserver_suite import ApiServerContract
from tests.support.apiserver_process import ApiServerProcess, files

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServerProcess]:
    directory: Path = tmp_path_factory.mktemp("apiserver")
    process = ApiServerProcess(directory).start()
    yield process
    assert process.stop() == 0, process.log


@pytest.fixture
async def client(server: ApiServerProcess) -> AsyncIterator[ApiClient]:
    client = await ApiClient.connect(server.grpc, files(server.admin), user_agent="contract")
    yield client
    await client.close()


@pytest.fixture
async def namespace(client: ApiClient) -> str:
    name = f"contract-{next(_numbers)}"
    await client.create(kinds.NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    # The controller that makes it is not part of this test.
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    await client.create(kinds.SERVICE_ACCOUNT, account, name)
    return name


class TestRealApiServer(ApiServerContract):
    async def test_the_history_of_an_object_says_who_did_what_also_to_one_that_is_gone(
        self, server: ApiServerProcess, client: ApiClient, namespace: str
    ) -> None:
        jane = server.pki.client("jane", "jane", ["system:masters"])
        hers = await ApiClient.connect(server.grpc, files(jane), user_agent="contract")
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}}
        for _ in range(2):
            await client.create(kinds.CONFIG_MAP, body, namespace)
            await hers.patch(kinds.CONFIG_MAP, "a", namespace, {"data": {"k": "2"}})
            await client.delete(kinds.CONFIG_MAP, "a", namespace)
        await hers.close()

        async def ask(**options: int) -> list[apiserver_pb2.Version]:
            request = apiserver_pb2.HistoryRequest(
                resource=kinds.CONFIG_MAP.ref, namespace=namespace, name="a", **options
            )
            return list((await client._channels.call("History", request, 5, safe=True)).versions)

        found = await ask()
        one_life = [("kubernetes-admin", 3), ("jane", 2), ("kubernetes-admin", 1)]
        assert [(version.user, version.kind) for version in found] == one_life * 2
        assert [version.object.revision for version in found] == sorted(
            (version.object.revision for version in found), reverse=True
        )
        assert abs(found[0].time - time.time()) < 60
        assert json.loads(found[1].object.json)["data"] == {"k": "2"}
        assert [version.object.revision for version in await ask(limit=2, at_revision=found[1].object.revision)] == [
            found[1].object.revision,
            found[2].object.revision,
        ]
        with pytest.raises(errors.NotFound):
            await ask(at_revision=found[-1].object.revision - 1)
        with pytest.raises(errors.BadRequest, match="at most 1000"):
            await ask(limit=1001)

    async def test_history_can_be_forgotten_by_who_may_and_objects_stay(
        self, server: ApiServerProcess, client: ApiClient, namespace: str
    ) -> None:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}}
        await client.create(kinds.CONFIG_MAP, body, namespace)
        made = await client.patch(kinds.CONFIG_MAP, "a", namespace, {"data": {"k": "2"}})
        revision = int(made.metadata.resourceVersion)
        nobody = await ApiClient.connect(server.grpc, files(server.pki.client("joe", "joe")), user_agent="contract")
        with pytest.raises(errors.Forbidden, match='cannot post path "/compact"'):
            await nobody._channels.call("Compact", apiserver_pb2.CompactRequest(), 5, safe=True)
        await nobody.close()
        with pytest.raises(errors.BadRequest, match="has not happened"):
            await client._channels.call("Compact", apiserver_pb2.CompactRequest(revision=10**9), 5, safe=True)
        answer = await client._channels.call("Compact", apiserver_pb2.CompactRequest(revision=revision), 30, safe=True)
        assert answer.revision == revision
        assert answer.removed
        request = apiserver_pb2.HistoryRequest(resource=kinds.CONFIG_MAP.ref, namespace=namespace, name="a")
        found = (await client._channels.call("History", request, 5, safe=True)).versions
        assert [version.object.revision for version in found] == [revision]
        assert (await client.get(kinds.CONFIG_MAP, "a", namespace)).data == {"k": "2"}

    async def test_every_write_is_followed_in_order_with_who_asked_by_who_may_watch_everything(
        self, server: ApiServerProcess, client: ApiClient, namespace: str
    ) -> None:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}}
        async with asyncio.timeout(10), aclosing(client.follow()) as stream:
            first = await anext(stream)
            assert not first.writes
            made = await client.create(kinds.CONFIG_MAP, body, namespace)
            await client.patch(kinds.CONFIG_MAP, "a", namespace, {"data": {"k": "2"}})
            await client.delete(kinds.CONFIG_MAP, "a", namespace)
            seen: list[apiserver_pb2.Write] = []
            while len(mine := [w for w in seen if w.version.object.namespace == namespace]) < 3:
                batch = await anext(stream)
                seen += batch.writes
                assert batch.revision >= batch.writes[-1].version.object.revision
        assert [write.version.object.revision for write in seen] == list(
            range(first.revision + 1, first.revision + 1 + len(seen))
        )
        assert [(w.resource.resource, w.version.kind, w.version.user) for w in mine] == [
            ("configmaps", kind, "kubernetes-admin") for kind in (1, 2, 3)
        ]
        assert json.loads(mine[1].version.object.json)["data"] == {"k": "2"}
        # From a revision that was: the same again.
        async with asyncio.timeout(10), aclosing(client.follow(int(made.metadata.resourceVersion))) as stream:
            assert not (await anext(stream)).writes
            again = (await anext(stream)).writes
        assert again[0].version.object.revision == int(made.metadata.resourceVersion) + 1
        await client._channels.call("Compact", apiserver_pb2.CompactRequest(), 30, safe=True)
        for after, refusal in ((10**9, errors.BadRequest), (1, errors.Expired)):
            with pytest.raises(refusal):
                async for _ in client.follow(after):
                    pass
        nobody = await ApiClient.connect(server.grpc, files(server.pki.client("joe", "joe")), user_agent="contract")
        with pytest.raises(errors.Forbidden, match='cannot watch resource "\\*"'):
            await anext(nobody.follow())
        await nobody.close()
