"""How long the past of objects is kept, as the configuration says it: pure."""

from __future__ import annotations

from services.apiserver.config import ApiServerConfig
from storage import Retention, RetentionPolicy

SHORT_LIVED_SECONDS = 300.0
"""How long the history of Leases and Events is kept: long enough to resume a watch, short enough that heartbeats do
not grow the log.
"""
SHORT_LIVED = ("leases.coordination.k8s.io", "events")


def policy(config: ApiServerConfig) -> RetentionPolicy:
    """By age and number for all together, and for single resources, by the names under which they are stored."""
    seconds = {**dict.fromkeys(SHORT_LIVED, SHORT_LIVED_SECONDS), **config.history_seconds_of}
    entries = config.history_entries_of
    single = {
        name: Retention(seconds=seconds.get(name), events=entries.get(name)) for name in seconds.keys() | entries.keys()
    }
    return RetentionPolicy(Retention(seconds=config.history_seconds, events=config.history_entries or None), single)
