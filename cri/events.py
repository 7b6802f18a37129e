"""CRI container events: one hub, to which verbs publish and every GetContainerEvents subscribes.

A subscriber's queue is bounded; one that does not read is cut off with ResourceExhausted and relists, as its
contract says. Publishing never waits.
"""

import asyncio
from collections.abc import AsyncIterator

from cri_api.v1 import api_pb2 as cri

from cri.errors import ResourceExhausted

_QUEUE_EVENTS = 4096


class EventHub:
    def __init__(self) -> None:
        self._subscribers: set[asyncio.Queue[cri.ContainerEventResponse | None]] = set()

    @property
    def watched(self) -> bool:
        return bool(self._subscribers)

    def publish(self, event: cri.ContainerEventResponse) -> None:
        for queue in tuple(self._subscribers):
            if queue.qsize() >= _QUEUE_EVENTS:
                self._subscribers.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)

    async def subscribe(self) -> AsyncIterator[cri.ContainerEventResponse]:
        queue: asyncio.Queue[cri.ContainerEventResponse | None] = asyncio.Queue()
        self._subscribers.add(queue)
        try:
            while True:
                event = await queue.get()
                if event is None:
                    raise ResourceExhausted(
                        f"the event stream fell {_QUEUE_EVENTS} events behind: list and subscribe again"
                    )
                yield event
        finally:
            self._subscribers.discard(queue)
