"""The columns of every kind that `kubectl get` prints, one file an area.

A `Columns` has a header, written as text (`Name, Ready:integer, IP*`: a type after the colon, a star for columns
that only `-o wide` shows), and a function from an object (a dict) to its cells. Names, order and wording are
upstream's: people's scripts cut these columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from services.apiserver.rest.columns.layout import Columns


@cache
def _all() -> Mapping[str, Columns]:
    # The areas are imported with the first table that is asked for: most of them a server never needs.
    from services.apiserver.rest.columns import apps, cluster, config, core, networking, pods, storage

    tables: dict[str, Columns] = {}
    for area in (apps, cluster, config, core, networking, pods, storage):
        tables.update(area.TABLES)
    return tables


def columns_of(resource: str) -> Columns | None:
    """The columns of "pods" or "deployments.apps"; None where upstream prints just name and age."""
    return _all().get(resource)
