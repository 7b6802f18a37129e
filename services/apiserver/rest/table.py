"""Objects as a `Table`, the form in which kubectl asks for what it prints, and as metadata alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import orjson

from services.apiserver.rest.columns import columns_of
from services.apiserver.rest.columns.custom import columns_of_custom
from services.apiserver.rest.columns.formats import created
from services.apiserver.rest.columns.layout import Columns

if TYPE_CHECKING:
    from services.apiserver.reads import ListResult
    from services.apiserver.registry.resource import Resource

_DEFAULT = Columns("Name, Age", lambda obj: [obj["metadata"]["name"], created(obj)])

_SCALE = Columns(
    "Name, Desired:integer, Available:integer, Age",
    lambda obj: [
        obj["metadata"]["name"],
        (obj.get("spec") or {}).get("replicas", 0),
        (obj.get("status") or {}).get("replicas", 0),
        created(obj),
    ],
)


def _columns(resource: Resource) -> Columns:
    if resource.custom is not None:
        return columns_of_custom(resource)
    return columns_of(resource.kind.resource) or _DEFAULT


def _row(columns: Columns, raw: bytes, version: str, include: str) -> dict[str, Any]:
    obj = orjson.loads(raw)
    row: dict[str, Any] = {"cells": columns.cells(obj)}
    if columns.conditions is not None:
        conditions = columns.conditions(obj)
        if conditions:
            row["conditions"] = conditions
    if include == "Object":
        row["object"] = orjson.Fragment(raw)
    elif include == "Metadata":
        row["object"] = _partial(obj["metadata"], version)
    else:
        row["object"] = None
    return row


def _partial(metadata: Any, version: str) -> dict[str, Any]:
    return {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}", "metadata": metadata}


def partial(raw: bytes, version: str) -> bytes:
    """An object's metadata alone."""
    return orjson.dumps(_partial(orjson.loads(raw)["metadata"], version))


def _table(
    columns: Columns, items: Iterable[bytes], metadata: dict[str, Any], version: str, include: str, *, head: bool = True
) -> bytes:
    return orjson.dumps(
        {
            "kind": "Table",
            "apiVersion": f"meta.k8s.io/{version}",
            "metadata": metadata,
            "columnDefinitions": columns.definitions if head else None,
            "rows": [_row(columns, item, version, include) for item in items],
        }
    )


def table_of_list(resource: Resource, version: str, result: ListResult, include: str) -> bytes:
    """A list as a table; its metadata still let clients page and watch on."""
    metadata: dict[str, Any] = {"resourceVersion": str(result.revision)}
    if result.continue_token:
        metadata["continue"] = result.continue_token
        if result.remaining is not None:
            metadata["remainingItemCount"] = result.remaining
    return _table(_columns(resource), result.items, metadata, version, include)


def table_of_object(resource: Resource, version: str, raw: bytes, include: str, subresource: str = "") -> bytes:
    """One object, or its Scale, as a table of one row."""
    metadata = {"resourceVersion": orjson.loads(raw).get("metadata", {}).get("resourceVersion", "")}
    columns = _SCALE if subresource == "scale" else _columns(resource)
    return _table(columns, [raw], metadata, version, include)


class WatchTable:
    """Events as tables of one row; only the first carries the column definitions."""

    def __init__(self, resource: Resource, version: str, include: str) -> None:
        self._columns = _columns(resource)
        self._version = version
        self._include = include
        self._first = True

    def event(self, raw: bytes, event_type: str) -> bytes:
        """One event's object as a table. A bookmark has no row to show but carries its object, as upstream's does."""
        head, self._first = self._first, False
        metadata = {"resourceVersion": orjson.loads(raw).get("metadata", {}).get("resourceVersion", "")}
        if event_type != "BOOKMARK":
            return _table(self._columns, [raw], metadata, self._version, self._include, head=head)
        return orjson.dumps(
            {
                "kind": "Table",
                "apiVersion": f"meta.k8s.io/{self._version}",
                "metadata": orjson.loads(raw).get("metadata", {}),
                "columnDefinitions": self._columns.definitions if head else None,
                "rows": [],
            }
        )
