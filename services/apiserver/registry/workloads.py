"""Workload kinds whose creation fills in more than defaults do."""

from __future__ import annotations

from typing import Any

from services.apiserver.registry.strategy import Strategy
from services.apiserver.write_context import WriteContext

_LEGACY_UID, _UID = "controller-uid", "batch.kubernetes.io/controller-uid"
_LEGACY_NAME, _NAME = "job-name", "batch.kubernetes.io/job-name"


class JobStrategy(Strategy):
    """Jobs select their pods by a label that carries their uid, unless the user manages the selector."""

    generation = True
    default_propagation = "Orphan"

    def prepare_create(self, ctx: WriteContext) -> None:
        super().prepare_create(ctx)
        spec = ctx.spec()
        if spec and not spec.get("manualSelector"):
            select_by_uid(spec, ctx.metadata["uid"], ctx.metadata.get("name", ""))


def select_by_uid(spec: dict[str, Any], uid: str, name: str) -> None:
    """Fill in a job's selector and its template's labels."""
    template = spec.setdefault("template", {})
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    labels |= {_LEGACY_UID: uid, _UID: uid, _LEGACY_NAME: name, _NAME: name}
    selector = spec.setdefault("selector", {})
    selector.setdefault("matchLabels", {})[_UID] = uid


class ReplicationControllerStrategy(Strategy):
    """The oldest workload: it orphans its pods unless told otherwise."""

    generation = True
    default_propagation = "Orphan"
