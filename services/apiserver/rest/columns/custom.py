"""The columns of custom resources: `additionalPrinterColumns`, each a JSON path."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import orjson

from services.apiserver.rest.columns.formats import age, created
from services.apiserver.rest.columns.layout import Cells, Columns, Object

if TYPE_CHECKING:
    from services.apiserver.registry.resource import Resource

_TOKEN = re.compile(
    r"""\.(?P<field>(?:\\.|[^.\[\]\\])+)|\[['"](?P<quoted>[^'"]+)['"]\]|\[(?P<index>-?\d+)\]|\[(?P<all>\*)\]"""
    r"""|\[\?\(@\.(?P<key>[\w.\-/]+)\s*==\s*['"](?P<value>[^'"]*)['"]\)\]"""
)
_cache: WeakKeyDictionary[Any, Columns] = WeakKeyDictionary()


def columns_of_custom(resource: Resource) -> Columns:
    """The columns that the definition gives, or name and age."""
    found = _cache.get(resource.custom)
    if found is None:
        found = _cache[resource.custom] = _build(getattr(resource.custom, "printer_columns", None) or ())
    return found


def _build(wanted: Any) -> Columns:
    getters: list[Callable[[Object], Any]] = []
    definitions: list[dict[str, Any]] = []
    for column in wanted:
        definitions.append(
            {
                "name": column["name"],
                "type": column["type"],
                "format": column.get("format", ""),
                "description": column.get("description", ""),
                "priority": column.get("priority", 0),
            }
        )
        getters.append(_getter(column["jsonPath"], column["type"]))

    def cells(obj: Object) -> Cells:
        own = [get(obj) for get in getters]
        return [obj["metadata"]["name"], *own] if getters else [obj["metadata"]["name"], created(obj)]

    columns = Columns("Name" if getters else "Name, Age", cells)
    columns.definitions += definitions
    return columns


def _getter(path: str, kind: str) -> Callable[[Object], Any]:
    steps = list(_TOKEN.finditer(path))

    def get(obj: Object) -> Any:
        values: list[Any] = [obj]
        for step in steps:
            values = [found for value in values for found in _follow(value, step)]
            if not values:
                return None
        return _cell(values, kind)

    return get


def _follow(value: Any, step: re.Match[str]) -> list[Any]:
    if step["index"] is not None:
        index = int(step["index"])
        return [value[index]] if isinstance(value, list) and -len(value) <= index < len(value) else []
    if step["all"] is not None:
        return list(value) if isinstance(value, list) else list(value.values()) if isinstance(value, Mapping) else []
    if step["key"] is not None:
        items = value if isinstance(value, list) else []
        return [item for item in items if isinstance(item, Mapping) and str(item.get(step["key"])) == step["value"]]
    name = step["quoted"] if step["quoted"] is not None else step["field"].replace("\\.", ".")
    return [value[name]] if isinstance(value, Mapping) and name in value else []


def _cell(values: list[Any], kind: str) -> Any:
    if kind == "string":
        return ",".join(_text(value) for value in values)
    value = values[0]
    if kind == "date":
        return age(value) if isinstance(value, str) else "<invalid>"
    if kind == "integer":
        return int(value) if isinstance(value, int | float) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if kind == "number":
        return value if isinstance(value, int | float) else None
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | list):
        return orjson.dumps(value).decode()
    return str(value)
