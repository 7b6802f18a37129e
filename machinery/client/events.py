"""Events: what a component tells people about an object (`kubectl describe`, `kubectl get events`).

Recording never waits and never fails: Events are best effort. Repeats of one event raise its count; many similar ones
are combined; what one object may cause is limited; the queue is bounded and drops the newest when it is full. They
are written in batches.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from machinery.api import kinds, objects
from machinery.api.errors import ApiError, NotFound
from machinery.client.api_client import ApiClient, Mutation
from machinery.component import logs, metrics

QUEUE_MAX = 1000
CACHE_MAX = 4096
FLUSH_SECONDS = 0.2
"""Events that happen together travel together."""

# As upstream's correlator: ten similar events within ten minutes become one; a source may record 25 events about one
# object at once and one more every five minutes.
SIMILAR_MAX = 10
SIMILAR_SECONDS = 600.0
BURST_MAX = 25
REFILL_SECONDS = 300.0
MESSAGE_CHARS_MAX = 1024

log = logs.get("events")


class _Series(msgspec.Struct):
    """One event as it was written, and how often it happened."""

    namespace: str
    name: str
    count: int
    first: datetime


class _Similar(msgspec.Struct):
    """Messages of one reason about one object within the window."""

    since: float
    messages: set[str]
    latest: str = ""


class _Bucket(msgspec.Struct):
    """What one object may still cause."""

    tokens: float
    at: float


class EventRecorder:
    """Records events of one component.

    `run` it in a TaskGroup; what was recorded before or without it waits in the queue.
    """

    def __init__(
        self, client: ApiClient, component: str, host: str = "", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._component = component
        self._host = host
        self._clock = clock
        self._pending: OrderedDict[tuple[str, ...], dict[str, Any]] = OrderedDict()
        self._series: OrderedDict[tuple[str, ...], _Series] = OrderedDict()
        self._similar: OrderedDict[tuple[str, ...], _Similar] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._wake = asyncio.Event()
        self._dropped = metrics.counter("event_recorder_dropped_total", "Events not recorded, by reason.", ("reason",))
        self._names = 0

    def record(self, obj: Any, type: str, reason: str, message: str, action: str = "") -> None:
        """Record an event about `obj`: an object (model or dict) or an ObjectReference. `type` is Normal or Warning."""
        try:
            self._record(_reference(obj), type, reason, message[:MESSAGE_CHARS_MAX], action)
        except Exception as err:  # An event that can't be told must not fail the work that it tells of.
            log.error("event could not be recorded", reason=reason, exc_info=err)

    def _record(self, ref: dict[str, str], type: str, reason: str, message: str, action: str) -> None:
        subject = ref.get("uid") or f"{ref.get('namespace')}/{ref.get('name')}"
        if not self._allowed(subject):
            self._dropped.labels("rate").inc()
            return
        message = self._combined((subject, type, reason), message)
        key = (subject, ref.get("fieldPath", ""), type, reason, message)
        pending = self._pending.get(key)
        if pending is not None:
            pending["times"] += 1
            pending["last"] = objects.now()
            return
        if len(self._pending) >= QUEUE_MAX:
            self._dropped.labels("full").inc()
            return
        self._pending[key] = {
            "ref": ref, "type": type, "reason": reason, "message": message, "action": action, "times": 1,
            "last": objects.now(),
        }  # fmt: skip
        self._wake.set()

    def _allowed(self, subject: str) -> bool:
        now = self._clock()
        bucket: _Bucket = _remember(self._buckets, subject, lambda: _Bucket(BURST_MAX, now))
        bucket.tokens = min(BURST_MAX, bucket.tokens + (now - bucket.at) / REFILL_SECONDS)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _combined(self, group: tuple[str, ...], message: str) -> str:
        now = self._clock()
        similar: _Similar = _remember(self._similar, group, lambda: _Similar(now, set()))
        if now - similar.since > SIMILAR_SECONDS:
            similar.since, similar.messages = now, set()
        if message not in similar.messages:
            if len(similar.messages) >= SIMILAR_MAX:
                return f"(combined from similar events): {similar.latest}"
            similar.messages.add(message)
            similar.latest = message
        return message

    # --- writing ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write what was recorded, for ever; on a graceful stop write what is left, for at most a second."""
        try:
            while True:
                await self._wake.wait()
                await asyncio.sleep(FLUSH_SECONDS)
                self._wake.clear()
                await self.flush()
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self.flush()
            raise

    async def flush(self) -> None:
        """Write what was recorded.

        Never raises; what fails is dropped, except that repeats of a vanished event are written anew.
        """
        while self._pending:
            taken = [self._pending.popitem(last=False) for _ in range(min(200, len(self._pending)))]
            mutations = [self._mutation(key, event) for key, event in taken]
            try:
                results = await self._client.batch(mutations)
            except ApiError as err:
                self._dropped.labels("failed").inc(len(taken))
                log.info("events could not be written", count=len(taken), error=err.message)
                for key, _ in taken:
                    self._series.pop(key, None)
                return
            for (key, event), result in zip(taken, results, strict=True):
                if result.error is not None:
                    self._failed(key, event, result.error)

    def _failed(self, key: tuple[str, ...], event: dict[str, Any], error: ApiError) -> None:
        known = self._series.pop(key, None)
        if isinstance(error, NotFound) and known is not None and known.count > 1:
            self._pending[key] = event  # It has expired since: tell it as a new one.
        else:
            self._dropped.labels("refused").inc()
            log.info("event was refused", reason=event["reason"], error=error.message)

    def _mutation(self, key: tuple[str, ...], event: dict[str, Any]) -> Mutation:
        last = objects.format_time(event["last"])
        known = self._series.get(key)
        if known is not None:
            self._series.move_to_end(key)
            known.count += event["times"]
            return Mutation.patch(
                kinds.EVENT, known.name, known.namespace, {"count": known.count, "lastTimestamp": last}
            )
        ref = event["ref"]
        namespace = ref.get("namespace") or "default"
        # Unique without asking anybody: the time in nanoseconds, as upstream names them, and a counter against equal
        # readings.
        self._names += 1
        name = f"{ref.get('name', 'unknown')[:200]}.{time.time_ns() + self._names:x}"
        self._series[key] = _Series(namespace, name, event["times"], event["last"])
        while len(self._series) > CACHE_MAX:
            self._series.popitem(last=False)
        obj = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": ref,
            "type": event["type"],
            "reason": event["reason"],
            "message": event["message"],
            "source": {"component": self._component} | ({"host": self._host} if self._host else {}),
            "reportingComponent": self._component,
            "reportingInstance": self._host,
            "firstTimestamp": last,
            "lastTimestamp": last,
            "count": event["times"],
            "eventTime": None,
        }
        if event["action"]:
            obj["action"] = event["action"]
        return Mutation.create(kinds.EVENT, obj, namespace)


def _remember(cache: OrderedDict[Any, Any], key: Any, make: Callable[[], Any]) -> Any:
    found = cache.get(key)
    if found is None:
        found = cache[key] = make()
        if len(cache) > CACHE_MAX:
            cache.popitem(last=False)
    else:
        cache.move_to_end(key)
    return found


def _reference(obj: Any) -> dict[str, str]:
    """An ObjectReference as a dict, from an object, its dict, or a reference."""
    if isinstance(obj, Mapping):
        metadata = obj.get("metadata")
        if metadata is None:
            return {k: v for k, v in obj.items() if v}
        values = {
            "apiVersion": obj.get("apiVersion"), "kind": obj.get("kind"), "namespace": metadata.get("namespace"),
            "name": metadata.get("name"), "uid": metadata.get("uid"),
            "resourceVersion": metadata.get("resourceVersion"),
        }  # fmt: skip
    else:
        metadata = getattr(obj, "metadata", obj)
        values = {
            "apiVersion": obj.apiVersion, "kind": obj.kind, "namespace": metadata.namespace, "name": metadata.name,
            "uid": metadata.uid, "resourceVersion": metadata.resourceVersion,
            "fieldPath": getattr(obj, "fieldPath", None),
        }  # fmt: skip
    return {key: value for key, value in values.items() if value}
