"""Drivers of devices on real sockets: who registers, who is refused, who comes back, who leaves slices behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from machinery.api import kinds
from machinery.client.fake import FakeApiServer
from services.kubelet.devices import drivers as module
from services.kubelet.devices.drivers import DeviceError, Drivers
from tests.support.device_driver import DeviceDriver

NAME = "gpu.example.com"


class World:
    def __init__(self, root: Path, server: FakeApiServer, drivers: Drivers) -> None:
        self.root, self.server, self.drivers = root, server, drivers

    def driver(self, **more: object) -> DeviceDriver:
        return DeviceDriver(self.root, self.root / "cdi", **more)  # type: ignore[arg-type]

    def here(self) -> bool:
        try:
            self.drivers.get(NAME)
        except DeviceError:
            return False
        return True

    def slices(self) -> list[str]:
        return [s["metadata"]["name"] for s in self.server.state.list(kinds.RESOURCE_SLICE, "", lambda obj: True)]

    async def add_slice(self, name: str, node: str = "n1", driver: str = NAME) -> None:
        pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
        spec = {"driver": driver, "nodeName": node, "pool": pool}
        client = await self.server.client()
        await client.create(kinds.RESOURCE_SLICE, {"metadata": {"name": name}, "spec": spec})

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - of directories and sockets nobody tells us
                await asyncio.sleep(0.02)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with FakeApiServer() as server:
        drivers = Drivers(tmp_path, "n1", await server.client("kubelet"))
        world = World(tmp_path, server, drivers)
        await world.add_slice("left-over")
        await world.add_slice("elsewhere", node="n2")
        running = asyncio.create_task(drivers.run())
        yield world
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_driver_registers_and_comes_back_after_a_restart(world: World) -> None:
    for _ in range(2):
        async with world.driver() as driver:
            await world.until(lambda driver=driver: driver.registered is not None)
            assert driver.registered.plugin_registered
            answer = await world.drivers.get(NAME).prepare([])
            assert not answer.claims
        await world.until(lambda: not world.here())


async def test_the_older_protocol_is_spoken_too(world: World) -> None:
    async with world.driver(versions=("v1alpha4", "v1beta1.DRAPlugin")) as driver:
        await world.until(lambda: driver.registered is not None)
        assert driver.registered.plugin_registered
        # This driver serves the newer one only: the call goes where it said.
        with pytest.raises(DeviceError, match="UNIMPLEMENTED"):
            await world.drivers.get(NAME).prepare([])


async def test_a_plugin_of_another_type_is_told_so(world: World) -> None:
    async with world.driver(type="CSIPlugin") as driver:
        await world.until(lambda: driver.registered is not None)
        assert not driver.registered.plugin_registered
        assert "CSIPlugin" in driver.registered.error
        assert not world.here()


async def test_slices_that_nobody_can_serve_are_deleted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WIPE_SECONDS", 0.2)
    # A kubelet that starts has no drivers yet.
    await world.until(lambda: world.slices() == ["elsewhere"])
    async with world.driver():
        await world.until(world.here)
        await world.add_slice("mine")
        await world.add_slice("other", driver="other.example.com")
    await world.until(lambda: sorted(world.slices()) == ["elsewhere", "other"])
