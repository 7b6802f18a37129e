"""systemd-logind's protocol, over a real message bus: an announced shutdown waits until the pods have ended.

logind itself is played by the test, since the machine that tests run on must not go down; the bus is dbus-daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.kubelet import logind
from services.kubelet.dbus import Bus, DBusError, Message
from services.kubelet.logind import Logind

MANAGER = "org.freedesktop.login1.Manager"
OBJECT = "/org/freedesktop/login1"
CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
<allow user="*"/></policy></busconfig>
"""


@pytest.fixture
def bus_path(tmp_path: Path) -> Iterator[str]:
    daemon = shutil.which("dbus-daemon")
    if daemon is None:
        pytest.skip("needs dbus-daemon")
    path, config = tmp_path / "bus", tmp_path / "bus.conf"
    config.write_text(CONFIG.format(path=path))
    command = [daemon, f"--config-file={config}", "--nofork", "--print-address"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.readline()  # its address, once it listens
    yield str(path)
    process.terminate()
    process.wait(10)
    process.stdout.close()


class FakeLogind:
    """Gives locks and tells of shutdowns, as logind does."""

    def __init__(self) -> None:
        self.bus = Bus(self._called)
        self.locks: list[int] = []
        self.asked: list[list[object]] = []
        self.locked = asyncio.Event()

    async def start(self, path: str) -> None:
        await self.bus.connect(path)
        dbus = "org.freedesktop.DBus"
        await self.bus.call(dbus, "/org/freedesktop/DBus", dbus, "RequestName", "su", ["org.freedesktop.login1", 4])

    def _called(self, message: Message) -> None:
        if message.member == "Inhibit":
            ours, theirs = os.pipe()
            self.locks.append(ours)
            self.asked.append(message.body)
            self.bus.answer(message, "h", [0], [theirs])
            os.close(theirs)
            self.locked.set()
        elif message.member == "Get":
            self.bus.answer(message, "v", [("t", 5_000_000)])

    def prepare_for_shutdown(self, begins: bool) -> None:
        self.bus.signal(OBJECT, MANAGER, "PrepareForShutdown", "b", [begins])

    async def released(self, number: int) -> None:
        """Until the lock is given back: the other end of its pipe is closed."""
        seen = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self.locks[number], seen.set)
        await seen.wait()
        loop.remove_reader(self.locks[number])
        assert os.read(self.locks[number], 1) == b""

    def stop(self) -> None:
        self.bus.close()
        for lock in self.locks:
            os.close(lock)


@pytest_asyncio.fixture
async def fake(bus_path: str) -> AsyncIterator[FakeLogind]:
    found = FakeLogind()
    await found.start(bus_path)
    yield found
    found.stop()


async def test_a_shutdown_waits_until_the_pods_have_ended_and_may_be_called_off(
    bus_path: str, fake: FakeLogind
) -> None:
    told: list[bool] = []
    begun, ended = asyncio.Event(), asyncio.Event()

    async def shutting_down(begins: bool) -> None:
        told.append(begins)
        begun.set()
        if begins:
            await ended.wait()

    follower = Logind(shutting_down, bus_path)
    task = asyncio.create_task(follower.run())
    try:
        async with asyncio.timeout(20):
            await fake.locked.wait()
            assert fake.asked == [["shutdown", "kubelet", "Kubelet needs time to handle node shutdown", "delay"]]
            fake.prepare_for_shutdown(True)
            await begun.wait()
            assert told == [True]
            assert follower.holds_lock
            ended.set()
            await fake.released(0)
            fake.locked.clear()
            fake.prepare_for_shutdown(False)
            await fake.locked.wait()  # ready for the next one
            assert told == [True, False]
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert not follower.holds_lock


async def test_how_long_a_shutdown_may_be_delayed(bus_path: str, fake: FakeLogind) -> None:
    assert await logind.delay_max_seconds(bus_path) == 5.0


async def test_a_bus_without_logind_and_no_bus_at_all_are_told(bus_path: str, tmp_path: Path) -> None:
    with pytest.raises(DBusError, match=r"org.freedesktop.DBus.Error.(ServiceUnknown|NameHasNoOwner)"):
        await logind.delay_max_seconds(bus_path)
    with pytest.raises(DBusError, match="No such file"):
        await logind.delay_max_seconds(str(tmp_path / "nothing"))
