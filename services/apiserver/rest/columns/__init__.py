"""The columns of every kind that `kubectl get` prints, one file an area.

A `Columns` has a header, written as text (`Name, Ready:integer, IP*`: a type after the colon, a star for columns
that only `-o wide` shows), and a function from an object (a dict) to its cells. Names, order and wording are
upstream's: people's scripts cut these columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

Object = Mapping[str, Any]
Cells = list[Any]
Row = Callable[[Object], Cells]


class Columns:
    """A kind's header and how an object becomes a row of cells; `conditions` are a row's marks ("Completed")."""

    __slots__ = ("cells", "conditions", "definitions")

    def __init__(
        self, header: str, cells: Row, conditions: Callable[[Object], list[dict[str, str]]] | None = None
    ) -> None:
        self.definitions = [_definition(text.strip()) for text in header.split(",")]
        self.cells = cells
        self.conditions = conditions


def _definition(text: str) -> dict[str, Any]:
    wide = text.endswith("*")
    name, _, kind = text.rstrip("*").partition(":")
    return {
        "name": name,
        "type": kind or "string",
        "format": "name" if name == "Name" else "",
        "description": "",
        "priority": 1 if wide else 0,
    }


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
