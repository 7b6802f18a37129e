"""Who runs, who waits and who is refused."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from services.apiserver.flow.seats import Level, Limits, Seats, Ticket, hand


def queued(name: str, shares: int, **more: int) -> Limits:
    return Limits(name, shares, **{"queues": 8, "hand_size": 2, "queue_length_max": 10, **more})  # type: ignore[arg-type]


def fill(seats: Seats, level: Level, count: int = 10_000) -> int:
    """Take seats until none are left; how many."""
    return next((taken for taken in range(count) if not seats.admit(level, 1)), count)


def waiting(seats: Seats, level: Level, flow: str, width: int = 1) -> Ticket:
    ticket = seats.enqueue(level, flow, width)
    assert ticket is not None
    return ticket


def test_seats_are_shared_by_shares() -> None:
    seats = Seats(100)
    seats.configure([queued("a", 30), queued("b", 10), Limits("none", 0, exempt=True)])
    assert [level.nominal for level in seats.levels.values()] == [75, 25, 0]
    assert fill(seats, seats.levels["a"]) == 75
    assert fill(seats, seats.levels["b"]) == 25


def test_what_others_may_lend_is_borrowed_and_the_lender_is_served_all_the_same() -> None:
    seats = Seats(100)
    seats.configure([queued("a", 1), queued("b", 1, lendable_percent=40), queued("c", 0, borrowing_percent=0)])
    a, b = seats.levels["a"], seats.levels["b"]
    assert fill(seats, a) == 50 + 20
    assert fill(seats, b) == 50, "its own seats are there at once, whoever has borrowed them"
    seats.release(a, 20)
    assert not seats.admit(a, 1), "nothing is left to borrow"


def test_borrowing_has_the_levels_own_limit() -> None:
    seats = Seats(100)
    seats.configure([queued("a", 1, borrowing_percent=10), queued("b", 1, lendable_percent=100)])
    assert fill(seats, seats.levels["a"]) == 55


def test_a_level_without_seats_still_runs_one_request() -> None:
    seats = Seats(10)
    seats.configure([queued("a", 0, borrowing_percent=0), queued("b", 1)])
    assert fill(seats, seats.levels["a"]) == 1


def test_queues_are_bounded_and_without_queues_nobody_waits() -> None:
    seats = Seats(1)
    seats.configure([queued("a", 1), Limits("b", 1)])
    a = seats.levels["a"]
    fill(seats, a)
    accepted = [seats.enqueue(a, "one flow", 1) for _ in range(100)]
    assert sum(ticket is not None for ticket in accepted) == 2 * 10, "a hand of two queues of ten"
    assert seats.enqueue(seats.levels["b"], "x", 1) is None


def test_who_comes_does_not_overtake_who_waits() -> None:
    seats = Seats(10)
    seats.configure([queued("a", 1)])
    a = seats.levels["a"]
    fill(seats, a)
    ticket = waiting(seats, a, "x")
    seats.release(a, 1)
    assert not seats.admit(a, 1)
    assert seats.next_ready() == [ticket]


def test_a_small_flow_is_not_drowned_by_a_large_one() -> None:
    seats = Seats(1)
    seats.configure([queued("a", 1, queues=64, hand_size=1, queue_length_max=100)])
    a = seats.levels["a"]
    fill(seats, a)
    for _ in range(100):
        waiting(seats, a, "large")
    small = waiting(seats, a, "small")
    order = []
    for _ in range(3):
        seats.release(a, 1)
        order += seats.next_ready()
    assert small in order


def test_wide_requests_cost_their_flow_more_turns() -> None:
    seats = Seats(10)
    seats.configure([queued("a", 1, queues=64, hand_size=1, queue_length_max=100)])
    a = seats.levels["a"]
    fill(seats, a)
    for _ in range(20):
        waiting(seats, a, "wide", 10)
        waiting(seats, a, "narrow", 1)
    turns: Counter[str] = Counter()
    held = [1] * 10
    for _ in range(8):
        while held:
            seats.release(a, held.pop())
        for ticket in seats.next_ready():
            turns[ticket.flow] += 1
            held.append(ticket.width)
    assert turns["narrow"] > 2 * turns["wide"] > 0


def test_a_level_that_is_gone_lets_its_requests_in() -> None:
    seats = Seats(1)
    seats.configure([queued("a", 1), queued("b", 1)])
    a = seats.levels["a"]
    fill(seats, a)
    ticket = waiting(seats, a, "x")
    assert seats.configure([queued("b", 1)]) == [ticket]
    assert ticket.admitted


def test_waiting_requests_survive_other_limits() -> None:
    seats = Seats(1)
    seats.configure([queued("a", 1)])
    a = seats.levels["a"]
    fill(seats, a)
    tickets = {waiting(seats, a, f"flow {number}") for number in range(9)}
    seats.configure([Limits("a", 1)])
    assert a.waiting == 9
    seats.release(a, 1)
    seats.total = 100
    seats.configure([queued("a", 1, queues=2)])
    assert set(seats.next_ready()) == tickets


@given(st.text(max_size=20), st.integers(1, 500), st.data())
def test_a_hand_has_different_cards_of_the_deck(flow: str, deck: int, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, min(deck, 20)))
    dealt = hand(flow, deck, size)
    assert len(set(dealt)) == size
    assert all(0 <= card < deck for card in dealt)
    assert dealt == hand(flow, deck, size)


STEP = st.tuples(st.sampled_from(["come", "end", "leave"]), st.integers(0, 2), st.integers(1, 5), st.integers(0, 5))


@settings(max_examples=150)
@given(st.lists(STEP, max_size=120))
def test_no_seat_is_lost_and_nobody_waits_in_front_of_free_seats(steps: list[tuple[str, int, int, int]]) -> None:
    seats = Seats(12)
    seats.configure([queued("a", 3), queued("b", 2, lendable_percent=50), queued("c", 1, borrowing_percent=50)])
    levels = list(seats.levels.values())
    running: list[tuple[Level, int]] = []
    queue: list[Ticket] = []
    for what, number, width, flow in steps:
        level = levels[number]
        if what == "come":
            width = level.clipped(width)
            if seats.admit(level, width):
                running.append((level, width))
            elif (ticket := seats.enqueue(level, f"flow {flow}", width)) is not None:
                queue.append(ticket)
        elif what == "end" and running:
            seats.release(*running.pop(width % len(running)))
        elif what == "leave" and queue:
            seats.abandon(queue.pop(flow % len(queue)))
        for ticket in seats.next_ready():
            queue.remove(ticket)
            running.append((ticket.level, ticket.width))
        for level in levels:
            assert level.in_use == sum(width for of, width in running if of is level)
            assert level.waiting == sum(ticket.level is level for ticket in queue)
            first = level.first()
            if first is not None:
                assert level.in_use + first.width > level.nominal
                assert level.in_use
