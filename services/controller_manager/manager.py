"""Runs the controllers while this process leads."""

from __future__ import annotations

import asyncio

from machinery.client.api_client import ApiClient, Fence
from machinery.client.events import EventRecorder
from machinery.component import logs
from services.controller_manager import registry
from services.controller_manager.config import ControllerManagerConfig
from services.controller_manager.informers import Informers
from services.controller_manager.reconciler import Environment, Reconciler

_SYNC_REPORT_SECONDS = 10.0

log = logs.get("manager")


class Manager:
    """The controllers of one leadership. Before it begins there are none: an instance that waits holds no state.

    Informers start only then, so that what they show first is newer than the last write of the leader before.
    """

    def __init__(self, config: ControllerManagerConfig, client: ApiClient, host: str) -> None:
        self.config = config
        self._client = client
        self._host = host
        self._entries = registry.chosen(config)
        self.controllers: dict[str, Reconciler] = {}
        self.synced = False

    @property
    def names(self) -> list[str]:
        """The controllers that run or would run here."""
        return [entry.name for entry in self._entries]

    async def lead(self, fence: Fence | None) -> None:
        """Run the controllers until cancelled. Every write carries the fence."""
        client = self._client.fenced(fence)
        recorders: list[EventRecorder] = []

        def recorder(component: str) -> EventRecorder:
            recorders.append(EventRecorder(client, component, self._host))
            return recorders[-1]

        env = Environment(self.config, client, Informers(client), recorder)
        controllers = registry.build(self._entries, env)
        for controller in controllers.values():
            controller.watch()
        self.controllers = controllers
        try:
            async with asyncio.TaskGroup() as tasks:
                for each in recorders:
                    tasks.create_task(each.run(), name="events")
                env.informers.start(tasks)
                await _wait_synced(env.informers)
                self.synced = True
                log.info("controllers start", count=len(controllers))
                for controller in controllers.values():
                    tasks.create_task(controller.run(), name=f"controller {controller.name}")
        finally:
            self.controllers = {}
            self.synced = False


async def _wait_synced(informers: Informers) -> None:
    """Wait for as long as it takes, and say every now and then for what."""
    while True:
        try:
            return await informers.synced(_SYNC_REPORT_SECONDS)
        except TimeoutError as err:
            log.warning("still waiting for informers", waiting=str(err))
