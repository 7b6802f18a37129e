"""Keeps an APIService for every group and version that is served here, as clients that look for APIs there expect.

Those of the built-in groups and those of custom resources come and go with what the registry serves. One that is
deleted or changed comes back as it was; one without our label is somebody else's and is left alone. Every apiserver
does this; the writes are idempotent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from machinery.api import errors
from services.apiserver import codec
from services.apiserver.deletion import Deleter
from services.apiserver.reconcile import Reconciler
from services.apiserver.registry.custom_definitions import set_condition
from services.apiserver.registry.resource import Registry, Resource
from services.apiserver.request import SYSTEM, DeleteOptions, Request, WriteOptions
from services.apiserver.watch_cache import WatchCache
from services.apiserver.writes import Writer

GROUP = "apiregistration.k8s.io"
STORAGE = f"apiservices.{GROUP}"
AUTOMANAGED = "kube-aggregator.kubernetes.io/automanaged"
BUILT_IN, CUSTOM = "onstart", "true"
"""The label's values, by upstream's names: what it makes once at its start, and what it keeps in step."""
CUSTOM_PRIORITIES = (1000, 100)
METRICS, METRICS_VERSION = "metrics.k8s.io", "v1beta1"
"""Answered by the REST front, from no stored objects. Where somebody installs a metrics server, its APIService must
not be put back.
"""

PRIORITIES = {
    "": (18000, 1),
    "apps": (17800, 15),
    "events.k8s.io": (17750, 15),
    "authentication.k8s.io": (17700, 15),
    "authorization.k8s.io": (17600, 15),
    "autoscaling": (17500, 15),
    "batch": (17400, 15),
    "certificates.k8s.io": (17300, 15),
    "networking.k8s.io": (17200, 15),
    "policy": (17100, 15),
    "rbac.authorization.k8s.io": (17000, 15),
    "storage.k8s.io": (16800, 15),
    "apiextensions.k8s.io": (16700, 15),
    "admissionregistration.k8s.io": (16700, 15),
    "scheduling.k8s.io": (16600, 15),
    "coordination.k8s.io": (16500, 15),
    "node.k8s.io": (16300, 15),
    "discovery.k8s.io": (16200, 15),
    "resource.k8s.io": (16200, 21),
    "flowcontrol.apiserver.k8s.io": (16100, 21),
    "storagemigration.k8s.io": (15800, 9),
    METRICS: (100, 100),
}
"""(groupPriorityMinimum, versionPriority) of each built-in group: upstream's numbers, by which clients sort."""
_VERSION_PRIORITIES = {"autoscaling/v2": 30}
_UNLISTED = (GROUP,)
"""Upstream has no APIService for the group of APIServices itself."""
_OPTIONS = WriteOptions(field_manager="kube-apiserver", field_validation="Ignore")

Obj = dict[str, Any]


def wanted(registry: Registry) -> Iterator[Obj]:
    """The APIServices of everything that the registry serves."""
    for group in registry.groups():
        if group in _UNLISTED:
            continue
        for version in registry.versions(group):
            yield _wanted(
                group, version, custom=any(row.custom is not None for row in registry.in_version(group, version))
            )
    yield _wanted(METRICS, METRICS_VERSION, custom=False)


def _wanted(group: str, version: str, *, custom: bool) -> Obj:
    first, second = CUSTOM_PRIORITIES if custom else PRIORITIES.get(group, CUSTOM_PRIORITIES)
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "APIService",
        "metadata": {"name": f"{version}.{group}", "labels": {AUTOMANAGED: CUSTOM if custom else BUILT_IN}},
        "spec": {
            **({"group": group} if group else {}),
            "version": version,
            "groupPriorityMinimum": first,
            "versionPriority": _VERSION_PRIORITIES.get(f"{group}/{version}", second),
        },
    }


def needs(present: Obj | None, should: Obj) -> str:
    """What an APIService needs: "create", "update" or nothing."""
    if present is None:
        return "create"
    if AUTOMANAGED not in (present["metadata"].get("labels") or {}) or should["spec"].get("group") == METRICS:
        return ""
    return "update" if present["spec"] != should["spec"] else ""


def local(present: Obj) -> bool:
    """Whether it has been said that this server answers for it."""
    conditions = (present.get("status") or {}).get("conditions") or ()
    return any(item.get("type") == "Available" and item.get("reason") == "Local" for item in conditions)


class Registrations:
    """Follows the registry and the APIServices."""

    def __init__(self, registry: Registry, cache: WatchCache, writer: Writer, deleter: Deleter) -> None:
        self._registry = registry
        self._cache = cache
        self._writer = writer
        self._deleter = deleter
        self.reconciler = Reconciler("APIServices", self._ensure)

    def follow(self) -> None:
        """Hear of what comes and goes from now on."""
        self._registry.on_change(self.reconciler.wake)
        self._cache.of(STORAGE).listeners.append(self.reconciler.wake)

    def complete(self) -> bool:
        """Whether everything that is served here has its APIService."""
        cache = self._cache.of(STORAGE)
        return all(cache.get("", obj["metadata"]["name"]) is not None for obj in wanted(self._registry))

    def all_told(self) -> bool:
        """Whether it has been said of all that are served here."""
        present = (codec.decode(entry.value) for entry in self._cache.of(STORAGE).listed(""))
        return all(obj["spec"].get("service") or local(obj) for obj in present)

    async def _ensure(self) -> None:
        """Create, correct and remove what is ours: together, so that they share commits."""
        row = self._registry.resolve(GROUP, "v1", "apiservices")
        should = {obj["metadata"]["name"]: obj for obj in wanted(self._registry)}
        present = {entry.name: codec.decode(entry.value) for entry in self._cache.of(STORAGE).listed("")}
        gone = [
            obj
            for name, obj in present.items()
            if name not in should and (obj["metadata"].get("labels") or {}).get(AUTOMANAGED) == CUSTOM
        ]
        await asyncio.gather(
            *(self._put(row, present.get(name), obj) for name, obj in should.items()),
            *(self._remove(row, obj) for obj in gone),
        )
        kept = [codec.decode(entry.value) for entry in self._cache.of(STORAGE).listed("")]
        await asyncio.gather(
            *(self._tell(row, obj) for obj in kept if not obj["spec"].get("service") and not local(obj))
        )

    async def _put(self, row: Resource, present: Obj | None, should: Obj) -> None:
        row.schema.default(should)
        need = needs(present, should)
        try:
            if need == "create":
                req = Request(SYSTEM, "create", row, user_agent="kube-apiserver")
                await self._writer.create(req, should, _OPTIONS)
            elif need == "update":
                assert present is not None
                req = Request(SYSTEM, "update", row, "", "", present["metadata"]["name"], "kube-apiserver")
                await self._writer.update(req, {**present, "spec": should["spec"]}, _OPTIONS)
        except (errors.AlreadyExists, errors.Conflict, errors.NotFound):
            # Another apiserver or a person was first; we hear of it and look again.
            return

    async def _remove(self, row: Resource, obj: Obj) -> None:
        metadata = obj["metadata"]
        req = Request(SYSTEM, "delete", row, "", "", metadata["name"], "kube-apiserver")
        try:
            await self._deleter.delete(req, DeleteOptions(uid=metadata["uid"]))
        except (errors.NotFound, errors.Conflict):
            return

    async def _tell(self, row: Resource, obj: Obj) -> None:
        status: Obj = {"conditions": [dict(item) for item in (obj.get("status") or {}).get("conditions") or ()]}
        set_condition(status, "Available", "True", "Local", "Local APIServices are always available")
        req = Request(SYSTEM, "patch", row, "status", "", obj["metadata"]["name"], "kube-apiserver")
        try:
            await self._writer.patch(req, "merge", {"status": status}, _OPTIONS)
        except (errors.NotFound, errors.Conflict):
            return
