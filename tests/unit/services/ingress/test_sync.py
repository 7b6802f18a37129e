"""What the loop does when the proxy does not do as it is told, and when changes come one after the other."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from services.ingress import render, sync
from services.ingress.fake_haproxy import FakeHaproxy
from services.ingress.proxy import ProxyError
from services.ingress.sync import Sync, World
from tests.support.ingress_objects import ingress, path, piece, service

SETTINGS = render.Settings(Path("/run/x"), ("10.0.0.1:80",), ("10.0.0.1:443",))


class Stubborn(FakeHaproxy):
    """Refuses so many loads, or the next commands."""

    refuse_loads = 0
    refuse_commands = False

    async def load(self, running):
        if self.refuse_loads:
            self.refuse_loads -= 1
            raise ProxyError("no")
        await super().load(running)

    async def run(self, commands):
        if self.refuse_commands:
            self.refuse_commands = False
            raise ProxyError("no")
        await super().run(commands)


class Case:
    """A loop over a world that a test changes."""

    def __init__(self):
        self.proxy = Stubborn()
        self.ingresses = [ingress()]
        self.slices = {"d/web": [piece("10.0.0.1")]}
        world = World(
            lambda: self.ingresses, lambda key: service(key.partition("/")[2]), lambda key: self.slices.get(key, []),
            lambda _: None,
        )  # fmt: skip
        self.sync = Sync(world, self.proxy, SETTINGS, "PEM")

    def endpoints(self, *ips, name="web"):
        self.slices[f"d/{name}"] = [piece(*ips, service=name)]
        self.sync.slice_changed(None, self.slices[f"d/{name}"][0])

    def addresses(self):
        return {slot.ip for slots in self.proxy.servers.values() for slot in slots if slot}


@pytest.fixture
async def case(monkeypatch):
    monkeypatch.setattr(sync, "GATHER_SECONDS", 0)
    made = Case()
    running = asyncio.ensure_future(made.sync.run())
    yield made
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def until(check):
    async with asyncio.timeout(10):
        while not check():  # noqa: ASYNC110 - a fake has no event
            await asyncio.sleep(0.001)


async def test_an_endpoint_that_comes_is_a_command(case):
    await until(lambda: case.addresses() == {"10.0.0.1"})
    case.endpoints("10.0.0.1", "10.0.0.2")
    await until(lambda: case.addresses() == {"10.0.0.1", "10.0.0.2"})
    assert case.proxy.loads == 1


async def test_a_command_that_fails_is_made_good_by_a_load(case):
    await until(lambda: case.proxy.loads == 1)
    case.proxy.refuse_commands = True
    case.endpoints("10.0.0.9")
    await until(lambda: case.addresses() == {"10.0.0.9"})
    assert case.proxy.loads == 2


async def test_a_load_that_fails_is_tried_again_and_told_meanwhile(case):
    await until(lambda: case.proxy.loads == 1)
    case.proxy.refuse_loads = 2
    case.proxy.ended.set()
    await until(lambda: case.sync.error == "no")
    await until(lambda: case.sync.error == "")
    assert case.proxy.loads == 2


async def test_a_proxy_that_ends_is_loaded_with_the_present_state(case):
    await until(lambda: case.proxy.loads == 1)
    case.endpoints("10.0.0.3")
    await until(lambda: case.addresses() == {"10.0.0.3"})
    case.proxy.servers = {}
    case.proxy.ended.set()
    await until(lambda: case.addresses() == {"10.0.0.3"})


async def test_slices_of_services_that_nobody_routes_to_wake_nothing(case):
    await until(lambda: case.proxy.loads == 1)
    case.sync._wake.clear()
    case.sync.slice_changed(None, piece("10.0.0.7", service="unrelated"))
    assert not case.sync._wake.is_set()


async def test_while_a_reload_waits_endpoints_of_what_runs_still_change(case):
    await until(lambda: case.proxy.loads == 1)
    case.sync._reload_pause.pause = 60
    case.sync._reload_pause.last = asyncio.get_running_loop().time()
    case.ingresses = [*case.ingresses, ingress("b", "b.test", [path("/", "other")])]
    case.sync.changed(None, None)
    case.endpoints("10.0.0.4")
    await until(lambda: case.addresses() == {"10.0.0.4"})
    assert case.proxy.loads == 1
    assert case.proxy.route("b.test", "/") == render.NOT_FOUND


def test_reloads_that_follow_closely_wait_longer_up_to_a_bound_and_a_quiet_time_forgets():
    pause = sync._ReloadPause()
    now = 100.0
    assert pause.wait_seconds(now) == 0
    waits = []
    for _ in range(12):
        pause.happened(now)
        waits.append(pause.wait_seconds(now))
        now += waits[-1]
    assert waits == sorted(waits)
    assert waits[-1] == sync.RELOAD_PAUSE_SECONDS_MAX
    assert sum(waits[:3]) < 2
    pause.happened(now + 1000)
    assert pause.wait_seconds(now + 1000) == pytest.approx(sync.RELOAD_PAUSE_SECONDS_FIRST)
