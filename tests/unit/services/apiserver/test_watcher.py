"""How watches share the server's time."""

from __future__ import annotations

from services.apiserver.watcher import PAUSE_SECONDS_MAX, pause
from tests.support.apiserver_core import CoreClient


def test_sending_takes_at_most_half_of_the_time() -> None:
    assert pause(0.004, 0) == 0.008
    assert pause(0.0, 100) > pause(0.0, 10) > 0
    assert pause(60.0, 0) == PAUSE_SECONDS_MAX


async def test_a_change_is_given_to_the_watchers_that_it_concerns_and_to_no_other(core: CoreClient) -> None:
    revision = str(core.core.cache.revision)
    mine, *others = (
        core.watch("configmaps", "default", field_selector=f"metadata.name={name}", resource_version=revision)
        for name in ("mine", "his", "hers")
    )
    await core.create("configmaps", {"metadata": {"name": "mine"}}, "default")
    assert [event.entry.name for event in await anext(mine) if event.entry is not None] == ["mine"]
    assert all(stream._watcher.up_to_date for stream in others)
    for stream in (mine, *others):
        await stream.aclose()
