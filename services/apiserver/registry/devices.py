"""Taints of devices carry the moment from which on they count: how long claims bear them is counted from there."""

from __future__ import annotations

from typing import Any

from services.apiserver.registry.metadata import now_text
from services.apiserver.registry.strategy import Strategy
from services.apiserver.write_context import WriteContext


def _taint(obj: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = (obj.get("spec") or {}).get("taint") or {}
    return found


class TaintRuleStrategy(Strategy):
    """DeviceTaintRules: a taint whose effect changes counts anew, unless the author sets another moment."""

    generation = True

    def prepare_create(self, ctx: WriteContext) -> None:
        """See the class."""
        super().prepare_create(ctx)
        _fill(_taint(ctx.obj))

    def prepare_update(self, ctx: WriteContext) -> None:
        """See the class."""
        super().prepare_update(ctx)
        assert ctx.old is not None
        taint, before = _taint(ctx.obj), _taint(ctx.old)
        if taint.get("effect") != before.get("effect") and taint.get("timeAdded") == before.get("timeAdded"):
            taint["timeAdded"] = now_text()
        _fill(taint)


class SliceStrategy(Strategy):
    """ResourceSlices: taints of their devices."""

    generation = True

    def prepare_create(self, ctx: WriteContext) -> None:
        """See the class."""
        super().prepare_create(ctx)
        self._fill_all(ctx.obj)

    def prepare_update(self, ctx: WriteContext) -> None:
        """See the class."""
        super().prepare_update(ctx)
        self._fill_all(ctx.obj)

    @staticmethod
    def _fill_all(obj: dict[str, Any]) -> None:
        for device in (obj.get("spec") or {}).get("devices") or ():
            for taint in device.get("taints") or ():
                _fill(taint)


def _fill(taint: dict[str, Any]) -> None:
    if taint and not taint.get("timeAdded"):
        taint["timeAdded"] = now_text()
