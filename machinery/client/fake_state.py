"""The fake apiserver's state and semantics, without any transport: what a write does to the objects and to the log.

It knows what controllers depend on: revisions, uids, generations, status kept apart, graceful deletion, finalizers,
preconditions, fences, bindings. It validates nothing, defaults nothing, admits everything.
"""

from __future__ import annotations

import copy
import random
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from machinery.api import errors, kinds, objects, selectors
from machinery.api.kinds import Kind
from machinery.client import fake_patch
from protos.cutaway.v1 import apiserver_pb2, object_pb2

Key = tuple[str, str, str]
"""(resource, namespace, name); resource as "deployments.apps"."""

POD_GRACE_SECONDS = 30


class Change(NamedTuple):
    """One entry of the log.

    `old` is None for a creation, `new` for a deletion; `last` is a deleted object's final state.
    """

    revision: int
    kind: Kind
    key: Key
    old: dict[str, Any] | None
    new: dict[str, Any] | None
    last: dict[str, Any]


class State:
    """Objects, the revision counter and the log. Objects in it are never changed in place."""

    def __init__(self, now: Callable[[], datetime] = objects.now) -> None:
        self.now = now
        self.revision = 0
        self.compacted = 0
        self.log: list[Change] = []
        self._objects: dict[Key, dict[str, Any]] = {}
        self._served: dict[tuple[str, str], Kind] = {}
        for kind in kinds.BUILTIN:
            # Where a group has several versions the last one wins, as autoscaling/v2 does.
            self._served[kind.group, kind.plural] = kind

    def serve(self, kind: Kind) -> None:
        """Also serve a custom kind."""
        self._served[kind.group, kind.plural] = kind

    def resolve(self, ref: object_pb2.ResourceRef) -> Kind:
        """The kind of a reference. Raises NotFound."""
        kind = kinds.by_plural(ref.group, ref.version, ref.resource) or self._served.get((ref.group, ref.resource))
        if kind is None:
            raise errors.NotFound("the server could not find the requested resource")
        return kind

    def served(self) -> list[Kind]:
        """Every kind, one version each."""
        return list(self._served.values())

    # --- reading ------------------------------------------------------------------------------------------------------

    def get(self, kind: Kind, namespace: str, name: str, *, at_revision: int = 0) -> dict[str, Any]:
        """One object. Raises NotFound."""
        self._check_scope(kind, namespace)
        found = self._at(at_revision).get((kind.resource, namespace, name))
        if found is None:
            raise errors.not_found(kind.group, kind.plural, name)
        return found

    def list(
        self, kind: Kind, namespace: str, chosen: Callable[[Any], bool], at_revision: int = 0
    ) -> list[dict[str, Any]]:
        """Objects in key order."""
        return [
            obj
            for (resource, where, _), obj in sorted(self._at(at_revision).items(), key=lambda item: item[0])
            if resource == kind.resource and (not namespace or where == namespace) and chosen(obj)
        ]

    def _at(self, revision: int) -> dict[Key, dict[str, Any]]:
        if not revision or revision == self.revision:
            return self._objects
        if revision > self.revision:
            raise errors.Timeout(f"Too large resource version: {revision}, current: {self.revision}")
        if revision < self.compacted:
            raise errors.Expired(f"The provided resource version {revision} is too old, oldest: {self.compacted}")
        # Undo the log from the present backwards: what was there before each later change.
        past = dict(self._objects)
        for change in reversed(self.log):
            if change.revision <= revision:
                break
            if change.old is None:
                past.pop(change.key, None)
            else:
                past[change.key] = change.old
        return past

    def _check_scope(self, kind: Kind, namespace: str) -> None:
        if kind.namespaced and not namespace:
            raise errors.BadRequest(f"an empty namespace may not be set for a {kind.kind}")
        if not kind.namespaced and namespace:
            raise errors.BadRequest(f"{kind.kind} is cluster-scoped and has no namespace")

    # --- writing ------------------------------------------------------------------------------------------------------

    def create(self, kind: Kind, namespace: str, obj: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Create an object. Raises AlreadyExists, Invalid."""
        obj = copy.deepcopy(obj)
        metadata = obj.setdefault("metadata", {})
        namespace = namespace or metadata.get("namespace") or ""
        self._check_scope(kind, namespace)
        if not metadata.get("name"):
            if not metadata.get("generateName"):
                cause = errors.Cause(
                    "FieldValueRequired", "Required value: name or generateName is required", "metadata.name"
                )
                raise errors.invalid(kind.group, kind.kind, "", [cause])
            suffix = "".join(random.choices("bcdfghjklmnpqrstvwxz2456789", k=5))  # noqa: S311
            metadata["name"] = metadata["generateName"] + suffix
        if (kind.resource, namespace, metadata["name"]) in self._objects:
            raise errors.already_exists(kind.group, kind.plural, metadata["name"])
        obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind
        if namespace:
            metadata["namespace"] = namespace
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = objects.format_time(self.now())
        metadata.pop("deletionTimestamp", None)
        if kind not in _WITHOUT_GENERATION:
            metadata["generation"] = 1
        if kind == kinds.POD:
            obj["status"] = {"phase": "Pending"}
        return self._commit(kind, None, obj, dry_run)

    def update(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        obj: dict[str, Any],
        subresource: str = "",
        *,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Replace an object, its status or its scale. Raises NotFound, Conflict."""
        old = self.get(kind, namespace, name)
        if subresource == "scale":
            obj = {**old, "spec": {**old["spec"], "replicas": obj.get("spec", {}).get("replicas", 0)}}
            return scale_of(kind, self.update(kind, namespace, name, obj, dry_run=dry_run))
        sent = obj.get("metadata") or {}
        version, uid = sent.get("resourceVersion"), sent.get("uid")
        if version and version != old["metadata"]["resourceVersion"]:
            why = "the object has been modified; please apply your changes to the latest version and try again"
            raise errors.conflict(kind.group, kind.plural, name, why)
        if uid and uid != old["metadata"]["uid"]:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old['metadata']['uid']}"
            raise errors.conflict(kind.group, kind.plural, name, why)
        if subresource == "status":
            new = {**old, "status": copy.deepcopy(obj.get("status", {}))}
        else:
            new = self._replaced(kind, old, copy.deepcopy(obj))
        if _same(old, new):
            return old
        metadata = new["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers") and _may_go(kind, new):
            return self._remove(kind, new, dry_run)
        return self._commit(kind, old, new, dry_run)

    def _replaced(self, kind: Kind, old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
        was = old["metadata"]
        metadata = new.setdefault("metadata", {})
        for field in ("name", "namespace", "uid", "creationTimestamp", "resourceVersion", "generation",
                      "deletionTimestamp", "deletionGracePeriodSeconds", "generateName"):  # fmt: skip
            metadata.pop(field, None)
            if field in was:
                metadata[field] = was[field]
        new["apiVersion"], new["kind"] = old["apiVersion"], old["kind"]
        if kind not in _STATUS_IN_PLACE:
            new.pop("status", None)
            if "status" in old:
                new["status"] = old["status"]
        ignored = ("metadata", "status")
        changed = {k: v for k, v in old.items() if k not in ignored} != {
            k: v for k, v in new.items() if k not in ignored
        }
        if changed and "generation" in was:
            metadata["generation"] = was["generation"] + 1
        return new

    def patch(
        self, kind: Kind, namespace: str, name: str, patch_type: int, patch: bytes, subresource: str, *, dry_run: bool
    ) -> dict[str, Any]:
        """Change part of an object. Raises NotFound, Invalid, Conflict; MethodNotAllowed for server-side apply."""
        old = self.get(kind, namespace, name)
        target = scale_of(kind, old) if subresource == "scale" else old
        # The version of the object that was read is no precondition; one that the patch sets is.
        base = {**target, "metadata": {k: v for k, v in target["metadata"].items() if k != "resourceVersion"}}
        types = apiserver_pb2.PatchRequest
        try:
            change = msgspec.json.decode(patch)
        except msgspec.DecodeError as err:
            raise errors.BadRequest(f"error decoding patch: {err}") from err
        if patch_type == types.MERGE:
            new = fake_patch.merge_patch(base, change)
        elif patch_type == types.STRATEGIC:
            new = fake_patch.strategic_patch(base, change)
        elif patch_type == types.JSON:
            new = fake_patch.json_patch(base, change)
        else:
            raise errors.MethodNotAllowed("the fake apiserver does not do server-side apply")
        return self.update(kind, namespace, name, new, subresource, dry_run=dry_run)

    def create_subresource(
        self, kind: Kind, namespace: str, name: str, subresource: str, obj: dict[str, Any], *, dry_run: bool
    ) -> dict[str, Any]:
        """pods/binding and pods/eviction. Raises NotFound, Conflict, MethodNotAllowed."""
        old = self.get(kind, namespace, name)
        if kind == kinds.POD and subresource == "binding":
            node = (obj.get("target") or {}).get("name")
            present = old.get("spec", {}).get("nodeName")
            uid = (obj.get("metadata") or {}).get("uid")
            if present:
                raise errors.conflict("", "pods/binding", name, f"pod {name} is already assigned to node {present!r}")
            if uid and uid != old["metadata"]["uid"]:
                raise errors.conflict("", "pods/binding", name, "Precondition failed: UID in precondition")
            condition = {
                "type": "PodScheduled",
                "status": "True",
                "lastTransitionTime": objects.format_time(self.now()),
            }
            status = dict(old.get("status") or {})
            others = [c for c in status.get("conditions", []) if c["type"] != "PodScheduled"]
            status["conditions"] = [*others, condition]
            self._commit(
                kind, old, {**old, "spec": {**old.get("spec", {}), "nodeName": node}, "status": status}, dry_run
            )
        elif kind == kinds.POD and subresource == "eviction":
            options = obj.get("deleteOptions") or {}
            self.delete(kind, namespace, name, grace=options.get("gracePeriodSeconds"), dry_run=dry_run)
        else:
            raise errors.MethodNotAllowed(f"the fake apiserver does not create {kind.plural}/{subresource}")
        return {"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Success", "code": 201}

    def delete(
        self, kind: Kind, namespace: str, name: str, *, grace: int | None = None, propagation: str = "", uid: str = "",
        revision: int = 0, dry_run: bool = False,
    ) -> tuple[dict[str, Any], bool]:  # fmt: skip
        """Delete or begin to: (the object, whether it is gone). Raises NotFound, Conflict."""
        old = self.get(kind, namespace, name)
        metadata = old["metadata"]
        if uid and uid != metadata["uid"]:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {metadata['uid']}"
            raise errors.conflict(kind.group, kind.plural, name, why)
        if revision and str(revision) != metadata["resourceVersion"]:
            why = f"Precondition failed: ResourceVersion in precondition: {revision}"
            raise errors.conflict(kind.group, kind.plural, name, why)
        finalizers = list(metadata.get("finalizers") or [])
        for policy, finalizer in (("Foreground", "foregroundDeletion"), ("Orphan", "orphan")):
            if propagation == policy and finalizer not in finalizers:
                finalizers.append(finalizer)
        seconds = self._grace(kind, old, grace)
        if not finalizers and seconds == 0:
            return self._remove(kind, old, dry_run), True
        if metadata.get("deletionTimestamp") and metadata.get("deletionGracePeriodSeconds", 0) <= seconds:
            return old, False
        new = {**old, "metadata": {**metadata}}
        new["metadata"]["deletionTimestamp"] = objects.format_time(self.now() + timedelta(seconds=seconds))
        new["metadata"]["deletionGracePeriodSeconds"] = seconds
        if finalizers:
            new["metadata"]["finalizers"] = finalizers
        if "generation" in metadata:
            new["metadata"]["generation"] = metadata["generation"] + 1
        return self._commit(kind, old, new, dry_run), False

    def _grace(self, kind: Kind, obj: dict[str, Any], asked: int | None) -> int:
        """How long the object's processes get.

        Only pods that a node has taken, and that have not ended, get any time.
        """
        if kind != kinds.POD:
            return 0
        spec, phase = obj.get("spec") or {}, (obj.get("status") or {}).get("phase")
        if not spec.get("nodeName") or phase in ("Succeeded", "Failed"):
            return 0
        return asked if asked is not None else int(spec.get("terminationGracePeriodSeconds", POD_GRACE_SECONDS))

    def check_fence(self, fence: object_pb2.Fence) -> None:
        """Raise Conflict unless the Lease still has the fence's epoch."""
        lease = self._objects.get((kinds.LEASE.resource, fence.lease_namespace, fence.lease_name))
        epoch = (lease.get("spec") or {}).get("leaseTransitions", 0) if lease else None
        another = bool(fence.lease_uid) and lease is not None and lease["metadata"].get("uid") != fence.lease_uid
        if epoch != fence.epoch or another:
            why = f"leadership has moved: epoch {fence.epoch} is over"
            raise errors.conflict(kinds.LEASE.group, kinds.LEASE.plural, fence.lease_name, why)

    # --- the log ------------------------------------------------------------------------------------------------------

    def _commit(self, kind: Kind, old: dict[str, Any] | None, new: dict[str, Any], dry_run: bool) -> dict[str, Any]:
        metadata = new["metadata"]
        if dry_run:
            return new
        self.revision += 1
        new = {**new, "metadata": {**metadata, "resourceVersion": str(self.revision)}}
        key = (kind.resource, metadata.get("namespace", ""), metadata["name"])
        self._objects[key] = new
        self.log.append(Change(self.revision, kind, key, old, new, new))
        return new

    def _remove(self, kind: Kind, obj: dict[str, Any], dry_run: bool) -> dict[str, Any]:
        if dry_run:
            return obj
        metadata = obj["metadata"]
        key = (kind.resource, metadata.get("namespace", ""), metadata["name"])
        old = self._objects.pop(key)
        self.revision += 1
        last = {**obj, "metadata": {**metadata, "resourceVersion": str(self.revision)}}
        self.log.append(Change(self.revision, kind, key, old, None, last))
        return last

    def compact(self, revision: int) -> None:
        """Forget the log before `revision`: watches from before it get Expired."""
        self.compacted = max(self.compacted, revision)
        self.log = [change for change in self.log if change.revision >= self.compacted]


# Kinds whose specification does not count generations upstream, because they have none.
_WITHOUT_GENERATION = frozenset(
    {
        kinds.CONFIG_MAP,
        kinds.SECRET,
        kinds.EVENT,
        kinds.EVENTS_EVENT,
        kinds.ENDPOINTS,
        kinds.SERVICE_ACCOUNT,
        kinds.LEASE,
    }
)
# Kinds without a status subresource: what a plain update says about `status`, if they have one, counts.
_STATUS_IN_PLACE = _WITHOUT_GENERATION


def _may_go(kind: Kind, obj: Mapping[str, Any]) -> bool:
    return kind != kinds.POD or not obj["metadata"].get("deletionGracePeriodSeconds")


def _same(old: dict[str, Any], new: dict[str, Any]) -> bool:
    def content(obj: dict[str, Any]) -> dict[str, Any]:
        return {**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k != "resourceVersion"}}

    return content(old) == content(new)


def scale_of(kind: Kind, obj: dict[str, Any]) -> dict[str, Any]:
    """An object's Scale. Raises NotFound for a kind that has none."""
    if kind not in (kinds.DEPLOYMENT, kinds.REPLICA_SET, kinds.STATEFUL_SET, kinds.REPLICATION_CONTROLLER):
        raise errors.NotFound("the server could not find the requested resource")
    spec, status, metadata = obj.get("spec") or {}, obj.get("status") or {}, obj["metadata"]
    selector = spec.get("selector") or {}
    chosen = (
        selectors.from_labels(selector) if "matchLabels" not in selector else selectors.from_label_selector(selector)
    )
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {field: metadata[field] for field in kept if field in metadata},
        "spec": {"replicas": spec.get("replicas", 1)},
        "status": {"replicas": status.get("replicas", 0), "selector": str(chosen)},
    }


def selection(label_selector: str, field_selector: str) -> Callable[[dict[str, Any]], bool]:
    """Whether an object is chosen by both. Fields are looked up by their path, so every field is selectable here."""
    labels = selectors.parse_label_selector(label_selector)
    fields = selectors.parse_field_selector(field_selector)

    def chosen(obj: dict[str, Any]) -> bool:
        values = {r.field: _field(obj, r.field.split(".")) for r in fields.requirements}
        return labels.matches(obj["metadata"].get("labels")) and fields.matches(values)

    return chosen


def _field(node: Any, path: Iterable[str]) -> str:
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    if isinstance(node, bool):
        return str(node).lower()
    return "" if node is None else str(node)
