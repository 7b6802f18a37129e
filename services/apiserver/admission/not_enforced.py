"""Honest compatibility: what the API takes and stores because a Kubernetes does, while nothing here acts on it. Whoever
uses it hears so in a Warning header.

The two tables are the whole truth: an entry goes when something begins to act on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.apiserver.admission.chain import Plugin
from services.apiserver.write_context import WriteContext

_GROUPS = "pods are scheduled one by one, not in groups"
_CSI = "no CSI driver runs here"
_COPIES = "volumes are made empty: nothing is copied into them"
_POD: dict[str, str] = {
    "spec.schedulingGroup": _GROUPS,
    "spec.evictionResponders": "evictions go ahead without asking anybody",
    "spec.securityContext.windowsOptions": "nodes run Linux",
    "spec.securityContext.seLinuxChangePolicy": "volumes are not labelled for SELinux",
    "spec.containers[].securityContext.windowsOptions": "nodes run Linux",
    "spec.containers[].volumeMounts[].bindMountOptions": "volumes are mounted with the node's own options",
}
_CLAIM: dict[str, str] = {
    "spec.dataSource": _COPIES,
    "spec.dataSourceRef": _COPIES,
    "spec.volumeAttributesClassName": _CSI,
}

FIELDS: dict[str, dict[str, str]] = {
    "pods": _POD,
    **{
        storage: {f"spec.template.{path}": why for path, why in _POD.items()}
        for storage in (
            "deployments.apps", "daemonsets.apps", "replicasets.apps", "statefulsets.apps", "jobs.batch",
            "replicationcontrollers",
        )
    },
    "cronjobs.batch": {f"spec.jobTemplate.spec.template.{path}": why for path, why in _POD.items()},
    "persistentvolumeclaims": _CLAIM,
    "persistentvolumes": {"spec.volumeAttributesClassName": _CSI},
}  # fmt: skip
"""Storage -> path of a field -> why it does nothing. `[]` stands for every item of a list."""

KINDS: dict[str, str] = {
    "csidrivers.storage.k8s.io": _CSI,
    "csistoragecapacities.storage.k8s.io": _CSI,
    "volumeattachments.storage.k8s.io": _CSI,
    "volumeattributesclasses.storage.k8s.io": _CSI,
}
"""Storage -> why nothing acts on objects of this kind."""


class NotEnforced(Plugin):
    """Warns of fields and kinds that do nothing. It never refuses."""

    resources = frozenset((*FIELDS, *KINDS))

    def validate(self, ctx: WriteContext) -> None:
        """Warn of a created object's fields, and of those that an update brings in."""
        storage = ctx.resource.storage
        if storage in KINDS and ctx.operation == "CREATE":
            ctx.warnings.append(f"{ctx.resource.kind.kind} is stored and has no effect: {KINDS[storage]}")
            return
        old = ctx.old or {}
        if old.get("spec") == ctx.obj.get("spec"):
            return
        for path, why in FIELDS.get(storage, {}).items():
            steps = tuple(path.split("."))
            before = set(used(old, steps))
            ctx.warnings += [
                f"{where}: is stored and has no effect: {why}" for where in used(ctx.obj, steps) if where not in before
            ]


def used(value: Any, steps: tuple[str, ...], path: str = "") -> Iterator[str]:
    """The places in an object at which a field of the table has a value: `spec.containers[1].securityContext`."""
    if not steps:
        if value not in (None, {}, []):
            yield path
        return
    name = steps[0].removesuffix("[]")
    below = value.get(name) if isinstance(value, dict) else None
    if below is None:
        return
    here = f"{path}.{name}" if path else name
    if steps[0] == name:
        yield from used(below, steps[1:], here)
    elif isinstance(below, list):
        for index, item in enumerate(below):
            yield from used(item, steps[1:], f"{here}[{index}]")
