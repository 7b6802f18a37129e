"""Honest compatibility: what the API takes and stores because a Kubernetes does, while nothing here acts on it. Whoever
uses it hears so in a Warning header.

The two tables are the whole truth: an entry goes when something begins to act on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        if not (found := used(ctx.obj, _TREES.get(storage, ()))):
            return
        before = {where for where, _ in used(ctx.old, _TREES[storage])}
        ctx.warnings += [f"{where}: is stored and has no effect: {why}" for where, why in found if where not in before]


Tree = Sequence[tuple[str, bool, "Tree | str"]]
"""Steps of several paths that begin alike: a field's name, whether what is below is in each item of a list, and what is
below; at a path's end, why it does nothing."""


def tree(fields: Mapping[str, str]) -> Tree:
    """A table of paths, each with why it does nothing, as a tree."""
    below: dict[str, dict[str, str]] = {}
    for path, why in fields.items():
        step, _, rest = path.partition(".")
        below.setdefault(step, {})[rest] = why
    return [
        (step.removesuffix("[]"), step.endswith("[]"), paths[""] if "" in paths else tree(paths))
        for step, paths in below.items()
    ]


_TREES = {storage: tree(fields) for storage, fields in FIELDS.items()}


def used(value: Any, wanted: Tree, path: str = "") -> list[tuple[str, str]]:
    """The places in an object at which a field of the table has a value, each with why it does nothing:
    `spec.containers[1].securityContext.windowsOptions`. All paths are looked for in one walk: most objects have none.
    """
    found: list[tuple[str, str]] = []
    if not isinstance(value, dict):
        return found
    for name, listed, below in wanted:
        inner = value.get(name)
        if inner is None:
            continue
        here = f"{path}.{name}" if path else name
        if isinstance(below, str):
            if inner not in ({}, []):
                found.append((here, below))
        elif not listed:
            found += used(inner, below, here)
        elif isinstance(inner, list):
            for index, item in enumerate(inner):
                found += used(item, below, f"{here}[{index}]")
    return found
