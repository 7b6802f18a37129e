import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from lightkube.models import core_v1, meta_v1

from examples import component_ttl
from machinery.api import kinds
from machinery.api.errors import NotFound
from machinery.client.api_client import ApiClient
from machinery.client.fake import FakeApiServer

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _config_map(annotations):
    return core_v1.ConfigMap(metadata=meta_v1.ObjectMeta(name="a", creationTimestamp=NOW, annotations=annotations))


@pytest.mark.parametrize(
    ("annotations", "left"),
    [(None, None), ({}, None), ({component_ttl.ANNOTATION: "soon"}, None), ({component_ttl.ANNOTATION: "60"}, 50.0)],
)
def test_only_a_whole_number_of_seconds_is_a_limit(annotations, left):
    assert component_ttl.seconds_left(_config_map(annotations), NOW + timedelta(seconds=10)) == left


async def test_what_has_run_out_is_deleted_and_the_rest_stays(monkeypatch):
    async with FakeApiServer() as server:
        client, own = await server.client(), await server.client()

        async def connect(*_args, **_more):
            return own

        monkeypatch.setattr(ApiClient, "connect", connect)
        for name, annotations in (("old", {component_ttl.ANNOTATION: "0"}), ("kept", {})):
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "annotations": annotations}}
            await client.create(kinds.CONFIG_MAP, body, "default")
        async with asyncio.TaskGroup() as tasks:
            config = SimpleNamespace(apiserver=[], tls=None)
            context = SimpleNamespace(config=config, tasks=tasks, on_stop=lambda _close: None)
            running = tasks.create_task(component_ttl.serve(context))
            async with asyncio.timeout(10):
                async for batch in client.watch(kinds.CONFIG_MAP):
                    if any(name == "DELETED" for name, _ in _named(batch)):
                        break
            assert (await client.get(kinds.CONFIG_MAP, "kept", "default")).metadata.name == "kept"
            with pytest.raises(NotFound):
                await client.get(kinds.CONFIG_MAP, "old", "default")
            running.cancel()
            for task in list(tasks._tasks):
                task.cancel()


def _named(batch):
    return [(str(getattr(kind, "name", kind)), obj) for kind, obj in batch.events]
