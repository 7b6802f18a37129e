"""Keeps the standard objects as they should be, says of every FlowSchema whether its level exists, and hands changes to
the `FlowControl`.

Mandatory objects always have their fixed spec, suggested ones as long as their annotation says so; what is deleted
comes back. Every apiserver does this; the writes are idempotent.
"""

from __future__ import annotations

import asyncio
from typing import Any

from machinery.api import errors
from services.apiserver import codec
from services.apiserver.entries import Entry
from services.apiserver.flow import standard
from services.apiserver.flow.control import FlowControl, level_name
from services.apiserver.reconcile import Reconciler
from services.apiserver.registry.custom_definitions import set_condition
from services.apiserver.registry.resource import Registry, Resource
from services.apiserver.request import SYSTEM, Request, WriteOptions
from services.apiserver.watch_cache import WatchCache
from services.apiserver.writes import Writer

GROUP = "flowcontrol.apiserver.k8s.io"
SCHEMAS, LEVELS = f"flowschemas.{GROUP}", f"prioritylevelconfigurations.{GROUP}"
LOOK_SECONDS = 60.0
_OPTIONS = WriteOptions(field_manager="api-priority-and-fairness-config-producer-v1", field_validation="Ignore")

Obj = dict[str, Any]


class Upkeep:
    """Follows the objects of both kinds."""

    def __init__(self, registry: Registry, cache: WatchCache, writer: Writer, control: FlowControl) -> None:
        self._registry = registry
        self._cache = cache
        self._writer = writer
        self._control = control
        self.reconciler = Reconciler("flow control's objects", self._keep, LOOK_SECONDS)

    def follow(self) -> None:
        """Hand over the objects as they are, and whenever they change."""
        for storage in (SCHEMAS, LEVELS):
            self._cache.of(storage).listeners.append(self._on_change)
        self._configure()

    def _on_change(self, old: Entry | None, new: Entry | None) -> None:
        if old is not None and new is not None and old.generation == new.generation:
            return
        self._configure()
        self.reconciler.wake()

    def _configure(self) -> None:
        self._control.configure(self._objects(SCHEMAS), self._objects(LEVELS))

    def _objects(self, storage: str) -> list[Obj]:
        return [codec.decode(entry.value) for entry in self._cache.of(storage).listed("")]

    async def _keep(self) -> None:
        await self.ensure()
        await self.tell()

    async def ensure(self) -> None:
        """Create and correct the standard objects: together, so that they share commits."""
        await asyncio.gather(*(self._ensure(wanted) for wanted in standard.objects()))

    async def _ensure(self, wanted: Obj) -> None:
        row = self._registry.by_kind(wanted["apiVersion"], wanted["kind"])
        assert row is not None
        name = wanted["metadata"]["name"]
        entry = self._cache.of(row.storage).get("", name)
        row.schema.default(wanted)
        if entry is None:
            await self._create(row, wanted)
            return
        present = codec.decode(entry.value)
        if corrected(present, wanted):
            req = Request(SYSTEM, "update", row, "", "", name, "kube-apiserver")
            await self._writer.update(req, present, _OPTIONS)

    async def _create(self, row: Resource, wanted: Obj) -> None:
        try:
            await self._writer.create(Request(SYSTEM, "create", row, user_agent="kube-apiserver"), wanted, _OPTIONS)
        except errors.AlreadyExists:
            # Another apiserver was first.
            return

    async def tell(self) -> None:
        """Say in the status of every FlowSchema whether it dangles."""
        levels = {entry.name for entry in self._cache.of(LEVELS).listed("")}
        row = self._registry.resolve(GROUP, "v1", "flowschemas")
        told = []
        for schema in self._objects(SCHEMAS):
            conditions = (schema.get("status") or {}).get("conditions") or ()
            known: Obj = next((item for item in conditions if item.get("type") == "Dangling"), {})
            status, reason, message = verdict(schema, levels)
            if (known.get("status"), known.get("message")) == (status, message):
                continue
            new: Obj = {"conditions": [dict(item) for item in conditions]}
            set_condition(new, "Dangling", status, reason, message)
            told.append(self._tell(row, schema["metadata"]["name"], new))
        await asyncio.gather(*told)

    async def _tell(self, row: Resource, name: str, status: Obj) -> None:
        req = Request(SYSTEM, "patch", row, "status", "", name, "kube-apiserver")
        try:
            await self._writer.patch(req, "merge", {"status": status}, _OPTIONS)
        except errors.NotFound:
            return


def verdict(schema: Obj, levels: set[str]) -> tuple[str, str, str]:
    """(status, reason, message) of a schema's condition Dangling."""
    name = level_name(schema)
    about = f'This FlowSchema references the PriorityLevelConfiguration object named "{name}"'
    if name in levels:
        return "False", "Found", f"{about} and it exists"
    return "True", "NotFound", f"{about} but there is no such object"


def corrected(present: Obj, wanted: Obj) -> bool:
    """Give an object the spec that it should have; whether that changed it."""
    name = wanted["metadata"]["name"]
    annotations = present["metadata"].get("annotations") or {}
    if name not in standard.MANDATORY and annotations.get(standard.AUTOUPDATE) != "true":
        return False
    spec = dict(wanted["spec"])
    if name == standard.EXEMPT and "exempt" in spec:
        # An administrator may give the exempt level shares.
        spec["exempt"] = present["spec"].get("exempt") or spec["exempt"]
    if present["spec"] == spec:
        return False
    present["spec"] = spec
    return True
