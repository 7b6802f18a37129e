"""ResourceQuota: what a namespace may use. The use is counted up in the same transaction as the object is created.

The quota's new status is a conditional write beside the object's: of two creations at once that both fit alone, one is
computed again and then refused. The quota controller counts again from the objects, so deletions give back what they
used.
"""

from __future__ import annotations

from typing import Any

from machinery.api import errors
from machinery.api.quantity import parse
from services.apiserver import codec
from services.apiserver.admission.chain import Plugin
from services.apiserver.admission.quota_usage import Usage, in_scope, missing_constraints, usage_of
from services.apiserver.entries import Entry
from services.apiserver.registry.resource import Registry
from services.apiserver.write_context import WriteContext
from storage.store import Key, Put

QUOTAS = "resourcequotas"


class ResourceQuota(Plugin):
    """Judges creations and updates of namespaced objects."""

    subresources = frozenset(("", "resize"))

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def cares(self, ctx: WriteContext) -> bool:
        if not ctx.resource.namespaced or ctx.resource.virtual:
            return False
        if ctx.resource.storage in ("events", QUOTAS) and ctx.operation != "CREATE":
            return False
        if ctx.operation == "CREATE":
            return ctx.subresource == "" and ctx.resource.storage != "events"
        counted = ("pods", "services", "persistentvolumeclaims", "resourceclaims.resource.k8s.io")
        return ctx.operation == "UPDATE" and ctx.resource.storage in counted and ctx.subresource in ("", "resize")

    def validate(self, ctx: WriteContext) -> None:
        quotas = ctx.lookup.cache.of(QUOTAS).listed(ctx.namespace)
        if quotas:
            self._judge(ctx, quotas)

    def _judge(self, ctx: WriteContext, quotas: list[Entry]) -> None:
        storage = ctx.resource.storage
        whole = usage_of(storage, ctx.obj)
        grown = _growth(whole, usage_of(storage, ctx.old)) if ctx.old is not None else whole
        for entry in quotas:
            quota = codec.decode(entry.value)
            if not in_scope(quota, storage, ctx.obj):
                continue
            hard = (quota.get("status") or {}).get("hard") or (quota.get("spec") or {}).get("hard") or {}
            if storage == "pods" and ctx.operation == "CREATE":
                _check_constrained(ctx, quota, hard)
            # An object that comes into a quota's scope by its change is new to it.
            counted = ctx.old is not None and in_scope(quota, storage, ctx.old)
            wanted = {name: value for name, value in (grown if counted else whole).items() if name in hard and value}
            if wanted:
                self._charge(ctx, entry, quota, hard, wanted)

    def _charge(
        self, ctx: WriteContext, entry: Entry, quota: dict[str, Any], hard: dict[str, Any], wanted: Usage
    ) -> None:
        status = quota.setdefault("status", {})
        used = status.setdefault("used", {})
        status.setdefault("hard", hard)
        present = {name: parse(used.get(name, "0")) for name in wanted}
        exceeded = sorted(
            name for name, value in wanted.items() if present[name] + value > parse(hard[name]) and value > parse("0")
        )
        if exceeded:
            requested, in_use, limited = (
                ",".join(f"{name}={values[name]}" for name in exceeded) for values in (wanted, present, hard)
            )
            why = f"exceeded quota: {entry.name}, requested: {requested}, used: {in_use}, limited: {limited}"
            raise errors.forbidden(ctx.resource.group, ctx.resource.plural, ctx.name, why)
        if ctx.dry_run:
            return
        used.update({name: str(present[name] + value) for name, value in wanted.items()})
        row = self._registry.by_storage(QUOTAS)
        assert row is not None
        key = Key(QUOTAS, entry.namespace, entry.name)
        ctx.extra.append(Put(key, entry.revision, row.head, codec.encode_tail(quota)))


def _growth(new: Usage, old: Usage) -> Usage:
    """What an update uses more; what it uses less the quota controller gives back."""
    zero = parse("0")
    grown = {name: value - old.get(name, zero) for name, value in new.items()}
    return {name: value for name, value in grown.items() if value > zero}


def _check_constrained(ctx: WriteContext, quota: dict[str, Any], hard: dict[str, Any]) -> None:
    missing = missing_constraints(hard, ctx.obj)
    if missing:
        parts = "; ".join(f"{name} for: {','.join(containers)}" for name, containers in sorted(missing.items()))
        why = f"failed quota: {quota['metadata']['name']}: must specify {parts}"
        raise errors.forbidden("", "pods", ctx.name, why)
