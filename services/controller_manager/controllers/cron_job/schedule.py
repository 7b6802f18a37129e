"""Cron lines as upstream takes them, with time zones and daylight saving as Debian's cron does.

A time that the clocks skip comes right after the skip; a fixed time that comes twice counts once.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_DURATION = re.compile(r"(\d+)(h|m|s)")
_SECONDS = {"h": 3600, "m": 60, "s": 1}
# More starts than this may not be missed without a word.
MISSED_MAX = 100


class InvalidSchedule(ValueError):
    """The line is no cron line."""


class NeverDue(InvalidSchedule):
    """It is one, of a day that never comes."""


class InvalidTimeZone(ValueError):
    """No such time zone."""


class Schedule:
    """When a CronJob is due."""

    def __init__(self, line: str, zone: str | None = None) -> None:
        self.zone = _zone(zone)
        self._every: int | None = None
        line = line.strip()
        if line.startswith("@every "):
            self._every = _duration(line.removeprefix("@every "))
            return
        # "?" is another way to say "any" where days are meant.
        self._line = _MACROS.get(line, line).replace("?", "*")
        self._check()

    def _check(self) -> None:
        start = datetime(2026, 1, 1, tzinfo=self.zone)
        try:
            next(CronSim(self._line, start))
        except (CronSimError, StopIteration) as err:
            fields = self._line.split()
            # The day and the month are good each by itself: what is wrong is that no such day is in that month.
            with contextlib.suppress(CronSimError, StopIteration):
                for at in (2, 3):
                    next(CronSim(" ".join([*fields[:at], "*", *fields[at + 1 :]]), start))
                raise NeverDue("no such day is in these months, so it is never due") from err
            raise InvalidSchedule(str(err)) from err

    def after(self, moment: datetime) -> Iterator[datetime]:
        """The times after `moment`, in order."""
        if self._every is not None:
            while True:
                moment = moment + timedelta(seconds=self._every)
                yield moment
        for due in CronSim(self._line, moment.astimezone(self.zone)):
            yield due.astimezone(UTC)

    def next(self, moment: datetime) -> datetime:
        """The first time after `moment`."""
        return next(self.after(moment))

    def latest(self, earliest: datetime, now: datetime) -> tuple[datetime | None, int]:
        """The last time after `earliest` that is not after `now`, and how many there were (no more than MISSED_MAX +
        1).
        """
        found, count = None, 0
        for due in self.after(earliest):
            if due > now:
                return found, count
            found, count = due, count + 1
            if count > MISSED_MAX:
                break
        return self._last(earliest, now), count

    def _last(self, earliest: datetime, now: datetime) -> datetime | None:
        """The same by looking back from now, for when there are too many to walk through."""
        if self._every is not None:
            steps = int((now - earliest).total_seconds()) // self._every
            return earliest + timedelta(seconds=steps * self._every)
        local = now.astimezone(self.zone) + timedelta(seconds=1)
        near = next(CronSim(self._line, local, reverse=True)).astimezone(UTC)
        # Looking back may find both of a doubled hour; walking forward from before it counts one.
        found = None
        for due in self.after(max(earliest, near - timedelta(hours=3))):
            if due > now:
                break
            found = due
        return found


def _zone(name: str | None) -> ZoneInfo:
    if not name:
        return ZoneInfo("UTC")
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as err:
        raise InvalidTimeZone(f"unknown time zone {name}") from err


def _duration(text: str) -> int:
    parts = _DURATION.findall(text)
    seconds = sum(int(number) * _SECONDS[unit] for number, unit in parts)
    if not parts or "".join(number + unit for number, unit in parts) != text or seconds < 1:
        raise InvalidSchedule(f"failed to parse duration @every {text}")
    return seconds
