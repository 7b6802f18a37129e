"""CronJobs: zones, daylight saving, limits and what is said about bad lines."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from machinery.api import kinds
from services.controller_manager.actions import Create
from services.controller_manager.controllers.cron_job import plan as planner
from services.controller_manager.controllers.cron_job.schedule import InvalidSchedule, Schedule
from tests.support.controllers import pod_template
from tests.support.plan_world import World


def cron_job(**spec: Any) -> dict[str, Any]:
    template = {"spec": {"template": pod_template({"a": "b"}, restartPolicy="Never")}}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "tick", "namespace": "default"},
        "spec": {"schedule": "*/5 * * * *", "concurrencyPolicy": "Allow", "jobTemplate": template,
                 "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1, **spec},
    }  # fmt: skip


def world_at(text: str, **spec: Any) -> World:
    world = World()
    world.now = datetime.fromisoformat(text).astimezone(UTC)
    world.create(cron_job(**spec))
    return world


def step(world: World) -> Any:
    obj = world.view(kinds.CRON_JOB, "tick")
    plan = planner.plan(obj, world.views(kinds.JOB), world.now)
    world.apply(plan.actions)
    return plan


def jobs(world: World) -> list[str]:
    return [job.metadata.name for job in world.views(kinds.JOB)]


def end(world: World, name: str, kind: str = "Complete") -> None:
    moment = world.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {"type": kind, "status": "True", "lastTransitionTime": moment}
    world.patch(kinds.JOB, name, {"status": {"conditions": [condition], "completionTime": moment}}, "status")


def test_a_job_is_started_once_at_its_time_and_listed_until_it_ends() -> None:
    world = world_at("2026-03-01T10:02:00+00:00")
    plan = step(world)
    assert not jobs(world)
    assert 180 <= plan.requeue_after <= 181
    world.advance(190)
    for _ in range(3):
        step(world)
    (name,) = jobs(world)
    assert name == f"tick-{int(datetime(2026, 3, 1, 10, 5, tzinfo=UTC).timestamp()) // 60}"
    status = world.view(kinds.CRON_JOB, "tick").status
    assert status["lastScheduleTime"] == "2026-03-01T10:05:00Z"
    assert [ref["name"] for ref in status["active"]] == [name]
    end(world, name)
    step(world)
    status = world.view(kinds.CRON_JOB, "tick").status
    assert "active" not in status
    assert status["lastSuccessfulTime"]


def test_forbid_waits_and_replace_takes_the_old_one_away() -> None:
    for policy, expected in (("Forbid", 1), ("Replace", 1), ("Allow", 2)):
        world = world_at("2026-03-01T10:04:00+00:00", concurrencyPolicy=policy)
        for seconds in (70, 1, 300, 1):
            world.advance(seconds)
            step(world)
        assert len(jobs(world)) == expected, policy
        if policy == "Replace":
            assert jobs(world)[0].endswith(str(int(datetime(2026, 3, 1, 10, 10, tzinfo=UTC).timestamp()) // 60))
        if policy == "Forbid":
            assert "JobAlreadyActive" in [event.reason for event in world.events]


def test_a_start_that_is_too_late_is_said_and_skipped() -> None:
    world = world_at("2026-03-01T10:01:00+00:00", schedule="0 * * * *", startingDeadlineSeconds=60)
    world.advance(3600 + 10 * 60)
    step(world)
    assert not jobs(world)


def test_many_missed_starts_give_one_job_for_the_last_and_a_warning() -> None:
    world = world_at("2026-03-01T10:01:00+00:00", schedule="* * * * *")
    world.advance(86_400 * 3)
    for _ in range(2):
        step(world)
    (name,) = jobs(world)
    assert name == f"tick-{int(world.now.timestamp()) // 60}"
    assert "TooManyMissedTimes" in [event.reason for event in world.events]


def test_daylight_saving_neither_doubles_nor_loses_a_run() -> None:
    schedule = Schedule("30 2 * * *", "Europe/Berlin")
    spring = datetime(2026, 3, 28, 12, tzinfo=UTC)
    autumn = datetime(2026, 10, 24, 12, tzinfo=UTC)
    for start in (spring, autumn):
        times = []
        for due in schedule.after(start):
            times.append(due)
            if len(times) == 3:
                break
        assert len({due.astimezone(schedule.zone).date() for due in times}) == 3
    # The job's name is its minute: the last of many is found the same from either side of the change.
    now = datetime(2026, 10, 25, 5, tzinfo=UTC)
    assert Schedule("*/1 * * * *", "Europe/Berlin").latest(autumn, now)[0] == now


def test_history_keeps_the_newest() -> None:
    world = world_at("2026-03-01T10:04:00+00:00", successfulJobsHistoryLimit=2)
    for _ in range(5):
        world.advance(300)
        step(world)
        step(world)
        end(world, jobs(world)[-1])
        step(world)
    assert len(jobs(world)) == 2


@pytest.mark.parametrize("line", ["", "61 * * * *", "* * *", "@every 5x", "* * 31 2 *"])
def test_impossible_lines_are_refused(line: str) -> None:
    with pytest.raises(InvalidSchedule):
        Schedule(line)


def test_a_bad_line_and_a_bad_zone_are_events_and_start_nothing() -> None:
    for spec, reason in (
        ({"schedule": "nonsense"}, "UnparseableSchedule"),
        ({"schedule": "0 0 31 2 *"}, "InvalidSchedule"),
        ({"timeZone": "Mars/Base"}, "UnknownTimeZone"),
    ):
        world = world_at("2026-03-01T10:04:00+00:00", **spec)
        world.advance(600)
        plan = step(world)
        assert [event.reason for event in world.events] == [reason]
        assert not any(isinstance(action, Create) for action in plan.actions)
        assert plan.requeue_after is None


def test_a_suspended_one_rests() -> None:
    world = world_at("2026-03-01T10:04:00+00:00", suspend=True)
    world.advance(600)
    step(world)
    assert not jobs(world)
