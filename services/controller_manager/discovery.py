"""Which kinds are served now, each once, though some are served by several groups or versions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from machinery.api import kinds
from machinery.api.kinds import Kind
from services.controller_manager.informers import VIEWS

# The same objects are served under two groups; these are left out.
_ALIASES = frozenset((("events.k8s.io", "events"),))


def deletable(resources: Iterable[Any], *verbs: str) -> list[tuple[Kind, frozenset[str]]]:
    """The kinds that can be deleted and listed (and do `verbs`), with all their verbs.

    `resources` are the ServedResource messages of Discover, preferred versions first.
    """
    needed = {"delete", "list", *verbs}
    chosen: dict[tuple[str, str], tuple[Kind, frozenset[str]]] = {}
    for served in resources:
        ref = served.resource
        group_resource = (ref.group, ref.resource)
        if "/" in ref.resource or group_resource in _ALIASES or not needed <= set(served.verbs):
            continue
        kind = kinds.by_plural(ref.group, ref.version, ref.resource) or Kind(
            ref.group, ref.version, served.kind, ref.resource, served.namespaced
        )
        if group_resource not in chosen or kind in VIEWS:
            chosen[group_resource] = (kind, frozenset(served.verbs))
    return list(chosen.values())
