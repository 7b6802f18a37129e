"""Carries out what plans decided: in batches, in order, and remembers what was written.

The memory is what makes a stale cache harmless. Revisions are global and grow with every write, so "the informer has
reached the revision of my last write of that kind" is exactly "the informer shows my write". Until then the key is not
planned for (`Freshness`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from machinery.api import errors
from machinery.api.kinds import Kind
from machinery.client.api_client import ApiClient, BatchResult, Mutation
from machinery.client.events import EventRecorder
from services.controller_manager.actions import Action, Create, Delete, Emit, Note, Patch
from services.controller_manager.informers import Informers

# The first create of a run of equal ones goes alone, then two, four …: what cannot work (a quota, a bad template) fails
# a few times, not 500.
_BATCH_MAX = 256


class Freshness:
    """By key: the highest revision written for it, for each kind that was written."""

    def __init__(self, informers: Informers) -> None:
        self._informers = informers
        self._written: dict[str, dict[Kind, int]] = {}

    def wrote(self, key: str, kind: Kind, revision: int) -> None:
        """Something of this kind was written for this key."""
        if self._informers.known(kind):
            kinds = self._written.setdefault(key, {})
            kinds[kind] = max(revision, kinds.get(kind, 0))

    def is_stale(self, key: str) -> bool:
        """Whether some informer does not show yet what was written for this key."""
        written = self._written.get(key)
        if written is None:
            return False
        if any(self._informers.revision(kind) < revision for kind, revision in written.items()):
            return True
        del self._written[key]
        return False


@dataclass(slots=True)
class Outcome:
    """What came of a list of actions. `error` is the first failure."""

    done: int = 0
    error: errors.ApiError | None = None
    failed: Action | None = None
    names: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Raise the first failure, if there was one."""
        if self.error is not None:
            raise self.error


class Applier:
    """Carries out actions for one controller."""

    def __init__(self, client: ApiClient, recorder: EventRecorder, freshness: Freshness) -> None:
        self._client = client
        self._recorder = recorder
        self._freshness = freshness

    async def run(self, key: str, subject: dict[str, Any] | None, actions: Sequence[Action]) -> Outcome:
        """Carry them out in order until one fails. `subject` is the object that events are about."""
        outcome = Outcome()
        seen: dict[tuple[Kind, str, str], int] = {}
        for stage in _stages(actions):
            if isinstance(stage[0], Emit):
                for emit in stage:
                    assert isinstance(emit, Emit)
                    self._event(subject, Note(emit.type, emit.reason, emit.message), "", "")
                continue
            results = await self._client.batch([_mutation(action, seen) for action in stage])
            for action, result in zip(stage, results, strict=True):
                assert not isinstance(action, Emit)
                self._settle(key, subject, action, result, outcome)
                if isinstance(action, Patch):
                    seen[action.kind, action.namespace, action.name] = result.revision
            if outcome.error is not None:
                return outcome
        return outcome

    def _settle(
        self,
        key: str,
        subject: dict[str, Any] | None,
        action: Create | Patch | Delete,
        result: BatchResult,
        out: Outcome,
    ) -> None:
        error = result.error
        if error is None or _is_as_good(action, error):
            out.done += 1
            if error is None:
                self._freshness.wrote(key, action.kind, result.revision)
                name = result.name or _name(action)
                out.names.append(name)
                self._event(subject, action.on_success, name, "")
            return
        if _is_terminating(error):
            return  # What is not created now never will be, and the namespace's end takes care of the rest.
        if out.error is None:
            out.error, out.failed = error, action
        if not isinstance(error, errors.Conflict):
            self._event(subject, action.on_failure, _name(action), error.message)

    def _event(self, subject: dict[str, Any] | None, note: Note | None, name: str, error: str) -> None:
        if note is not None and subject is not None:
            message = note.message.replace("{name}", name).replace("{error}", error)
            self._recorder.record(subject, note.type, note.reason, message)


def _name(action: Create | Patch | Delete) -> str:
    if isinstance(action, Create):
        return str(action.obj["metadata"].get("name", ""))
    return action.name


def _is_as_good(action: Create | Patch | Delete, error: errors.ApiError) -> bool:
    if isinstance(action, Create):
        return action.exists_ok and isinstance(error, errors.AlreadyExists)
    if isinstance(action, Patch):
        return action.missing_ok and isinstance(error, errors.NotFound)
    return isinstance(error, errors.NotFound)


def _is_terminating(error: errors.ApiError) -> bool:
    """Nothing can be created in a namespace that is being deleted: true, and no news."""
    return isinstance(error, errors.Forbidden) and any(c.reason == "NamespaceTerminating" for c in error.causes)


def _stages(actions: Sequence[Action]) -> Iterable[list[Action]]:
    """Runs of actions of one sort on different objects; runs of creates grow from one on."""
    stage: list[Action] = []
    limit = 1
    touched: set[tuple[Any, ...]] = set()
    for action in actions:
        target = () if isinstance(action, (Create, Emit)) else (action.kind, action.namespace, action.name)
        apart = any(isinstance(each, Patch) and each.alone for each in (action, *stage[-1:]))
        same = stage and not apart and type(stage[0]) is type(action) and target not in touched
        full = len(stage) >= (limit if isinstance(action, Create) else _BATCH_MAX)
        if stage and (not same or full):
            limit = min(limit * 2, _BATCH_MAX) if same else 1
            yield stage
            stage, touched = [], set()
        stage.append(action)
        if target:
            touched.add(target)
    if stage:
        yield stage


def _mutation(action: Action, seen: dict[tuple[Kind, str, str], int]) -> Mutation:
    if isinstance(action, Create):
        options = {"name": _name(action), "subresource": action.subresource} if action.subresource else {}
        return Mutation.create(action.kind, action.obj, **options)
    if isinstance(action, Delete):
        return Mutation.delete(
            action.kind,
            action.name,
            action.namespace,
            uid=action.uid,
            revision=0 if seen.get((action.kind, action.namespace, action.name)) else action.revision,
            propagation_policy=action.propagation,
            grace_period_seconds=action.grace_period_seconds,
        )
    assert isinstance(action, Patch)
    return Mutation.patch(
        action.kind, action.name, action.namespace, _preconditioned(action, seen), subresource=action.subresource
    )


def _preconditioned(action: Patch, seen: dict[tuple[Kind, str, str], int]) -> dict[str, Any]:
    """The patch with the uid and revision that it holds for.

    After an own write of this run, that write's revision counts.
    """
    marks: dict[str, str] = {}
    if action.uid:
        marks["uid"] = action.uid
    revision = action.revision and (seen.get((action.kind, action.namespace, action.name)) or action.revision)
    if revision:
        marks["resourceVersion"] = str(revision)
    if not marks:
        return action.patch
    return {**action.patch, "metadata": {**action.patch.get("metadata", {}), **marks}}
