"""CREATE, UPDATE and PATCH: a body becomes an object, is completed, judged and committed.

    body -> take in -> (convert) -> strategy.prepare -> defaults -> mutating admission -> allocate -> validate ->
    validating admission
         -> managedFields -> bytes -> commit, if the bytes are not the ones that are there

An update or patch is computed against the entry that the cache holds and committed with its revision as the condition.
If another write came between, a write that the caller made conditional (a resourceVersion in the body) ends with
Conflict, any other is computed again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Protocol

import orjson

from machinery.api import errors
from services.apiserver import codec, conversion, ownership, scale
from services.apiserver.admission.chain import Chain
from services.apiserver.commits import Changed, Committer, Taken, key_of
from services.apiserver.entries import Entry
from services.apiserver.intake import check_kind, take_in
from services.apiserver.large import LargeRequests, aside
from services.apiserver.lookup import Lookup
from services.apiserver.patching import apply_patch
from services.apiserver.registry import metadata as meta
from services.apiserver.registry.resource import Resource
from services.apiserver.request import Request, WriteOptions, WriteResult
from services.apiserver.watch_cache import WatchCache
from services.apiserver.write_context import WriteContext
from storage.store import Event

RETRIES_MAX = 100
"""How often a write is computed again because the object changed underneath: of that many writers of one object at once
even the last one gets its turn."""
RETRY_SECONDS = 0.002
"""By how much the pause before another attempt grows with each, up to ten times, drawn at random: a writer at an
apiserver that hears of the change later than its rivals would otherwise never win."""
NAME_ATTEMPTS_MAX = 8
"""How often a generated name is drawn again because it was taken."""
_OPTIMISTIC_LOCK = "the object has been modified; please apply your changes to the latest version and try again"

Make = Callable[[dict[str, Any]], dict[str, Any]]
"""From the stored object (which it may change) to the wanted one, of the storage version."""


class Posts(Protocol):
    """Writes that are no create, update or patch of a stored object (`services.apiserver.special`)."""

    async def create(self, req: Request, body: dict[str, Any], options: WriteOptions) -> WriteResult:
        """Handle a post. Raises MethodNotAllowed where nobody does."""
        ...


class Writer:
    """Judges and commits mutations."""

    def __init__(self, cache: WatchCache, lookup: Lookup, admission: Chain, special: Posts) -> None:
        self.cache = cache
        self.lookup = lookup
        self.admission = admission
        self.committer = Committer(cache)
        self.large = LargeRequests()
        self._special = special

    # --- create

    async def create(self, req: Request, body: dict[str, Any], options: WriteOptions) -> WriteResult:
        """Create an object, or post to a subresource or a virtual resource."""
        resource = req.resource
        if req.subresource or resource.virtual:
            taken_in = await aside(req, take_in, resource, body, options) if resource.virtual else []
            result = await self._special.create(req, await self._admit_post(req, body, options), options)
            result.warnings += taken_in
            return result
        warnings = await aside(req, take_in, resource, body, options)
        meta.place(resource, meta.metadata_of(body), req.namespace, req.name)
        if body["metadata"].get("resourceVersion") not in (None, "", "0"):
            raise errors.BadRequest("resourceVersion should not be set on objects to be created")
        return await self.insert(
            WriteContext(req, "CREATE", conversion.judged(resource, body), None, options, self.lookup, warnings)
        )

    async def insert(self, ctx: WriteContext) -> WriteResult:
        """Create `ctx.obj`, whose body was taken in."""
        metadata = ctx.metadata
        base = "" if metadata.get("name") else metadata.get("generateName") or ""
        attempts = NAME_ATTEMPTS_MAX if base else 1
        # Judging fills the object in; another attempt begins with what came.
        raw = orjson.dumps(ctx.obj)
        for _ in range(RETRIES_MAX):
            attempts -= 1
            if base:
                ctx.metadata["name"] = self._free_name(ctx, base)
            await self._judge_create(ctx)
            try:
                return await self._insert_judged(ctx)
            except Taken as err:
                own = err.key == key_of(ctx.resource, ctx.obj)
                if own and attempts <= 0:
                    raise errors.already_exists(ctx.resource.group, ctx.resource.plural, ctx.name) from err
            except Changed:
                pass
            # Somebody took the address or the generated name, or used the quota, between our choice and the commit.
            ctx.extra.clear()
            ctx.obj = orjson.loads(raw)
        raise errors.conflict(
            ctx.resource.group, ctx.resource.plural, ctx.name, "its quota, address or name kept being taken by others"
        )

    def _free_name(self, ctx: WriteContext, base: str) -> str:
        """A generated name that nobody has, as far as is known here; the commit judges."""
        cache = self.cache.of(ctx.resource.storage)
        for _ in range(NAME_ATTEMPTS_MAX):
            name = meta.generate_name(base)
            if cache.get(ctx.namespace, name) is None:
                break
        return name

    async def _judge_create(self, ctx: WriteContext) -> None:
        resource, strategy, obj = ctx.resource, ctx.resource.strategy, ctx.obj
        if ctx.metadata.get("name") and self.cache.of(resource.storage).get(ctx.namespace, ctx.metadata["name"]):
            # Known before anything is judged or allocated; the commit would find it too.
            raise errors.already_exists(resource.group, resource.plural, ctx.metadata["name"])
        meta.begin(ctx.metadata)
        strategy.prepare_create(ctx)
        await aside(ctx.req, resource.schema.default, obj)
        if await self.admission.mutate(ctx):
            # What was authorized is this namespace; a name may still be chosen, as upstream has it.
            meta.place(resource, ctx.metadata, ctx.namespace, "")
            await aside(ctx.req, resource.schema.default, ctx.obj)
        strategy.allocate(ctx)
        causes = [*await aside(ctx.req, resource.schema.validate_create, ctx.obj), *strategy.validate_create(ctx)]
        if causes:
            raise errors.invalid(resource.group, resource.kind.kind, ctx.metadata.get("name", ""), causes)
        await self.admission.validate(ctx)
        if not ctx.applied:
            await aside(ctx.req, ownership.record_create, ctx)

    async def _insert_judged(self, ctx: WriteContext) -> WriteResult:
        resource = ctx.resource
        obj = ctx.obj if resource.remote is None else await conversion.stored(resource, ctx.obj)
        if ctx.dry_run:
            json = codec.splice(resource.head, 0, codec.encode_tail(obj)).replace(b'"resourceVersion":"0",', b"", 1)
            return await self._result(resource, json, 0, ctx, created=True)
        event = await self.committer.create(resource, obj, ctx.options.fence, ctx.extra, ctx.req.user.name)
        return await self._result(resource, event.value, event.revision, ctx, created=True)

    # --- update

    async def update(self, req: Request, body: dict[str, Any], options: WriteOptions) -> WriteResult:
        """Replace an object or a subresource."""
        resource, sub = req.resource, req.subresource
        if resource.virtual:
            raise errors.MethodNotAllowed("the server does not allow this method on the requested resource")
        if sub == "scale":
            return await self._update_scale(req, body, options)
        warnings = await aside(req, take_in, resource, body, options)
        metadata = meta.metadata_of(body)
        meta.place(resource, metadata, req.namespace, req.name)
        wanted_version = metadata.get("resourceVersion") or ""
        stored = conversion.judged(resource, body)
        entry = self.cache.of(resource.storage).get(req.namespace, req.name)
        if entry is None:
            if resource.strategy.create_on_update and not sub and wanted_version in ("", "0"):
                metadata.pop("uid", None)
                return await self.insert(WriteContext(req, "CREATE", stored, None, options, self.lookup, warnings))
            raise resource.not_found(req.name)
        if not wanted_version and not resource.strategy.unconditional_update:
            cause = errors.Cause(
                "FieldValueInvalid", "Invalid value: 0: must be specified for an update", "metadata.resourceVersion"
            )
            raise errors.invalid(resource.group, resource.kind.kind, req.name, [cause])
        if wanted_version:
            return await self.modify(req, lambda _old: stored, options, warnings)
        # The body is needed once more if another write comes between.
        raw = orjson.dumps(stored)
        return await self.modify(req, lambda _old: orjson.loads(raw), options, warnings)

    async def _update_scale(self, req: Request, body: dict[str, Any], options: WriteOptions) -> WriteResult:
        version = (body.get("metadata") or {}).get("resourceVersion") or ""

        def make(old: dict[str, Any]) -> dict[str, Any]:
            if version:
                old["metadata"]["resourceVersion"] = version
            scale.apply_scale(req.resource, old, body)
            return old

        result = await self.modify(req, make, options, [])
        return WriteResult(scale.to_scale(req.resource, codec.decode(result.json)), revision=result.revision)

    # --- patch

    async def patch(self, req: Request, patch_type: str, patch: Any, options: WriteOptions) -> WriteResult:
        """Change part of an object or of a subresource."""
        resource, sub = req.resource, req.subresource
        if resource.virtual:
            raise errors.MethodNotAllowed("the server does not allow this method on the requested resource")
        if patch_type == "apply" and not options.field_manager:
            raise errors.BadRequest(
                "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value: is required for apply patch"
            )
        entry = self.cache.of(resource.storage).get(req.namespace, req.name)
        if entry is None:
            if patch_type == "apply" and not sub:
                return await self._apply_new(req, patch, options)
            raise resource.not_found(req.name)
        warnings: list[str] = []

        def make(old: dict[str, Any]) -> dict[str, Any]:
            warnings.clear()
            return apply_patch(req, patch_type, patch, old, options, warnings)

        if sub == "scale":
            result = await self.modify(req, make, options, warnings)
            return WriteResult(scale.to_scale(resource, codec.decode(result.json)), revision=result.revision)
        return await self.modify(req, make, options, warnings, applied=patch_type == "apply")

    async def _apply_new(self, req: Request, patch: Any, options: WriteOptions) -> WriteResult:
        if not isinstance(patch, dict):
            raise errors.BadRequest("an apply patch must be an object")
        resource = req.resource
        check_kind(resource, patch)
        await aside(req, ownership.refuse_undeclared, resource, patch)
        warnings = await aside(req, take_in, resource, patch, options)
        meta.place(resource, meta.metadata_of(patch), req.namespace, req.name)
        if patch["metadata"].get("uid"):
            raise errors.conflict(
                resource.group, resource.plural, req.name, "uid mismatch: the object to apply to does not exist"
            )
        patch["metadata"].pop("resourceVersion", None)
        obj = await aside(req, ownership.apply_new, req, patch, options)
        ctx = WriteContext(
            req, "CREATE", conversion.judged(resource, obj), None, options, self.lookup, warnings, applied=True
        )
        try:
            return await self.insert(ctx)
        except errors.AlreadyExists:
            # Created by somebody else since we looked: it is an apply to what exists.
            return await self.patch(req, "apply", patch, options)

    # --- what update and patch share

    async def modify(
        self, req: Request, make: Make, options: WriteOptions, warnings: list[str], *, applied: bool = False
    ) -> WriteResult:
        """Bring an existing object to the state that `make` computes, again if it changes meanwhile."""
        resource = req.resource

        def made_of(value: bytes) -> dict[str, Any]:
            return make(codec.decode(value))

        for attempt in range(RETRIES_MAX):
            if attempt:
                await asyncio.sleep(random.uniform(0, min(attempt, 10)) * RETRY_SECONDS)  # noqa: S311
            entry = self.cache.of(resource.storage).get(req.namespace, req.name)
            if entry is None:
                raise resource.not_found(req.name)
            value = entry.value if resource.remote is None else await conversion.served(resource, entry.value)
            async with self.large.turn(req, len(value)):
                # Two decodes: `make` may change its argument, and admission compares with the old state.
                new = await aside(req, made_of, value)
                old = codec.decode(value)
                ctx = WriteContext(req, "UPDATE", new, old, options, self.lookup, warnings, applied=applied)
                wanted = new["metadata"].get("resourceVersion") or ""
                if wanted not in ("", "0") and wanted != old["metadata"]["resourceVersion"]:
                    raise errors.conflict(resource.group, resource.plural, req.name, _OPTIMISTIC_LOCK)
                try:
                    return await self._replace(ctx, entry)
                except (Changed, Taken):
                    continue
        raise errors.conflict(resource.group, resource.plural, req.name, _OPTIMISTIC_LOCK)

    async def _replace(self, ctx: WriteContext, entry: Entry) -> WriteResult:
        resource, strategy, old = ctx.resource, ctx.resource.strategy, ctx.old
        assert old is not None
        meta.carry_over(resource, ctx.metadata, old["metadata"])
        strategy.prepare_update(ctx)
        await aside(ctx.req, resource.schema.default, ctx.obj)
        if await self.admission.mutate(ctx):
            meta.place(resource, ctx.metadata, ctx.namespace, "")
            await aside(ctx.req, resource.schema.default, ctx.obj)
        strategy.bump_generation(ctx)
        if same_but_ownership(ctx.obj, old) and (resource.remote is None or entry.value.startswith(resource.head)):
            # Nothing to judge; who owns what may still have changed.
            if not ctx.applied:
                await aside(ctx.req, ownership.record_update, ctx)
            if ownership.same(ctx.metadata, old["metadata"]):
                return await self._result(resource, entry.value, entry.revision, ctx)
        else:
            strategy.allocate(ctx)
            causes = [*await aside(ctx.req, resource.schema.validate_update, ctx.obj, old, ctx.subresource)]
            causes += strategy.validate_update(ctx)
            if causes:
                raise errors.invalid(resource.group, resource.kind.kind, entry.name, causes)
            await self.admission.validate(ctx)
            if not ctx.applied:
                await aside(ctx.req, ownership.record_update, ctx)
        obj = ctx.obj if resource.remote is None else await conversion.stored(resource, ctx.obj)
        tail = codec.encode_tail(obj)
        if ctx.dry_run:
            return await self._result(resource, codec.splice(resource.head, entry.revision, tail), entry.revision, ctx)
        author = ctx.req.user.name
        if ends_deletion(ctx.resource, obj):
            extra = [*ctx.extra, *strategy.release(obj)]
            event = await self.committer.remove(resource, entry, tail, ctx.options.fence, extra, author)
        else:
            event = await self.committer.replace(resource, entry, obj, tail, ctx.options.fence, ctx.extra, author)
        return await self._result(resource, event.value, event.revision, ctx)

    async def _admit_post(self, req: Request, body: dict[str, Any], options: WriteOptions) -> dict[str, Any]:
        """Ask admission about what is posted and not stored: to a subresource (a binding, an eviction, a token), or a
        review; what it made of it."""
        meta.metadata_of(body)
        if not body.get("kind") and req.subresource:
            body["kind"] = req.resource.subresources[req.subresource].kind.kind
        ctx = WriteContext(req, "CREATE", body, None, options, self.lookup)
        await self.admission.mutate(ctx)
        await self.admission.validate(ctx)
        return ctx.obj

    async def admit_connect(self, req: Request, body: dict[str, Any]) -> None:
        """Ask admission about a stream."""
        body.setdefault("metadata", {})
        ctx = WriteContext(req, "CONNECT", body, None, WriteOptions(), self.lookup)
        await self.admission.mutate(ctx)
        await self.admission.validate(ctx)

    # --- shared steps

    async def _result(
        self, resource: Resource, json: bytes, revision: int, ctx: WriteContext, *, created: bool = False
    ) -> WriteResult:
        served = json if resource.as_stored else await conversion.served(resource, json)
        return WriteResult(served, created, ctx.warnings, revision)

    def committed(self, event: Event) -> WriteResult:
        """The answer to a write that somebody else composed."""
        return WriteResult(event.value, False, [], event.revision)


def same_but_ownership(new: dict[str, Any], old: dict[str, Any]) -> bool:
    """Whether two states differ at most in managedFields and resourceVersion."""
    if new.keys() != old.keys():
        return False
    for key, value in new.items():
        if key != "metadata" and value != old[key]:
            return False
    return ownership.plain(new["metadata"]) == ownership.plain(old["metadata"])


def ends_deletion(resource: Resource, obj: dict[str, Any]) -> bool:
    """Whether nothing holds an object any more whose deletion has begun."""
    metadata = obj["metadata"]
    return (
        "deletionTimestamp" in metadata
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
        and not resource.strategy.blocks_removal(obj)
    )
