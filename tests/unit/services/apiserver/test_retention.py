"""How much of the past is kept: by age and number, for all and for single resources."""

from __future__ import annotations

from services.apiserver import retention
from services.apiserver.config import ApiServerConfig
from services.apiserver.registry.builtin import rows
from storage import Retention


def test_by_default_the_past_is_bounded_and_heartbeats_are_not_kept_for_long() -> None:
    kept = retention.policy(ApiServerConfig())
    assert kept.default == Retention(seconds=24 * 3600, events=1_000_000)
    assert kept.resources == {name: Retention(seconds=300.0) for name in retention.SHORT_LIVED}


def test_what_is_kept_shortly_is_named_as_it_is_stored() -> None:
    stored = {row.storage for row in rows()}
    assert set(retention.SHORT_LIVED) <= stored
    assert {row.storage for row in rows() if row.kind.kind in ("Event", "Lease")} == set(retention.SHORT_LIVED)


def test_each_resource_can_be_kept_for_less_by_age_and_by_number() -> None:
    config = ApiServerConfig(
        history_entries=0,
        history_seconds_of={"pods": 3600, "events": 60},
        history_entries_of={"pods": 100, "leases.coordination.k8s.io": 1000},
    )
    kept = retention.policy(config)
    assert kept.default == Retention(seconds=24 * 3600, events=None)
    assert kept.resources == {
        "pods": Retention(seconds=3600, events=100),
        "events": Retention(seconds=60),
        "leases.coordination.k8s.io": Retention(seconds=300.0, events=1000),
    }
