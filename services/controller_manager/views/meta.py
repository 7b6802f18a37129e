"""What every object has: identity, labels, owners, and the life-cycle marks that controllers act on."""

from __future__ import annotations

from datetime import datetime

import msgspec

# Shared by every object that has none, which is most of them. Views are never changed in place.
_NOTHING: dict[str, str] = {}


def nothing() -> dict[str, str]:
    """The one empty map that objects without labels, annotations or status share."""
    return _NOTHING


class View(msgspec.Struct, frozen=True, gc=False):
    """Base of every view. No view ever refers back to its owner, so the cycle collector need not look at them."""


class OwnerReference(View, frozen=True, gc=False):
    apiVersion: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None
    blockOwnerDeletion: bool | None = None


class Meta(View, frozen=True, gc=False):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""
    generateName: str = ""
    generation: int = 0
    labels: dict[str, str] = msgspec.field(default_factory=nothing)
    annotations: dict[str, str] = msgspec.field(default_factory=nothing)
    ownerReferences: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()
    creationTimestamp: datetime | None = None
    deletionTimestamp: datetime | None = None
    deletionGracePeriodSeconds: int | None = None

    @property
    def key(self) -> str:
        """ "namespace/name", or "name" for a cluster-scoped object."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def revision(self) -> int:
        """resourceVersion as a number; 0 for an object that was never stored."""
        return int(self.resourceVersion or 0)

    @property
    def controller(self) -> OwnerReference | None:
        """The owner that manages this object."""
        return next((owner for owner in self.ownerReferences if owner.controller), None)


class Partial(View, frozen=True, gc=False):
    """Any object of any kind, by its metadata alone."""

    apiVersion: str = ""
    kind: str = ""
    metadata: Meta = Meta()


class LabelSelectorRequirement(View, frozen=True, gc=False):
    key: str
    operator: str
    values: tuple[str, ...] = ()


class LabelSelector(View, frozen=True, gc=False):
    """metav1.LabelSelector. Built once when the object is decoded, matched often."""

    matchLabels: dict[str, str] = msgspec.field(default_factory=nothing)
    matchExpressions: tuple[LabelSelectorRequirement, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether it selects everything."""
        return not self.matchLabels and not self.matchExpressions

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether an object with these labels is selected. An unknown operator selects nothing."""
        for key, value in self.matchLabels.items():
            if labels.get(key) != value:
                return False
        return all(_satisfied(requirement, labels) for requirement in self.matchExpressions)


def _satisfied(requirement: LabelSelectorRequirement, labels: dict[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value is not None and value in requirement.values
        case "NotIn":
            return value is None or value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    return False


class Condition(View, frozen=True, gc=False):
    """A status condition of any kind; the times that some kinds add are optional."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    lastTransitionTime: datetime | None = None
    lastUpdateTime: datetime | None = None
    lastHeartbeatTime: datetime | None = None
    lastProbeTime: datetime | None = None
    observedGeneration: int | None = None


def condition(conditions: tuple[Condition, ...], kind: str) -> Condition | None:
    """The condition of that type."""
    return next((entry for entry in conditions if entry.type == kind), None)
