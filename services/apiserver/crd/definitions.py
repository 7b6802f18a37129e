"""Follows CustomResourceDefinitions: judges their names, serves their versions, cleans up after a deleted one.

    created ──names free──> Established (served) ──deleted──> Terminating (no creates; objects are deleted) ──empty──>
    gone

The registry follows the definitions as they are committed, in the same step; conditions and clean-up are writes of
their own and run in
`run`. Every apiserver does this; the writes are idempotent.
"""

from __future__ import annotations

import asyncio
from typing import Any

from machinery.api import errors
from machinery.component import logs
from services.apiserver import codec
from services.apiserver.admission.webhook_client import WebhookClient
from services.apiserver.crd.conversion import WebhookConversion
from services.apiserver.crd.names import accepted
from services.apiserver.crd.rows import rows_of
from services.apiserver.deletion import Deleter
from services.apiserver.entries import Entry
from services.apiserver.registry.custom_definitions import CLEANUP_FINALIZER, set_condition
from services.apiserver.registry.resource import Registry, Resource
from services.apiserver.request import SYSTEM, DeleteOptions, ListOptions, Request, WriteOptions
from services.apiserver.watch_cache import WatchCache
from services.apiserver.writes import Writer

log = logs.get("crd")

DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"
RETRY_SECONDS = 1.0
_OPTIONS = WriteOptions(field_manager="kube-apiserver", field_validation="Ignore")


class Definitions:
    """Keeps the registry in step with the definitions."""

    def __init__(self, registry: Registry, cache: WatchCache, webhooks: WebhookClient) -> None:
        self._registry = registry
        self._cache = cache
        self._webhooks = webhooks
        # Names of definitions to look at; None in the queue would be senseless, so the set is the queue.
        self._due: set[str] = set()
        self._wake = asyncio.Event()
        self.running = False

    def load(self) -> None:
        """Serve what is established already, and follow from now on. Called when the definitions are in the cache,
        before their objects."""
        cache = self._cache.of(DEFINITIONS)
        for entry in cache.listed(""):
            self._on_change(None, entry)
        cache.listeners.append(self._on_change)

    def _on_change(self, old: Entry | None, new: Entry | None) -> None:
        if new is not None:
            definition = codec.decode(new.value)
            if is_true(definition, "Established"):
                self._serve(definition)
            self._due.add(new.name)
            self._wake.set()
            return
        assert old is not None
        definition = codec.decode(old.value)
        spec = definition["spec"]
        if not self._served_by_another(definition):
            self._registry.replace_custom(spec["group"], spec["names"]["plural"], ())
        # Names may have become free for others.
        self._due |= {entry.name for entry in self._cache.of(DEFINITIONS).listed("")}
        self._wake.set()

    def _served_by_another(self, definition: dict[str, Any]) -> bool:
        """Whether the rows under this definition's names are not its own: it never got them."""
        row = self._registry.by_storage(f"{definition['spec']['names']['plural']}.{definition['spec']['group']}")
        return row is not None and getattr(row.custom, "definition_name", "") != definition["metadata"]["name"]

    def _serve(self, definition: dict[str, Any]) -> None:
        if self._served_by_another(definition):
            return
        spec = definition["spec"]
        converted = (spec.get("conversion") or {}).get("strategy") == "Webhook"
        rows = rows_of(definition, WebhookConversion(self._webhooks, definition) if converted else None)
        self._registry.replace_custom(spec["group"], spec["names"]["plural"], rows)
        self._cache.reindex(rows[0].storage if rows else "")

    # --- conditions and clean-up

    async def run(self, writer: Writer, deleter: Deleter) -> None:
        """Judge and clean up, for ever."""
        self.running = True
        while True:
            await self._wake.wait()
            self._wake.clear()
            due, self._due = self._due, set()
            failed = False
            for name in sorted(due):
                try:
                    done = await self._look_at(writer, deleter, name)
                except errors.ApiError as err:
                    log.warning("a definition could not be processed", definition=name, error=err.message)
                    done = False
                if not done:
                    self._due.add(name)
                    failed = True
            if failed:
                await asyncio.sleep(RETRY_SECONDS)
                self._wake.set()

    async def _look_at(self, writer: Writer, deleter: Deleter, name: str) -> bool:
        entry = self._cache.of(DEFINITIONS).get("", name)
        if entry is None:
            return True
        definition = codec.decode(entry.value)
        if "deletionTimestamp" in definition["metadata"]:
            return await self._clean_up(writer, deleter, definition)
        group = definition["spec"]["group"]
        others = [
            other
            for other in map(
                codec.decode, (item.value for item in self._cache.of(DEFINITIONS).listed("") if item.name != name)
            )
            if other["spec"]["group"] == group
        ]
        names, condition = accepted(definition, others)

        def judged(old: dict[str, Any]) -> dict[str, Any]:
            status = old.setdefault("status", {})
            status["acceptedNames"] = names
            set_condition(status, "NamesAccepted", *condition)
            if condition[0] == "True":
                set_condition(
                    status, "Established", "True", "InitialNamesAccepted", "the initial names have been accepted"
                )
            elif not is_true(old, "Established"):
                set_condition(status, "Established", "False", "NotAccepted", "not all names are accepted")
            return old

        await self._modify(writer, name, judged)
        return True

    async def _clean_up(self, writer: Writer, deleter: Deleter, definition: dict[str, Any]) -> bool:
        """Delete every object of a terminating definition; whether it is done."""
        name = definition["metadata"]["name"]
        if CLEANUP_FINALIZER not in (definition["metadata"].get("finalizers") or ()):
            return True
        spec = definition["spec"]
        row = self._registry.by_storage(f"{spec['names']['plural']}.{spec['group']}")
        if row is not None and not self._served_by_another(definition):
            req = Request(SYSTEM, "deletecollection", row, user_agent="kube-apiserver")
            await deleter.delete_collection(req, ListOptions(), DeleteOptions())
            if self._cache.of(row.storage).count:
                return False

        def finished(old: dict[str, Any]) -> dict[str, Any]:
            finalizers = [item for item in old["metadata"].get("finalizers") or () if item != CLEANUP_FINALIZER]
            old["metadata"]["finalizers"] = finalizers
            message = "removed all instances"
            set_condition(old["status"], "Terminating", "False", "InstanceDeletionCompleted", message)
            return old

        await self._modify(writer, name, finished, subresource="")
        return True

    async def _modify(self, writer: Writer, name: str, make: Any, subresource: str = "status") -> None:
        row: Resource = self._registry.resolve("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        req = Request(SYSTEM, "update", row, subresource, "", name, "kube-apiserver")
        try:
            await writer.modify(req, make, _OPTIONS, [])
        except errors.NotFound:
            return


def is_true(definition: dict[str, Any], condition: str) -> bool:
    """Whether a condition of a definition is True."""
    conditions = (definition.get("status") or {}).get("conditions") or ()
    return any(item.get("type") == condition and item.get("status") == "True" for item in conditions)
