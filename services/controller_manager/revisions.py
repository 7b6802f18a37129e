"""ControllerRevisions: the history of templates that DaemonSets and StatefulSets keep, and kubectl rolls back by."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from machinery.api import kinds
from machinery.api.kinds import Kind
from services.controller_manager import templates
from services.controller_manager.actions import Action, Create, Delete, Patch
from services.controller_manager.views.workloads import ControllerRevision

HASH_LABEL = "controller-revision-hash"
_HASH_OF_REVISION = "controller.kubernetes.io/hash"
_NOT_HANDED_DOWN = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(slots=True)
class History:
    """`update` is the revision of the present template, `all` every one in order, `actions` what makes that so in the
    store.

    `update` may be yet to be created: then nothing else is to be done in this pass.
    """

    update: ControllerRevision
    all: list[ControllerRevision]
    actions: list[Action]

    @property
    def is_stored(self) -> bool:
        """Whether the present template's revision exists, with its right number."""
        return not self.actions


def data_of(template: dict[str, Any]) -> dict[str, Any]:
    """What a revision holds: a strategic merge patch that puts the template back."""
    return {"spec": {"template": {**template, "$patch": "replace"}}}


def template_of(revision: ControllerRevision) -> dict[str, Any]:
    """The template that a revision holds."""
    template: dict[str, Any] = dict(templates.decode(revision.data)["spec"]["template"])
    template.pop("$patch", None)
    return template


def sync(kind: Kind, owner: Any, revisions: Sequence[ControllerRevision], *, label: str = HASH_LABEL) -> History:
    """Find the present template among the owner's revisions; number it last if it came back, make it if it is new."""
    ordered = sorted(revisions, key=lambda each: (each.revision, each.metadata.name))
    template = templates.decode(owner.spec.template)
    wanted = templates.normalized(data_of(template))
    newest = ordered[-1].revision if ordered else 0
    for found in reversed(ordered):
        if templates.normalized(templates.decode(found.data)) != wanted:
            continue
        if found.revision == newest and found is ordered[-1]:
            return History(found, ordered, [])
        meta = found.metadata
        patch = Patch(kinds.CONTROLLER_REVISION, meta.namespace, meta.name, {"revision": newest + 1}, uid=meta.uid)
        again = msgspec.structs.replace(found, revision=newest + 1)
        return History(again, [*(each for each in ordered if each is not found), again], [patch])
    return _new(kind, owner, template, ordered, newest + 1, label)


def _new(
    kind: Kind, owner: Any, template: dict[str, Any], ordered: list[ControllerRevision], number: int, label: str
) -> History:
    data = data_of(template)
    hashed = templates.content_hash(templates.normalized(data), owner.status.get("collisionCount"))
    meta = owner.metadata
    annotations = {name: value for name, value in meta.annotations.items() if name != _NOT_HANDED_DOWN}
    obj = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": f"{meta.name}-{hashed}",
            "namespace": meta.namespace,
            "labels": {**(template.get("metadata", {}).get("labels") or {}), label: hashed},
            **({"annotations": annotations} if annotations else {}),
            "ownerReferences": [templates.owner_reference(kind, meta)],
        },
        "data": data,
        "revision": number,
    }
    view = msgspec.json.decode(msgspec.json.encode(obj), type=ControllerRevision)
    return History(view, [*ordered, view], [Create(kinds.CONTROLLER_REVISION, obj)])


def hash_of(revision: ControllerRevision) -> str:
    """The short hash in the revision's name."""
    labels = revision.metadata.labels
    return labels.get(HASH_LABEL) or labels.get(_HASH_OF_REVISION) or revision.metadata.name.rpartition("-")[2]


def prune(history: History, live: Collection[str], limit: int | None) -> list[Action]:
    """Delete the oldest revisions beyond the limit that no pod is of. `live` are names."""
    if limit is None:
        return []
    old = [
        each
        for each in history.all
        if each.metadata.name != history.update.metadata.name and each.metadata.name not in live
    ]
    return [
        Delete(kinds.CONTROLLER_REVISION, each.metadata.namespace, each.metadata.name, uid=each.metadata.uid)
        for each in old[: max(0, len(old) - limit)]
    ]
