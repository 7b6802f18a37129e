"""Priority and fairness as a running thing: the objects as they are now, and requests that wait for their turn.

The loop runs one request at a time, and most of them end without a pause: seats that were given back at once would
never run out, and a thousand clients would be served one after the other before anybody else. So a seat is given back
in the next turn of the loop: in one turn each level runs at most what it has seats for, and whatever came meanwhile (a
node's heartbeat) has its own seats in the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from machinery.api import errors
from machinery.component import metrics
from services.apiserver.flow import standard
from services.apiserver.flow.classify import Asked, distinguisher, first_match, in_order, looks_at_namespaces
from services.apiserver.flow.seats import Level, Limits, Seats, Ticket
from services.apiserver.request import User

Obj = Mapping[str, Any]

SEATS = 600
"""How many requests run at once: upstream's 400 reading and 200 writing ones."""
WAIT_SECONDS_MAX = 15.0
"""How long a request waits for its turn: upstream's quarter of a request's time."""
RETRY_AFTER_SECONDS = 1
KNOWN_MAX = 8192
"""How many kinds of requests are remembered with the flow that they belong to."""

_rejected = metrics.counter(
    "apiserver_flowcontrol_rejected_requests_total",
    "Requests refused by priority and fairness",
    ("priority_level", "flow_schema", "reason"),
)
_SEATS = {
    "nominal": metrics.gauge("apiserver_flowcontrol_nominal_limit_seats", "Seats of a level", ("priority_level",)),
    "used": metrics.gauge("apiserver_flowcontrol_current_executing_seats", "Seats taken", ("priority_level",)),
    "waiting": metrics.gauge("apiserver_flowcontrol_current_inqueue_requests", "Requests waiting", ("priority_level",)),
}


class Flow:
    """What requests of one kind have in common. `head` is the two header lines that name it."""

    __slots__ = ("head", "headers", "level", "method", "schema")

    def __init__(self, schema: Obj, level: Level, level_uid: str) -> None:
        self.schema: str = schema["metadata"]["name"]
        self.method: str = (schema["spec"].get("distinguisherMethod") or {}).get("type", "")
        self.level = level
        self.headers = {
            "X-Kubernetes-Pf-Flowschema-Uid": schema["metadata"].get("uid", ""),
            "X-Kubernetes-Pf-Prioritylevel-Uid": level_uid,
        }
        self.head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items()).encode()


class _Waiter:
    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class FlowControl:
    """Classifies requests and lets them in. `configure` whenever the objects have changed."""

    def __init__(self, seats: int = SEATS) -> None:
        self._seats = Seats(seats)
        self._schemas: list[tuple[Obj, Flow]] = []
        self._by_namespace = False
        self._known: dict[tuple[Any, ...], Flow] = {}
        self._waiters: dict[Ticket, _Waiter] = {}
        # Seats to give back in the loop's next turn.
        self._ending: dict[Level, int] = {}
        self.configure((), ())

    def configure(self, schemas: Iterable[Obj], levels: Iterable[Obj]) -> None:
        """Take on these FlowSchemas and PriorityLevelConfigurations. Mandatory ones that are missing are there all the
        same; a schema whose level does not exist is as if it were not there.
        """
        by_name = {level["metadata"]["name"]: level for level in (*_mandatory(standard.levels()), *levels)}
        freed = self._seats.configure(limits_of(level) for level in by_name.values())
        present = {schema["metadata"]["name"]: schema for schema in (*_mandatory(standard.schemas()), *schemas)}
        ordered = in_order(schema for schema in present.values() if level_name(schema) in by_name)
        self._schemas = []
        for schema in ordered:
            name = level_name(schema)
            uid = by_name[name]["metadata"].get("uid", "")
            self._schemas.append((schema, Flow(schema, self._seats.levels[name], uid)))
        self._by_namespace = looks_at_namespaces(ordered)
        self._known.clear()
        for ticket in freed:
            self._wake(ticket)
        self._admit_waiting()

    def has_levels(self, names: Iterable[str]) -> bool:
        """Whether these levels were taken on."""
        return all(name in self._seats.levels for name in names)

    def classify(
        self, user: User, verb: str, group: str, resource: str, subresource: str, namespace: str, path: str
    ) -> Flow:
        """The flow of a request. A request for a path has no resource."""
        scope = namespace if self._by_namespace else bool(namespace)
        key = (user.name, user.groups, verb, group, resource, subresource, scope, "" if resource else path)
        flow = self._known.get(key)
        if flow is None:
            asked = Asked(user, verb, bool(resource), group, resource, subresource, namespace, path)
            flow = self._classify(asked)
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[key] = flow
        return flow

    def _classify(self, asked: Asked) -> Flow:
        schema = first_match((schema for schema, _ in self._schemas), asked)
        # Whoever is in neither group of catch-all (nobody is, by authentication) is in it all the same.
        wanted = schema["metadata"]["name"] if schema is not None else standard.CATCH_ALL
        return next(flow for schema, flow in self._schemas if schema["metadata"]["name"] == wanted)

    def enter(self, flow: Flow, width: int) -> bool:
        """Take seats, if the request need not wait. The width is the level's `clipped`."""
        return self._seats.admit(flow.level, width)

    async def wait(self, flow: Flow, user: User, namespace: str, width: int) -> None:
        """Wait for seats, and take them. Raises TooManyRequests: refused at once, or after WAIT_SECONDS_MAX."""
        level = flow.level
        name = f"{flow.schema}/{distinguisher(flow.method, user.name, namespace)}"
        ticket = self._seats.enqueue(level, name, width)
        if ticket is None:
            reason = "queue-full" if level.limits.queues else "concurrency-limit"
            raise self._refused(flow, reason)
        self._waiters[ticket] = waiter = _Waiter()
        # Seats may have come back since the caller looked.
        self._admit_waiting()
        try:
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                await waiter.future
        except BaseException as err:
            self._seats.abandon(ticket)
            self._admit_waiting()
            if isinstance(err, TimeoutError):
                raise self._refused(flow, "time-out") from err
            raise
        finally:
            self._waiters.pop(ticket, None)

    def leave(self, flow: Flow, width: int) -> None:
        """Give seats back, in the next turn of the loop."""
        if not self._ending:
            asyncio.get_running_loop().call_soon(self._end_turn)
        self._ending[flow.level] = self._ending.get(flow.level, 0) + width

    def _end_turn(self) -> None:
        ending, self._ending = self._ending, {}
        for level, width in ending.items():
            self._seats.release(level, width)
        if self._waiters:
            self._admit_waiting()

    def _admit_waiting(self) -> None:
        for ticket in self._seats.next_ready():
            self._wake(ticket)

    def _wake(self, ticket: Ticket) -> None:
        waiter = self._waiters.get(ticket)
        if waiter is None or waiter.future.done():
            # Its task has been cancelled and has not run since; it will abandon the ticket.
            return
        waiter.future.set_result(None)

    def _refused(self, flow: Flow, reason: str) -> errors.TooManyRequests:
        _rejected.labels(flow.level.limits.name, flow.schema, reason).inc()
        message = "Too many requests, please try again later."
        return errors.TooManyRequests(message, retry_after_seconds=RETRY_AFTER_SECONDS)

    def observe(self) -> None:
        """Bring the gauges up to date, before they are read."""
        for name, level in self._seats.levels.items():
            _SEATS["nominal"].labels(name).set(level.nominal)
            _SEATS["used"].labels(name).set(level.in_use)
            _SEATS["waiting"].labels(name).set(level.waiting)


def level_name(schema: Obj) -> str:
    """The PriorityLevelConfiguration that a schema names."""
    return str((schema["spec"].get("priorityLevelConfiguration") or {}).get("name", ""))


def limits_of(level: Obj) -> Limits:
    """A PriorityLevelConfiguration, defaulted, as numbers."""
    name, spec = level["metadata"]["name"], level["spec"]
    if spec.get("type") == "Exempt":
        return Limits(name, (spec.get("exempt") or {}).get("nominalConcurrencyShares") or 0, exempt=True)
    limited = spec.get("limited") or {}
    queuing = (limited.get("limitResponse") or {}).get("queuing") or {}
    shares = limited.get("nominalConcurrencyShares")
    return Limits(
        name,
        30 if shares is None else shares,
        lendable_percent=limited.get("lendablePercent") or 0,
        borrowing_percent=limited.get("borrowingLimitPercent"),
        queues=queuing.get("queues") or 0,
        hand_size=queuing.get("handSize") or 1,
        queue_length_max=queuing.get("queueLengthLimit") or 0,
    )


def _mandatory(objects: Iterable[Obj]) -> list[Obj]:
    return [obj for obj in objects if obj["metadata"]["name"] in standard.MANDATORY]
