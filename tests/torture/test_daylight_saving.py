"""10. A controller-manager lives through the night in which the clocks change: a nightly CronJob runs once, and again
the night after. Both ends of daylight saving are real ones of a real zone; the clock is libfaketime's."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from lab import pki
from machinery.api import kinds
from tests.support.control_plane import ControlPlane
from tests.support.torture import figure, full_only

FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
ZONE = ZoneInfo("Europe/Berlin")
HOUR = timedelta(hours=1)
# The controllers see the change come: the clock moves past it by itself.
BEFORE_SECONDS = 1.5

pytestmark = pytest.mark.skipif(FAKETIME is None, reason="needs libfaketime (Debian: faketime)")


def next_change(hours: int) -> datetime:
    """When the zone's distance to UTC next changes by so many hours."""
    moment = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    while True:
        before, moment = moment, moment + HOUR
        if moment.astimezone(ZONE).utcoffset() - before.astimezone(ZONE).utcoffset() == hours * HOUR:  # type: ignore[operator]
            return moment


class Clock:
    """What the processes take for the time. It only goes forward."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.environment = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            # Setting a machine's clock moves the time of day; no machine's monotonic clock jumps.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, moment: datetime) -> None:
        """From now on it goes on from there."""
        self.file.write_text(f"{(moment - datetime.now(UTC)).total_seconds():+.3f}")


def cron_job(name: str, schedule: str, zone: str) -> dict[str, object]:
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "c:1"}]}
    spec = {
        "schedule": schedule,
        "timeZone": zone,
        "jobTemplate": {"spec": {"template": {"spec": pod}}},
    }
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name}, "spec": spec}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("hours", [-1, pytest.param(1, marks=full_only)], ids=["an hour twice", "an hour skipped"])
async def test_a_nightly_job_runs_once_a_night(tmp_path: Path, hours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # The change may be as far away as a certificate's end.
    monkeypatch.setattr(pki, "LEAF_DAYS", 1000)
    change = next_change(hours)
    # 02:30 comes twice in autumn, an hour around the change; in spring it is skipped, and the job comes right after.
    first = change - HOUR / 2 if hours < 0 else change
    again = first + HOUR if hours < 0 else first + HOUR / 2
    tomorrow = first + 25 * HOUR if hours < 0 else first + 23.5 * HOUR
    assert tomorrow.astimezone(ZONE).strftime("%H:%M") == "02:30"

    clock = Clock(tmp_path / "clock")
    clock.set(first - timedelta(seconds=60))
    plane = ControlPlane(
        tmp_path, nodes=0, pretend=False,
        controllers=["cronjob", "serviceaccount"], leader_election={"enabled": False},
    )  # fmt: skip
    plane.server.environment = clock.environment
    runs: dict[str, list[datetime]] = {}

    async def ran(name: str, moment: datetime) -> bool:
        listed = await plane.client.list(kinds.JOB, "default")
        runs.clear()
        for job in listed:
            owner, _, minute = job.metadata.name.rpartition("-")
            runs.setdefault(owner, []).append(datetime.fromtimestamp(int(minute) * 60, UTC))
        return moment in runs.get(name, [])

    async with plane:
        await plane.client.create(kinds.CRON_JOB, cron_job("nightly", "30 2 * * *", "Europe/Berlin"), "default")
        # In UTC, where no hour is doubled: once it has run, the controllers have seen that moment.
        await plane.client.create(kinds.CRON_JOB, cron_job("witness", "*/30 * * * *", "Etc/UTC"), "default")
        for turn, moment in enumerate((first, again, tomorrow - HOUR / 2, tomorrow)):
            clock.set(moment - timedelta(seconds=BEFORE_SECONDS))
            for name in ("nightly", "witness"):
                # A change has it looked at now, and not when the clock that was would have come to the next time.
                body = {"metadata": {"annotations": {"turn": str(turn)}}}
                await plane.client.patch(kinds.CRON_JOB, name, "default", body)
            await plane.until(lambda moment=moment: ran("witness", moment), f"the witness runs at {moment}", 60)
            if moment in (first, tomorrow):
                await plane.until(lambda moment=moment: ran("nightly", moment), f"the job runs at {moment}", 60)
            if turn == 1:
                # A new process, that knows only what is written, comes to the same.
                await asyncio.to_thread(plane.stop_manager)
                plane.start_manager()
    nightly = sorted(moment.astimezone(ZONE) for moment in runs["nightly"])
    assert nightly == [first.astimezone(ZONE), tomorrow.astimezone(ZONE)]
    figure(10, f"{change.astimezone(ZONE):%F %H:%M %Z}, clocks {hours:+d} h: a job of 02:30 ran at "
               f"{', '.join(f'{moment:%F %H:%M %Z}' for moment in nightly)}")  # fmt: skip
