"""The apiserver's core in this process, on a real store in a temporary file: for tests that need no transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from services.apiserver.config import ApiServerConfig
from services.apiserver.request import SYSTEM, DeleteOptions, ListOptions, Request, User, WatchOptions, WriteOptions
from services.apiserver.service import Core
from storage import open_store


class CoreClient:
    """Verbs as one user, on dicts."""

    def __init__(self, core: Core, user: User = SYSTEM) -> None:
        self.core = core
        self.user = user

    def request(
        self, verb: str, plural: str, namespace: str = "", name: str = "", group: str = "", sub: str = ""
    ) -> Request:
        row = self.core.registry.resolve(group, "", plural)
        return Request(self.user, verb, row, sub, namespace, name, "test/1")

    async def create(
        self, plural: str, obj: dict[str, Any], namespace: str = "", group: str = "", **options: Any
    ) -> Any:
        req = self.request("create", plural, namespace, "", group)
        return orjson.loads((await self.core.handlers.create(req, obj, WriteOptions(**options))).json)

    async def update(
        self, plural: str, obj: dict[str, Any], namespace: str = "", group: str = "", sub: str = ""
    ) -> Any:
        req = self.request("update", plural, namespace, obj["metadata"]["name"], group, sub)
        return orjson.loads((await self.core.handlers.update(req, obj, WriteOptions())).json)

    async def patch(
        self,
        plural: str,
        name: str,
        patch: Any,
        namespace: str = "",
        group: str = "",
        kind: Any = "merge",
        sub: str = "",
    ) -> Any:
        req = self.request("patch", plural, namespace, name, group, sub)
        return orjson.loads((await self.core.handlers.patch(req, kind, patch, WriteOptions(field_manager="test"))).json)

    async def get(self, plural: str, name: str, namespace: str = "", group: str = "", **query: Any) -> Any:
        return orjson.loads(await self.core.handlers.get(self.request("get", plural, namespace, name, group), **query))

    async def delete(self, plural: str, name: str, namespace: str = "", group: str = "", **options: Any) -> Any:
        req = self.request("delete", plural, namespace, name, group)
        result = await self.core.handlers.delete(req, DeleteOptions(**options))
        return orjson.loads(result.json), result.gone

    async def list(self, plural: str, namespace: str = "", group: str = "", **options: Any) -> Any:
        return await self.core.handlers.list(self.request("list", plural, namespace, "", group), ListOptions(**options))

    def watch(self, plural: str, namespace: str = "", group: str = "", **options: Any) -> Any:
        return self.core.handlers.watch(self.request("watch", plural, namespace, "", group), WatchOptions(**options))


@asynccontextmanager
async def running_core(directory: Path, **settings: Any) -> AsyncIterator[CoreClient]:
    """A core that follows its store. It has the namespace "default" with its service account, and nothing else."""
    config = ApiServerConfig(**settings)
    store = await open_store(f"sqlite:///{directory / 'core.db'}")
    core = Core(config, store)
    await core.start()
    tasks = [
        asyncio.create_task(core.cache.run()),
        asyncio.create_task(core.definitions.run(core.writer, core.deleter)),
        asyncio.create_task(core.policy_status.reconciler.run()),
    ]
    client = CoreClient(core)
    if core.cache.of("namespaces").count == 0:
        await client.create("namespaces", {"metadata": {"name": "default"}})
        await client.create("serviceaccounts", {"metadata": {"name": "default"}}, "default")
    try:
        yield client
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await store.close()
