"""A kind's header and how an object becomes a row of cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    is_name = name == "Name" or kind == "name"
    return {
        "name": name,
        "type": "string" if is_name else kind or "string",
        "format": "name" if is_name else "",
        "description": "",
        "priority": 1 if wide else 0,
    }
