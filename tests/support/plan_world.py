"""Objects in memory, without a network or a clock.

Plans are run against it step by step, so that each step can be judged.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from machinery.api import errors, kinds, objects
from machinery.api.kinds import Kind
from machinery.client.fake_state import State
from services.controller_manager.actions import Action, Create, Delete, Emit, Patch
from services.controller_manager.informers import Informers
from services.controller_manager.views.pod import Pod
from tests.support.controllers import at, ready_status


class World:
    """A store, a clock that only `advance` moves, and the way a plan's actions change it."""

    def __init__(self) -> None:
        self.now: datetime = at(0)
        self.state = State(now=lambda: self.now)
        self.events: list[Emit] = []
        self._views: dict[tuple[str, str], Any] = {}
        self.errors: list[errors.ApiError] = []

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    def create(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Create an object in `default`."""
        kind = kinds.find(obj["apiVersion"], obj["kind"])
        assert kind is not None
        return self.state.create(kind, "default" if kind.namespaced else "", obj)

    def patch(self, kind: Kind, name: str, patch: dict[str, Any], subresource: str = "") -> dict[str, Any]:
        """Merge-patch an object of `default`."""
        namespace = "default" if kind.namespaced else ""
        return self.state.patch(kind, namespace, name, 2, objects.encode(patch), subresource, dry_run=False)

    def view(self, kind: Kind, name: str) -> Any:
        """One object of `default` as controllers see it."""
        return self._decode(kind, self.state.get(kind, "default" if kind.namespaced else "", name))

    def _decode(self, kind: Kind, obj: dict[str, Any]) -> Any:
        key = (obj["metadata"]["uid"], obj["metadata"]["resourceVersion"])
        if key not in self._views:
            self._views[key] = Informers.decode(kind, obj)
        return self._views[key]

    def views(self, kind: Kind) -> list[Any]:
        """All objects of a kind as controllers see them."""
        return [self._decode(kind, obj) for obj in self.state.list(kind, "", lambda obj: True)]

    def apply(self, actions: Iterable[Action], crash_after: int | None = None) -> None:
        """Carry actions out in order; the first that fails ends it, as in the real thing, or a crash after so many."""
        for number, action in enumerate(actions):
            if number == crash_after:
                return
            if isinstance(action, Emit):
                self.events.append(action)
                continue
            try:
                self._one(action)
            except errors.NotFound:
                continue
            except errors.ApiError as err:
                self.errors.append(err)
                return

    def _one(self, action: Create | Patch | Delete) -> None:
        if isinstance(action, Create):
            namespace = action.obj["metadata"].get("namespace", "") if action.kind.namespaced else ""
            self.state.create(action.kind, namespace, action.obj)
            return
        namespace = action.namespace
        if isinstance(action, Delete):
            self.state.delete(
                action.kind,
                namespace,
                action.name,
                grace=action.grace_period_seconds,
                propagation=action.propagation,
                uid=action.uid,
                revision=action.revision,
            )
            return
        self.state.patch(
            action.kind, namespace, action.name, 2, objects.encode(action.patch), action.subresource, dry_run=False
        )

    # --- pods ---------------------------------------------------------------------------------------------------------

    def pods(self) -> list[Pod]:
        """All pods."""
        return self.views(kinds.POD)

    def run_pod(self, name: str, node: str = "n1", phase: str = "Running", **status: Any) -> None:
        """Let a pod be ready (or end) on a node."""
        pod = self.state.get(kinds.POD, "default", name)
        if not pod["spec"].get("nodeName"):
            self.patch(kinds.POD, name, {"spec": {"nodeName": node}})
        moment = objects.format_time(self.now)
        body = ready_status(since=moment) if phase == "Running" else {"phase": phase}
        self.patch(kinds.POD, name, {"status": {**body, **status}}, "status")

    def end_pod(self, name: str) -> None:
        """A kubelet finishes a deletion."""
        self.state.delete(kinds.POD, "default", name, grace=0)
