"""What many entries have in common is in memory once."""

from __future__ import annotations

from typing import Any

import pytest

from services.apiserver import watch_cache
from services.apiserver.entries import Entry
from tests.support.apiserver_core import CoreClient


def _pod(name: str, **labels: str) -> dict[str, Any]:
    containers = [{"name": "c", "image": "registry.example/c:1"}]
    return {"metadata": {"name": name, "labels": labels}, "spec": {"containers": containers}}


def _entry(core: CoreClient, name: str) -> Entry:
    entry = core.core.cache.of("pods").get("default", name)
    assert entry is not None
    return entry


async def test_replicas_share_their_labels_and_the_words_that_selectors_compare(core: CoreClient) -> None:
    for name in ("a", "b"):
        await core.create("pods", _pod(name, app="web", tier="front"), "default")
    a, b = _entry(core, "a"), _entry(core, "b")
    assert a.labels == {"app": "web", "tier": "front"}
    assert a.labels is b.labels
    assert a.fields == b.fields
    assert all(ours is theirs for ours, theirs in zip(a.fields, b.fields, strict=True))


async def test_the_next_state_of_an_object_shares_what_has_not_changed(core: CoreClient) -> None:
    await core.create("pods", _pod("a", app="web"), "default")
    before = _entry(core, "a")
    await core.patch("pods", "a", {"metadata": {"annotations": {"k": "v"}}}, "default")
    after = _entry(core, "a")
    assert after.revision > before.revision
    assert after.name is before.name
    assert after.uid is before.uid
    assert after.labels is before.labels
    assert after.fields is before.fields
    await core.patch("pods", "a", {"metadata": {"labels": {"app": "other"}}}, "default")
    assert before.labels == {"app": "web"}
    assert _entry(core, "a").labels == {"app": "other"}


async def test_labels_that_no_two_objects_share_are_not_remembered_for_ever(
    core: CoreClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_cache, "SHARED_LABELS_MAX", 3)
    for index in range(10):
        await core.create("pods", _pod(f"p{index}", index=str(index)), "default")
    assert _entry(core, "p0").labels == {"index": "0"}
    assert len(core.core.cache.of("pods")._labels._known) <= 3
