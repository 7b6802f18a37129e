"""How many watches there are, and may be: each costs memory, and one over REST a connection, for as long as it lasts.

Nobody may have more of them than are left free, the rule by which switches share a buffer between their ports: one
user alone gets half of all, two that want all get a third each, and there is always room for who has none yet. What a
thousand nodes have, a few each, adds up to nearly all.
"""

from __future__ import annotations

from collections.abc import Callable

from machinery.api import errors
from machinery.component import metrics

WATCHES_MAX = 20_000
RETRY_AFTER_SECONDS = 5

_held = metrics.gauge("apiserver_watches_held", "Watches under way, over REST and gRPC")
_refused = metrics.counter("apiserver_watches_refused_total", "Watches refused because their user had its share")


class WatchShares:
    """Who has how many."""

    def __init__(self, watches_max: int = WATCHES_MAX) -> None:
        self._free = watches_max
        self._of_user: dict[str, int] = {}

    def take(self, user: str) -> Callable[[], None]:
        """One more watch; what gives it back, which may be called again without effect. Raises TooManyRequests."""
        own = self._of_user.get(user, 0)
        if own >= self._free:
            _refused.inc()
            message = f"Too many watches: {own} are held by this user, {self._free} are left. Please try again later."
            raise errors.TooManyRequests(message, retry_after_seconds=RETRY_AFTER_SECONDS)
        self._of_user[user] = own + 1
        self._free -= 1
        _held.inc()
        held = True

        def give_back() -> None:
            nonlocal held
            if held:
                held = False
                self._give_back(user)

        return give_back

    def _give_back(self, user: str) -> None:
        self._free += 1
        _held.dec()
        left = self._of_user.pop(user) - 1
        if left:
            self._of_user[user] = left
