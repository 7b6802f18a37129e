"""DELETE: at once, gracefully, or held by finalizers.

    live ──delete──> gone                                    nothing holds it
    live ──delete──> terminating (deletionTimestamp) ──> gone  a grace period, finalizers, or a namespace's content hold
    it;
                                                         the last write that lets go removes it (writes.ends_deletion)

A terminating object's grace period may only be shortened. Upstream's rules: k8s.io/apiserver/pkg/registry/rest
(BeforeDelete) and generic/registry (deletionFinalizersForGarbageCollection).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from machinery.api import errors
from services.apiserver import codec, conversion
from services.apiserver.commits import Changed
from services.apiserver.entries import Entry
from services.apiserver.reads import Reader
from services.apiserver.request import DeleteOptions, DeleteResult, ListOptions, Request, WriteOptions
from services.apiserver.write_context import WriteContext
from services.apiserver.writes import RETRIES_MAX, Writer, ends_deletion

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
_POLICIES = ("", "Orphan", "Background", "Foreground")
COLLECTION_CHUNK = 500
"""How many objects of a collection are deleted before others get a turn."""


class Deleter:
    """Ends objects."""

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self._reader = reader
        self._writer = writer
        self._cache = reader.cache

    async def delete(self, req: Request, options: DeleteOptions) -> DeleteResult:
        """Delete one object. Raises NotFound, Conflict (a precondition), Invalid (senseless options)."""
        resource = req.resource
        check_options(options)
        for _ in range(RETRIES_MAX):
            entry = self._cache.of(resource.storage).get(req.namespace, req.name)
            if entry is None:
                raise resource.not_found(req.name)
            check_preconditions(req, entry, options)
            try:
                return await self._delete_entry(req, entry, options)
            except Changed:
                continue
        raise errors.conflict(
            resource.group, resource.plural, req.name, "the object kept changing while it was being deleted"
        )

    async def delete_collection(
        self, req: Request, list_options: ListOptions, options: DeleteOptions
    ) -> list[DeleteResult]:
        """Delete what the selectors choose. An object that is gone meanwhile is no error."""
        chosen = await self._reader.list(req, list_options)
        results: list[DeleteResult] = []
        for entry in chosen.entries:
            one = Request(
                req.user,
                req.verb,
                req.resource,
                "",
                entry.namespace,
                entry.name,
                req.user_agent,
                req.source_ip,
                req.audit_id,
                req.path,
            )
            try:
                results.append(await self.delete(one, options))
            except errors.NotFound:
                continue
        return results

    async def _delete_entry(self, req: Request, entry: Entry, options: DeleteOptions) -> DeleteResult:
        strategy = req.resource.strategy
        old = codec.decode(entry.value)
        new: dict[str, Any] = orjson.loads(entry.value)
        write_options = WriteOptions(dry_run=options.dry_run, fence=options.fence)
        await self._admit(req, entry, old, new, write_options)
        if not codec.is_version(entry.value, req.resource.storage_kind.api_version):
            # Stored by an earlier version of its definition; what is kept of it is written as the present one.
            old, new = [await conversion.stored(req.resource, obj) for obj in (old, new)]
        metadata = new["metadata"]
        had_begun = "deletionTimestamp" in metadata
        strategy.prepare_delete(new)
        set_collection_finalizers(metadata, propagation(strategy.default_propagation, options))
        grace = strategy.grace_seconds(old, options)
        if had_begun:
            grace = _shortened(metadata, grace if options.grace_period_seconds is not None else None)
        held = bool(metadata.get("finalizers")) or strategy.blocks_removal(new)
        if not had_begun and (grace or held):
            _begin(metadata, grace or 0)
            strategy.begin_deletion(new)
        elif had_begun and held and not grace:
            metadata["deletionGracePeriodSeconds"] = 0
        if grace or held:
            return await self._keep(req, entry, old, new, options)
        return await self._remove(req, entry, new, options)

    async def _admit(
        self, req: Request, entry: Entry, old: dict[str, Any], new: dict[str, Any], options: WriteOptions
    ) -> None:
        if req.resource.remote is not None:
            served = await conversion.served(req.resource, entry.value)
            old, new = codec.decode(served), codec.decode(served)
        ctx = WriteContext(req, "DELETE", new, old, options, self._writer.lookup)
        await self._writer.admission.mutate(ctx)
        await self._writer.admission.validate(ctx)

    async def _keep(
        self, req: Request, entry: Entry, old: dict[str, Any], new: dict[str, Any], options: DeleteOptions
    ) -> DeleteResult:
        resource = req.resource
        if new == old:
            return DeleteResult(await conversion.served(req.resource, entry.value), False, entry.revision, entry.uid)
        if ends_deletion(resource, new):
            return await self._remove(req, entry, new, options)
        tail = codec.encode_tail(new)
        if options.dry_run:
            json = codec.splice(resource.head, entry.revision, tail)
            return DeleteResult(await conversion.served(req.resource, json), False, entry.revision, entry.uid)
        event = await self._writer.committer.replace(resource, entry, new, tail, options.fence, [], req.user.name)
        return DeleteResult(await conversion.served(req.resource, event.value), False, event.revision, entry.uid)

    async def _remove(self, req: Request, entry: Entry, new: dict[str, Any], options: DeleteOptions) -> DeleteResult:
        resource = req.resource
        tail = codec.encode_tail(new)
        if options.dry_run:
            json = codec.splice(resource.head, entry.revision, tail)
            return DeleteResult(await conversion.served(req.resource, json), True, entry.revision, entry.uid)
        extra = list(resource.strategy.release(new))
        event = await self._writer.committer.remove(resource, entry, tail, options.fence, extra, req.user.name)
        return DeleteResult(await conversion.served(req.resource, event.value), True, event.revision, entry.uid)


def check_options(options: DeleteOptions) -> None:
    """Refuse options that make no sense. Raises Invalid."""
    causes = []
    if options.propagation_policy not in _POLICIES:
        message = (
            f'Unsupported value: "{options.propagation_policy}": supported values: "Background", "Foreground", "Orphan"'
        )
        causes.append(errors.Cause("FieldValueNotSupported", message, "propagationPolicy"))
    if options.propagation_policy and options.orphan_dependents is not None:
        message = "Invalid value: orphanDependents and deletionPropagation cannot be both set"
        causes.append(errors.Cause("FieldValueInvalid", message, "propagationPolicy"))
    if causes:
        raise errors.invalid("meta.k8s.io", "DeleteOptions", "", causes)


def check_preconditions(req: Request, entry: Entry, options: DeleteOptions) -> None:
    """Raises Conflict if the object is not the one that is meant."""
    resource = req.resource
    if options.uid and options.uid != entry.uid:
        why = f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {entry.uid}"
        raise errors.conflict(resource.group, resource.plural, req.name, why)
    if options.resource_version and options.resource_version != str(entry.revision):
        why = (
            f"Precondition failed: ResourceVersion in precondition: {options.resource_version}, "
            f"ResourceVersion in object meta: {entry.revision}"
        )
        raise errors.conflict(resource.group, resource.plural, req.name, why)


def propagation(default: str, options: DeleteOptions) -> str:
    """What becomes of the dependents; empty: as the finalizers say already."""
    if options.propagation_policy:
        return options.propagation_policy
    if options.orphan_dependents is not None:
        return "Orphan" if options.orphan_dependents else "Background"
    return "" if default == "Background" else default


def set_collection_finalizers(metadata: dict[str, Any], policy: str) -> None:
    """Ask the garbage collector for what the policy says, by its finalizers."""
    if not policy:
        return
    finalizers = [name for name in metadata.get("finalizers") or () if name not in (ORPHAN, FOREGROUND)]
    if policy == "Orphan":
        finalizers.append(ORPHAN)
    elif policy == "Foreground":
        finalizers.append(FOREGROUND)
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)


def _begin(metadata: dict[str, Any], grace_seconds: int) -> None:
    metadata["deletionTimestamp"] = _time_text(datetime.now(UTC) + timedelta(seconds=grace_seconds))
    metadata["deletionGracePeriodSeconds"] = grace_seconds
    if metadata.get("generation", 0) > 0:
        metadata["generation"] += 1


def _shortened(metadata: dict[str, Any], wanted: int | None) -> int:
    """The grace that is left to a terminating object. Changes its metadata if `wanted` is shorter."""
    present = int(metadata.get("deletionGracePeriodSeconds") or 0)
    if wanted is None or wanted >= present:
        return present
    deadline = datetime.fromisoformat(metadata["deletionTimestamp"]) - timedelta(seconds=present - wanted)
    metadata["deletionTimestamp"] = _time_text(deadline)
    metadata["deletionGracePeriodSeconds"] = wanted
    return wanted


def _time_text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
