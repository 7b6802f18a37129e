"""What may run at once, shared between priority levels; and the queues of what has to wait. Pure: no clock, no I/O.

A request occupies `width` seats. The server has `total` seats; each level has a nominal number of them by its shares.

    arrives ──admit──> runs ──release──> gone
       └──enqueue──> waits ──next_ready──> runs
                       └──abandon──> gone               (the client left, or it waited too long)

Rules
- A level always gets its nominal seats, at once, whoever has borrowed them: borrowed seats come back as requests end,
  which is soon, so more than `total` run only that long.
- Beyond, it borrows what other levels leave unused of what they may lend, up to its own limit.
- Who waits in a level is served before who comes, and by start-time fair queueing (Goyal, Vin, Cheng 1996) over its
  queues: a flow with a thousand requests waits for itself, not others for it.
- A flow is dealt a hand of queues (shuffle sharding) and its request goes into the shortest: two flows rarely share all
  of their queues. A full queue refuses.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """One level, as its PriorityLevelConfiguration has it. `queues` 0: what can't run at once is refused."""

    name: str
    shares: int
    exempt: bool = False
    lendable_percent: int = 0
    # None: as much as others lend.
    borrowing_percent: int | None = None
    queues: int = 0
    hand_size: int = 1
    queue_length_max: int = 0


class Ticket:
    """A request that waits. `admitted` says that its seats are taken."""

    __slots__ = ("abandoned", "admitted", "flow", "level", "queue", "width")

    def __init__(self, level: Level, flow: str, width: int) -> None:
        self.level = level
        self.flow = flow
        self.width = width
        self.queue: _Queue | None = None
        self.admitted = False
        self.abandoned = False


class _Queue:
    __slots__ = ("index", "start", "waiting")

    def __init__(self, index: int) -> None:
        self.index = index
        self.waiting: deque[Ticket] = deque()
        # The virtual time at which its first request may start.
        self.start = 0.0


class Level:
    """The state of one level."""

    def __init__(self, limits: Limits, nominal: int) -> None:
        self.in_use = 0
        self.waiting = 0
        self.virtual = 0.0
        # Made when a flow is first dealt them: there may be millions.
        self._queues: dict[int, _Queue] = {}
        self._deck_size = 0
        self._busy: dict[int, _Queue] = {}
        self.configure(limits, nominal)

    def configure(self, limits: Limits, nominal: int) -> None:
        """Take on other limits. Who waits keeps waiting, in the new queues."""
        self.limits = limits
        self.exempt = limits.exempt
        self.nominal = nominal
        self.lendable = nominal * limits.lendable_percent // 100
        percent = limits.borrowing_percent
        self.borrowable = math.inf if percent is None else nominal * percent // 100
        tickets = list(self.tickets())
        self._queues, self._busy = {}, {}
        self._deck_size = max(limits.queues, 1 if tickets else 0)
        self.waiting = 0
        for ticket in tickets:
            self._put(ticket)

    def tickets(self) -> Iterator[Ticket]:
        """Everything that waits."""
        for queue in self._busy.values():
            yield from queue.waiting

    def clipped(self, width: int) -> int:
        """A request's width here: none is wider than the level."""
        return min(width, max(self.nominal, 1))

    @property
    def unused(self) -> int:
        """What others may borrow."""
        return min(self.lendable, max(0, self.nominal - self.in_use))

    def put(self, ticket: Ticket) -> bool:
        """Let a request wait; False if its queue is full or there are none."""
        if not self.limits.queues:
            return False
        queue = self._shortest(ticket.flow)
        if len(queue.waiting) >= self.limits.queue_length_max:
            return False
        self._put(ticket, queue)
        return True

    def _put(self, ticket: Ticket, queue: _Queue | None = None) -> None:
        queue = queue or self._shortest(ticket.flow)
        if not queue.waiting:
            queue.start = max(queue.start, self.virtual)
            self._busy[queue.index] = queue
        queue.waiting.append(ticket)
        ticket.queue = queue
        self.waiting += 1

    def _shortest(self, flow: str) -> _Queue:
        dealt = hand(flow, self._deck_size, min(self.limits.hand_size, self._deck_size))
        index = min(dealt, key=lambda index: len(self._queues[index].waiting) if index in self._queues else 0)
        return self._queues.setdefault(index, _Queue(index))

    def first(self) -> Ticket | None:
        """Whose turn it is."""
        if not self.waiting:
            return None
        return min(self._busy.values(), key=lambda queue: queue.start).waiting[0]

    def take(self, ticket: Ticket) -> None:
        """Its turn has come: `first` gave it."""
        queue = ticket.queue
        assert queue is not None
        assert queue.waiting[0] is ticket
        self.virtual = queue.start
        queue.start += ticket.width
        queue.waiting.popleft()
        self._left(queue)

    def drop(self, ticket: Ticket) -> None:
        """It does not wait any more."""
        queue = ticket.queue
        assert queue is not None
        queue.waiting.remove(ticket)
        self._left(queue)

    def _left(self, queue: _Queue) -> None:
        self.waiting -= 1
        if not queue.waiting:
            del self._busy[queue.index]
            if queue.start <= self.virtual:
                # It owes nothing: the same as a new one.
                del self._queues[queue.index]


class Seats:
    """All levels together."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.levels: dict[str, Level] = {}

    def configure(self, limits: Iterable[Limits]) -> list[Ticket]:
        """Take on these levels. Requests that wait in a level that is gone are admitted: nobody else will let them in;
        they are returned.
        """
        wanted = {one.name: one for one in limits}
        shares = sum(one.shares for one in wanted.values()) or 1
        freed: list[Ticket] = []
        for name in [name for name in self.levels if name not in wanted]:
            level = self.levels.pop(name)
            for ticket in list(level.tickets()):
                level.drop(ticket)
                self._admit(ticket)
                freed.append(ticket)
        for name, one in wanted.items():
            nominal = math.ceil(self.total * one.shares / shares)
            if name in self.levels:
                self.levels[name].configure(one, nominal)
            else:
                self.levels[name] = Level(one, nominal)
        return freed

    def admit(self, level: Level, width: int) -> bool:
        """Take seats for a request that just came, if it need not wait."""
        if level.waiting or not self._fits(level, width):
            return False
        level.in_use += width
        return True

    def enqueue(self, level: Level, flow: str, width: int) -> Ticket | None:
        """Let a request that was not admitted wait; None: refused."""
        ticket = Ticket(level, flow, width)
        return ticket if level.put(ticket) else None

    def release(self, level: Level, width: int) -> None:
        """Give seats back. `next_ready` says who gets them."""
        level.in_use -= width

    def abandon(self, ticket: Ticket) -> None:
        """The request does not wait any more; if it was admitted meanwhile, its seats are given back."""
        if ticket.abandoned:
            return
        ticket.abandoned = True
        if ticket.admitted:
            self.release(ticket.level, ticket.width)
        else:
            ticket.level.drop(ticket)

    def next_ready(self) -> list[Ticket]:
        """Everybody who need not wait any more, with their seats taken: first within the nominal seats of all levels,
        then by borrowing.
        """
        ready: list[Ticket] = []
        waiting = [level for level in self.levels.values() if level.waiting]
        for borrow in (False, True):
            for level in waiting:
                while (ticket := level.first()) is not None:
                    within = level.in_use + ticket.width <= level.nominal
                    if not (within or (borrow and self._may_borrow(level, ticket.width)) or not level.in_use):
                        break
                    level.take(ticket)
                    self._admit(ticket)
                    ready.append(ticket)
        return ready

    def _admit(self, ticket: Ticket) -> None:
        ticket.admitted = True
        ticket.level.in_use += ticket.width

    def _fits(self, level: Level, width: int) -> bool:
        # A level that runs nothing runs something, however few its seats are.
        return level.in_use + width <= level.nominal or not level.in_use or self._may_borrow(level, width)

    def _may_borrow(self, level: Level, width: int) -> bool:
        extra = level.in_use + width - level.nominal
        if extra > level.borrowable:
            return False
        lent = available = 0
        for other in self.levels.values():
            if other is level:
                continue
            lent += max(0, other.in_use - other.nominal)
            available += other.unused
        return lent + extra <= available


def hand(flow: str, deck_size: int, hand_size: int) -> list[int]:
    """Different numbers below `deck_size`, always the same for one flow, evenly spread over flows."""
    digest = int.from_bytes(hashlib.blake2b(flow.encode(), digest_size=16).digest(), "big")
    dealt: list[int] = []
    for already in range(hand_size):
        digest, card = divmod(digest, deck_size - already)
        for taken in sorted(dealt):
            card += taken <= card
        dealt.append(card)
    return dealt
