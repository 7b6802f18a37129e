"""systemd-logind's word that the machine is going down, and the lock that makes it wait.

The interface is org.freedesktop.login1(5): a `delay` inhibitor is a descriptor; closing it lets the shutdown go on.
logind waits no longer than its InhibitDelayMaxSec, whatever is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from machinery.component import logs
from services.kubelet.dbus import SYSTEM_BUS, Bus, DBusError, Message

log = logs.get("kubelet")
_NAME, _PATH, _INTERFACE = "org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager"
_DROP_IN = Path("/etc/systemd/logind.conf.d/99-kubelet.conf")
_RECONNECT_SECONDS = 5.0


class Logind:
    """Follows logind while `run` runs, and holds a delay lock until a shutdown has been prepared for.

    `shutting_down(True)` is awaited when a shutdown begins, and the lock given back when it returns;
    `shutting_down(False)` when the shutdown was called off.
    """

    def __init__(self, shutting_down: Callable[[bool], Awaitable[None]], bus_path: str = SYSTEM_BUS) -> None:
        self._shutting_down = shutting_down
        self._bus_path = bus_path
        self._lock = -1
        self._news: asyncio.Queue[bool] = asyncio.Queue(16)

    @property
    def holds_lock(self) -> bool:
        return self._lock >= 0

    async def run(self) -> None:
        """For ever: connect, take the lock, follow; again when the bus goes away."""
        told = False
        while True:
            try:
                await self._follow()
            except DBusError as error:
                if not told:
                    log.warning("shutdowns of this machine can't be delayed", error=str(error))
                told = True
            finally:
                self._release()
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _follow(self) -> None:
        bus = Bus(self._heard)
        try:
            await bus.connect(self._bus_path)
            rule = f"type='signal',interface='{_INTERFACE}',member='PrepareForShutdown',path='{_PATH}'"
            dbus = "org.freedesktop.DBus"
            await bus.call(dbus, "/org/freedesktop/DBus", dbus, "AddMatch", "s", [rule])
            await self._take_lock(bus)
            log.info("shutdowns of this machine wait for its pods")
            while not bus.closed.is_set():
                await self._next(bus)
        finally:
            bus.close()

    async def _next(self, bus: Bus) -> None:
        news = asyncio.ensure_future(self._news.get())
        closed = asyncio.ensure_future(bus.closed.wait())
        try:
            await asyncio.wait((news, closed), return_when=asyncio.FIRST_COMPLETED)
            if not news.done():
                return
            begins = news.result()
        finally:
            news.cancel()
            closed.cancel()
        await self._shutting_down(begins)
        if begins:
            self._release()
        elif not self.holds_lock:
            await self._take_lock(bus)

    def _heard(self, message: Message) -> None:
        if message.interface == _INTERFACE and message.member == "PrepareForShutdown" and message.body:
            with contextlib.suppress(asyncio.QueueFull):
                self._news.put_nowait(bool(message.body[0]))

    async def _take_lock(self, bus: Bus) -> None:
        why = "Kubelet needs time to handle node shutdown"
        answer = await bus.call(
            _NAME, _PATH, _INTERFACE, "Inhibit", "ssss", ["shutdown", "kubelet", why, "delay"]
        )  # fmt: skip
        if not answer.fds:
            raise DBusError("Inhibit: logind answered without a lock")
        self._release()
        self._lock = answer.fds[0]

    def _release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


async def delay_max_seconds(bus_path: str = SYSTEM_BUS) -> float:
    """How long logind lets a shutdown be delayed. Raises DBusError."""
    bus = Bus()
    try:
        await bus.connect(bus_path)
        properties = "org.freedesktop.DBus.Properties"
        answer = await bus.call(_NAME, _PATH, properties, "Get", "ss", [_INTERFACE, "InhibitDelayMaxUSec"])
        return float(answer.body[0]) / 1e6
    finally:
        bus.close()


def drop_in(seconds: int) -> str:
    """What logind has to be configured with (`/etc/systemd/logind.conf.d/`) to wait so long."""
    return f"# Lets the kubelet end this machine's pods before a shutdown.\n[Login]\nInhibitDelayMaxSec={seconds}\n"


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="ascii")


async def allow_delay(seconds: int, bus_path: str = SYSTEM_BUS, file: Path = _DROP_IN) -> None:
    """Have logind wait as long as pods may take: by a drop-in and a reload, where its own limit is shorter.

    Raises DBusError, OSError.
    """
    if await delay_max_seconds(bus_path) >= seconds:
        return
    await asyncio.to_thread(_write, file, drop_in(seconds))
    process = await asyncio.create_subprocess_exec("systemctl", "kill", "--signal=SIGHUP", "systemd-logind.service")
    async with asyncio.timeout(10):
        await process.wait()
    left = await delay_max_seconds(bus_path)
    if left < seconds:
        log.warning("logind delays shutdowns for less time than pods may need", seconds=left, wanted=seconds)
