"""containerd's task events: how an exit and an out-of-memory kill arrive.

One subscription for the whole runtime. When it breaks (containerd restarts) it is made again, and then every task
is looked at, because exits in between were told to nobody. A subscription counts as made when an event that we
published ourselves has come back on it: containerd answers nothing earlier.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from cri import containerd_api as api
from cri.errors import CriError
from cri.logs import log

_RETRY_SECONDS = 0.25
_RETRY_SECONDS_MAX = 5.0
_MARKER_TOPIC = "/cutaway/cri/subscribed"


class ProcessExits:
    """Who waits for the end of an executed process, by (container id, exec id)."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], asyncio.Future[int]] = {}

    def expect(self, container_id: str, exec_id: str) -> "asyncio.Future[int]":
        """A future of the exit code; ask before the process starts, `forget` when done."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[container_id, exec_id] = future
        return future

    def forget(self, container_id: str, exec_id: str) -> None:
        self._waiting.pop((container_id, exec_id), None)

    def settle(self, container_id: str, exec_id: str, exit_code: int) -> None:
        future = self._waiting.get((container_id, exec_id))
        if future and not future.done():
            future.set_result(exit_code)

    def waiting(self) -> list[tuple[str, str]]:
        return list(self._waiting)


class TaskEvents:
    """The subscription, and what to do with what it brings.

    `on_exit(container_id, exec_id, exit_code, exited_at)` and `on_oom(container_id)` must not block; `resync` is
    awaited each time a subscription has been made, before its events are handled.
    """

    def __init__(
        self,
        ctd: Any,
        on_exit: Callable[[str, str, int, int], None],
        on_oom: Callable[[str], None],
        resync: Callable[[], Awaitable[None]],
    ) -> None:
        self._ctd = ctd
        self._on_exit = on_exit
        self._on_oom = on_oom
        self._resync = resync
        self.connected = asyncio.Event()

    async def run(self) -> None:
        """For ever: subscribes, and subscribes again."""
        delay = _RETRY_SECONDS
        while True:
            try:
                await self._follow()
                delay = _RETRY_SECONDS
            except (grpc.aio.AioRpcError, CriError) as error:
                was_connected = self.connected.is_set()
                if was_connected:
                    delay = _RETRY_SECONDS
                    log.warning("lost containerd's event stream", error=str(error)[:300])
            self.connected.clear()
            await asyncio.sleep(delay)
            delay = min(delay * 2, _RETRY_SECONDS_MAX)

    async def _follow(self) -> None:
        namespace = self._ctd.namespace
        topics = ("/tasks/exit", "/tasks/oom", _MARKER_TOPIC)
        filters = [f'namespace=={namespace},topic=="{topic}"' for topic in topics]
        call = self._ctd.events.stream("Subscribe", api.events.SubscribeRequest(filters=filters))
        marker = secrets.token_hex(8)
        prober = asyncio.get_running_loop().create_task(
            self._publish_until_seen(marker), name="containerd event marker"
        )
        try:
            async for envelope in call:
                if envelope.topic != _MARKER_TOPIC:
                    self._handle(envelope)
                elif not prober.done() and envelope.event.value == marker.encode():
                    prober.cancel()
                    await self._resync()
                    self.connected.set()
        finally:
            prober.cancel()
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError, CriError):
                await prober

    async def _publish_until_seen(self, marker: str) -> None:
        event = api.well_known.Any(type_url="cutaway.dev/cri/Subscribed", value=marker.encode())
        while True:
            await self._ctd.events.Publish(api.events.PublishRequest(topic=_MARKER_TOPIC, event=event))
            await asyncio.sleep(0.05)

    def _handle(self, envelope: Any) -> None:
        if envelope.topic == "/tasks/exit":
            event = api.event_types.TaskExit.FromString(envelope.event.value)
            exec_id = "" if event.id == event.container_id else event.id
            at = event.exited_at.seconds * 1_000_000_000 + event.exited_at.nanos
            self._on_exit(event.container_id, exec_id, event.exit_status, at)
        elif envelope.topic == "/tasks/oom":
            self._on_oom(api.event_types.TaskOOM.FromString(envelope.event.value).container_id)
