"""Large documents: whose turn it is, what is refused, and where the work is done."""

from __future__ import annotations

import asyncio
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from machinery.api.errors import TooManyRequests
from services.apiserver.large import LARGE_BYTES_MIN, SWITCH_SECONDS, LargeRequests, aside
from services.apiserver.request import Request, User
from services.apiserver.schema.custom import CustomSchema

MEGABYTE = 1_000_000


def request(user: str = "jane") -> Request:
    return Request(User(user), "create", cast(Any, None))


async def turns_taken(large: LargeRequests, *wanted: tuple[str, int]) -> list[str]:
    """Who had a turn, in which order, when each keeps it until all others that can begin have begun."""
    order: list[str] = []

    async def one(user: str, size: int) -> None:
        async with large.turn(request(user), size):
            order.append(user)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        for user, size in wanted:
            tasks.create_task(one(user, size))
    return order


async def test_a_small_document_is_worked_on_at_once() -> None:
    large, req = LargeRequests(), request()
    async with large.turn(req, LARGE_BYTES_MIN - 1):
        assert await aside(req, threading.get_ident) == threading.get_ident()


async def test_a_large_one_is_worked_on_in_the_thread_and_only_during_its_turn() -> None:
    large, req = LargeRequests(), request()
    usual = sys.getswitchinterval()
    async with large.turn(req, LARGE_BYTES_MIN):
        assert await aside(req, threading.get_ident) != threading.get_ident()
        assert await aside(req, sys.getswitchinterval) == SWITCH_SECONDS
    assert await aside(req, threading.get_ident) == threading.get_ident()
    assert sys.getswitchinterval() == usual


async def test_what_fails_there_is_raised_here() -> None:
    large, req = LargeRequests(), request()
    async with large.turn(req, MEGABYTE):
        with pytest.raises(ZeroDivisionError):
            await aside(req, lambda: 1 / 0)


async def test_others_begin_while_one_user_has_all_of_its_share() -> None:
    large = LargeRequests(under_way_bytes_max=4 * MEGABYTE, user_bytes_max=2 * MEGABYTE)
    order = await turns_taken(large, ("a", 2 * MEGABYTE), ("a", 2 * MEGABYTE), ("a", 2 * MEGABYTE), ("b", MEGABYTE))
    assert order == ["a", "b", "a", "a"]


async def test_a_document_that_is_larger_than_any_share_gets_its_turn_alone() -> None:
    large = LargeRequests(under_way_bytes_max=MEGABYTE, user_bytes_max=MEGABYTE)
    assert await turns_taken(large, ("a", 5 * MEGABYTE), ("b", 5 * MEGABYTE)) == ["a", "b"]


async def test_what_waits_is_bounded_and_one_user_may_have_half_of_it() -> None:
    large = LargeRequests(MEGABYTE, MEGABYTE, waiting_bytes_max=4 * MEGABYTE)
    async with large.turn(request("a"), MEGABYTE):
        waiting = [asyncio.ensure_future(turns_taken(large, ("a", MEGABYTE))) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(TooManyRequests) as refused:
            async with large.turn(request("a"), MEGABYTE):
                pass
        assert refused.value.retry_after_seconds
        waiting.append(asyncio.ensure_future(turns_taken(large, ("b", MEGABYTE))))
    assert await asyncio.gather(*waiting) == [["a"], ["a"], ["b"]]


async def test_who_goes_while_it_waits_leaves_nothing_behind() -> None:
    large = LargeRequests(MEGABYTE, MEGABYTE)
    async with large.turn(request("a"), MEGABYTE):
        gone = asyncio.ensure_future(turns_taken(large, ("a", MEGABYTE)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
    assert await turns_taken(large, ("a", MEGABYTE)) == ["a"]


async def test_who_goes_when_its_turn_has_just_come_gives_it_back() -> None:
    large = LargeRequests(MEGABYTE, MEGABYTE)
    turn = large.turn(request("a"), MEGABYTE)
    await turn.__aenter__()
    gone = asyncio.ensure_future(turns_taken(large, ("b", MEGABYTE)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await turn.__aexit__(None, None, None)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert await turns_taken(large, ("c", MEGABYTE)) == ["c"]


def test_rules_are_judged_in_the_thread_and_in_the_loop_at_once() -> None:
    """The engine of expressions calls back into Python, where another thread may have its turn."""
    rule = {"rule": "self.all(i, i.find('[0-9]+') != '' && isURL('http://' + i))", "message": "no number"}
    items = {"type": "array", "maxItems": 200, "items": {"type": "string", "maxLength": 40}}
    schema = {"type": "object", "properties": {"items": {**items, "x-kubernetes-validations": [rule]}}}
    judge = CustomSchema(schema, kind="Thing", version="v1").validate_create

    def judged(name: str) -> list[int]:
        thing = {"apiVersion": "x.io/v1", "kind": "Thing", "metadata": {"name": "a"}, "items": [name] * 100}
        return [len(judge(thing)) for _ in range(20)]

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(judged, ["h1.example", "h.example"] * 2))
    finally:
        sys.setswitchinterval(usual)
    assert found == [[0] * 20, [1] * 20] * 2
