"""An object at one revision, as the watch cache keeps it and everybody reads it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class Entry(msgspec.Struct, gc=False):
    """One object at one revision. Never changed."""

    namespace: str
    name: str
    revision: int
    create_revision: int
    uid: str
    # The bytes as committed.
    value: bytes
    labels: dict[str, str] | None
    # The values at the resource's `extracted` paths.
    fields: tuple[str, ...]
    # metadata.generation: the same in two entries of an object means the same spec.
    generation: int = 0


Listener = Callable[[Entry | None, Entry | None], None]
"""Hears of a change: (None, new), (old, new), (old, None)."""
