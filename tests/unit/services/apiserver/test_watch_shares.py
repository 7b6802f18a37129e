"""How many watches each user may have."""

from __future__ import annotations

import itertools

import pytest

from machinery.api.errors import TooManyRequests
from services.apiserver.watch_shares import WatchShares


def taken(shares: WatchShares, user: str) -> int:
    """How many a user gets that wants all."""
    for count in itertools.count():
        try:
            shares.take(user)
        except TooManyRequests:
            return count
    raise AssertionError


def test_one_user_gets_half_and_leaves_room_for_others() -> None:
    shares = WatchShares(1000)
    assert taken(shares, "a") == 500
    assert taken(shares, "b") == 250
    assert taken(shares, "c") == 125


def test_many_users_with_few_each_get_nearly_all() -> None:
    shares = WatchShares(1000)
    for user in range(98):
        for _ in range(10):
            shares.take(f"node-{user}")


def test_what_is_given_back_is_free_again_once() -> None:
    shares = WatchShares(2)
    give_back = shares.take("a")
    with pytest.raises(TooManyRequests) as refused:
        shares.take("a")
    assert refused.value.retry_after_seconds
    give_back()
    give_back()
    assert taken(shares, "a") == 1
