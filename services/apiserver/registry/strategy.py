"""How objects of a kind behave when they are written: what every kind shares, and the hooks that special kinds fill.

The order of a write is the writer's (`services.apiserver.writes`):

    create: prepare_create -> defaults -> mutating admission -> allocate -> validate_create -> validating admission ->
    commit update: prepare_update -> defaults -> mutating admission -> allocate -> validate_update -> validating
    admission -> commit delete: grace_seconds, release -> commit
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from machinery.api.errors import Cause
from services.apiserver.request import DeleteOptions
from services.apiserver.write_context import WriteContext
from storage.store import Mutation

_SAME_METADATA = frozenset(
    ("resourceVersion", "generation", "managedFields", "annotations", "labels", "finalizers", "ownerReferences")
)


class Strategy:
    """A kind with nothing special. Hooks change `ctx.obj` in place."""

    # Whether metadata.generation counts changes of what is wanted (everything besides metadata and status).
    generation: ClassVar[bool] = False
    # Whether PUT creates what does not exist.
    create_on_update: ClassVar[bool] = False
    # Whether an update without a resourceVersion overwrites whatever is there.
    unconditional_update: ClassVar[bool] = True
    # What deletion does to dependents if the caller does not say: "Background" or "Orphan".
    default_propagation: ClassVar[str] = "Background"
    # Whether an object that deletion removed at once is answered itself, rather than a Status.
    returns_deleted: ClassVar[bool] = False

    def __init__(self, *, has_status: bool = False, generation: bool | None = None) -> None:
        self.has_status = has_status
        self.counts_generation = self.generation if generation is None else generation

    def prepare_create(self, ctx: WriteContext) -> None:
        """Reset what a creator may not set."""
        if self.has_status:
            ctx.obj.pop("status", None)
        if self.counts_generation:
            ctx.metadata["generation"] = 1
        else:
            ctx.metadata.pop("generation", None)

    def prepare_update(self, ctx: WriteContext) -> None:
        """Keep of the old object what this (sub)resource may not change."""
        assert ctx.old is not None
        if ctx.subresource == "status":
            keep_all_but(ctx.obj, ctx.old, "status")
        elif self.has_status:
            keep(ctx.obj, ctx.old, "status")

    def bump_generation(self, ctx: WriteContext) -> None:
        """Count a change of what is wanted."""
        assert ctx.old is not None
        if self.counts_generation and ctx.subresource != "status" and wanted(ctx.obj) != wanted(ctx.old):
            ctx.metadata["generation"] = ctx.old["metadata"].get("generation", 0) + 1

    def allocate(self, ctx: WriteContext) -> None:
        """Take what must be unique in the cluster (addresses, ports): fill it in and put its guards into
        `ctx.extra`."""

    def validate_create(self, ctx: WriteContext) -> Sequence[Cause]:
        """What only this kind's own rules find wrong, beyond its schema."""
        return ()

    def validate_update(self, ctx: WriteContext) -> Sequence[Cause]:
        """The same for an update."""
        return ()

    def grace_seconds(self, obj: dict[str, Any], options: DeleteOptions) -> int | None:
        """How long a deletion waits for the object's processes; None: this kind is deleted at once."""
        return None

    def prepare_delete(self, obj: dict[str, Any]) -> None:
        """Changes before it is judged whether a deletion can end at once: finalizers that the server itself adds."""

    def blocks_removal(self, obj: dict[str, Any]) -> bool:
        """Whether an object that is being deleted must stay for now, for other reasons than metadata.finalizers."""
        return False

    def begin_deletion(self, obj: dict[str, Any]) -> None:
        """What changes when deletion begins and can't end at once."""

    def release(self, obj: dict[str, Any]) -> Sequence[Mutation]:
        """Give back what `allocate` took, with the deletion."""
        return ()


def wanted(obj: dict[str, Any]) -> dict[str, Any]:
    """Everything besides identity, metadata and status."""
    return {key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "metadata", "status")}


def keep(new: dict[str, Any], old: dict[str, Any], field: str) -> None:
    """Make a top-level field what it was."""
    if field in old:
        new[field] = old[field]
    else:
        new.pop(field, None)


def keep_all_but(new: dict[str, Any], old: dict[str, Any], *fields: str) -> None:
    """Make every top-level field besides metadata and `fields` what it was."""
    for key in [key for key in new if key not in ("metadata", *fields) and key not in old]:
        del new[key]
    for key, value in old.items():
        if key not in ("metadata", *fields):
            new[key] = value
