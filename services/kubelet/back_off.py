"""Exponential back-off by key, as upstream's client-go does it for crash loops and image pulls.

Pure: the caller gives the time.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class _Entry:
    delay: float
    last_update: float


class BackOff:
    """The delays of many keys, each doubling from `initial` to `maximum` seconds.

    A key that has been quiet for twice the maximum starts again from the beginning.
    """

    def __init__(self, initial: float = 10.0, maximum: float = 300.0) -> None:
        self.initial = initial
        self.maximum = maximum
        self._entries: dict[str, _Entry] = {}

    def next(self, key: str, now: float) -> float:
        """Note one more failure of the key; the delay that follows it."""
        entry = self._entries.get(key)
        if entry is None or now - entry.last_update > 2 * self.maximum:
            entry = self._entries[key] = _Entry(self.initial, now)
        else:
            entry.delay = min(entry.delay * 2, self.maximum)
            entry.last_update = now
        return entry.delay

    def delay(self, key: str) -> float:
        """The present delay of the key, 0 if it has none."""
        entry = self._entries.get(key)
        return entry.delay if entry else 0.0

    def remaining(self, key: str, since: float, now: float) -> float:
        """Seconds still to wait after something that happened at `since`; 0 when it may be tried."""
        entry = self._entries.get(key)
        if entry is None or now - entry.last_update > 2 * self.maximum:
            return 0.0
        return max(0.0, since + entry.delay - now)

    def remaining_since_update(self, key: str, now: float) -> float:
        """Seconds still to wait after the last failure noted."""
        entry = self._entries.get(key)
        return self.remaining(key, entry.last_update, now) if entry else 0.0

    def forget(self, prefix: str) -> None:
        """Drop every key that starts with the prefix."""
        for key in [k for k in self._entries if k.startswith(prefix)]:
            del self._entries[key]


def duration_text(seconds: float) -> str:
    """A duration as Go prints it in messages: `10s`, `1m20s`, `5m0s`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60}s"
    return f"{whole // 3600}h{whole % 3600 // 60}m{whole % 60}s"
