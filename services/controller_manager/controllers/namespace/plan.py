"""What is left in a namespace that is being deleted, said in conditions; and when it may go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from services.controller_manager.actions import with_condition
from services.controller_manager.views.cluster import Namespace

FINALIZER = "kubernetes"

# Pods go first and alone: what they mount or talk to must outlive them.
FIRST = "pods"

# How long to wait before counting again what waits for its own finalizers or grace periods.
RETRY_SECONDS = 5.0


@dataclass(slots=True)
class Contents:
    """What one pass over a namespace found.

    Objects left by resource, finalizers by how many objects carry them, and what failed.
    """

    remaining: dict[str, int] = field(default_factory=dict)
    finalizers: dict[str, int] = field(default_factory=dict)
    discovery_error: str = ""
    errors: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether nothing is left, as far as everything could be looked at."""
        return not self.remaining and not self.discovery_error and not self.errors


def must_empty(namespace: Namespace) -> bool:
    """Whether this namespace is being deleted and our finalizer still holds it."""
    return namespace.metadata.deletionTimestamp is not None and FINALIZER in namespace.spec.finalizers


def stages(resources: Sequence[str]) -> list[list[str]]:
    """Resources in the order in which they are emptied: each stage only when the one before it is gone."""
    first = [name for name in resources if name == FIRST]
    return [stage for stage in (first, [name for name in resources if name != FIRST]) if stage]


def status(namespace: Namespace, contents: Contents, now: datetime) -> dict[str, Any]:
    """The namespace's status after that pass."""
    conditions: list[dict[str, Any]] = list(namespace.status.get("conditions") or [])
    for kind, (bad, good) in _conditions(contents).items():
        value, reason, message = ("True", *bad) if bad else ("False", *good)
        conditions = with_condition(conditions, kind, value, reason, message, now)
    return {**namespace.status, "phase": "Terminating", "conditions": conditions}


def _conditions(contents: Contents) -> Mapping[str, tuple[tuple[str, str] | None, tuple[str, str]]]:
    """Type to (reason and message if it is true, or None; reason and message if it is false)."""
    discovery = contents.discovery_error
    left = contents.remaining
    held = contents.finalizers
    failed = contents.errors
    return {
        "NamespaceDeletionDiscoveryFailure": (
            ("DiscoveryFailed", f"Discovery failed for some groups, {discovery}") if discovery else None,
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        "NamespaceDeletionGroupVersionParsingFailure": (
            None,
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        "NamespaceDeletionContentFailure": (
            (
                "ContentDeletionFailed",
                f"Failed to delete all resource types, {len(failed)} remaining: {'; '.join(failed)}",
            )
            if failed
            else None,
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        "NamespaceContentRemaining": (
            ("SomeResourcesRemain", "Some resources are remaining: " + _remaining(left)) if left else None,
            ("ContentRemoved", "All content successfully removed"),
        ),
        "NamespaceFinalizersRemaining": (
            ("SomeFinalizersRemain", "Some content in the namespace has finalizers remaining: " + _held(held))
            if held
            else None,
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    }


def _remaining(left: Mapping[str, int]) -> str:
    return ", ".join(f"{resource} has {count} resource instances" for resource, count in sorted(left.items()))


def _held(held: Mapping[str, int]) -> str:
    return ", ".join(f"{name} in {count} resource instances" for name, count in sorted(held.items()))
