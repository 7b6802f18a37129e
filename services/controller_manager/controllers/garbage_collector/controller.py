"""Follows every deletable kind by its metadata, and deletes what its owners left behind."""

from __future__ import annotations

import asyncio
from typing import Any

from machinery.api import errors, kinds, objects
from machinery.api.kinds import Kind
from services.controller_manager import discovery
from services.controller_manager.actions import WARNING, Action, Emit, Plan
from services.controller_manager.controllers.garbage_collector import plan as planner
from services.controller_manager.controllers.garbage_collector.graph import FOREGROUND, ORPHAN, Graph, Node
from services.controller_manager.ownership import without_owners
from services.controller_manager.reconciler import Reconciler, reference
from services.controller_manager.views.meta import Meta, OwnerReference

# New kinds come with CustomResourceDefinitions, which are watched; this finds what comes otherwise.
_DISCOVER_SECONDS = 60.0
# A definition is served some moments after it was written.
_SETTLE_SECONDS = 0.3
_SYNC_SECONDS_MAX = 30.0
_UNKNOWN_KIND_SECONDS = 30.0
# Events own nothing, are owned by nothing, and are many.
_IGNORED = frozenset((kinds.EVENT, kinds.EVENTS_EVENT))
_JUDGE = "judge/"
_ORPHAN = "orphan/"


class UnknownKind(Exception):
    """An owner reference names a kind that nobody serves now."""


class GarbageCollector(Reconciler):
    """garbage-collector"""

    name = "garbage-collector"
    workers = 8

    def watch(self) -> None:
        """The kinds are found by discovery once this runs; definitions of new ones are watched."""
        self.graph = Graph(lambda uid: self.add(_JUDGE + uid), lambda uid: self.add(_ORPHAN + uid))
        self._kinds: dict[Kind, bool] = {}
        self._by_api: dict[tuple[str, str], Kind] = {}
        self._discover = asyncio.Event()
        self.on(kinds.CUSTOM_RESOURCE_DEFINITION, lambda old, new: self._discover.set())

    async def run(self) -> None:
        """Find the kinds, wait until they are known, and work."""
        async with asyncio.TaskGroup() as tasks:
            await self._refresh()
            try:
                await self.informers.synced(_SYNC_SECONDS_MAX)
            except TimeoutError as err:
                # Safe: an owner that is not in the graph is looked up before anything is deleted.
                self.log.warning("some kinds are not known yet", error=str(err))
            tasks.create_task(self._follow_discovery(), name="garbage collector discovery")
            await super().run()

    async def _follow_discovery(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_DISCOVER_SECONDS):
                    await self._discover.wait()
                await asyncio.sleep(_SETTLE_SECONDS)
            except TimeoutError:
                pass
            self._discover.clear()
            await self._refresh()

    async def _refresh(self) -> None:
        try:
            served = discovery.deletable((await self.env.client.discover()).resources, "watch")
        except errors.ApiError as err:
            self.log.warning("discovery failed, trying again", error=err.message)
            self._discover.set()
            return
        present = {kind for kind, _ in served} - _IGNORED
        for kind in present - self._kinds.keys():
            self._kinds[kind] = True
            self.on(kind, self._follow(kind))
        # Built-in kinds stay whatever one answer says: other controllers rely on the same informers.
        for kind in [kind for kind in self._kinds if kind not in present and kind not in kinds.BUILTIN]:
            del self._kinds[kind]
            self.informers.drop(kind)
            for uid in [node.uid for node in self.graph.nodes.values() if node.identity and node.identity.kind == kind]:
                self.graph.remove(uid)
        self._by_api = {(kind.api_version, kind.kind): kind for kind in present}

    def _follow(self, kind: Kind) -> Any:
        def on_event(old: Any, new: Any) -> None:
            if new is not None:
                self.graph.observe(kind, new.metadata)
            elif old is not None:
                self.graph.remove(old.metadata.uid)

        return on_event

    def keys(self) -> list[str]:
        """Every object that has owners."""
        return [_JUDGE + uid for uid, node in self.graph.nodes.items() if node.owners]

    async def reconcile(self, key: str) -> Plan | None:
        """Judge one object, or let go the dependents of one that is deleted without them."""
        node = self.graph.nodes.get(key.partition("/")[2])
        if node is None or node.identity is None or node.virtual:
            return None
        meta = self._meta(node)
        if meta is None:
            return None
        if key.startswith(_ORPHAN):
            return self._let_go(node, meta)
        kind = node.identity.kind
        if node.deleting_dependents:
            return self._wait_for_dependents(node, meta)
        if node.being_deleted:
            return None
        try:
            owners = {ref.uid: await self._owner_state(ref, kind, meta) for ref in meta.ownerReferences}
        except UnknownKind as err:
            self.log.info("owner of an unknown kind", kind=kind.kind, key=meta.key, owner=str(err))
            return Plan(requeue_after=_UNKNOWN_KIND_SECONDS)
        actions = planner.judge(kind, meta, owners, self.graph.dependents(node.uid))
        return Plan(actions)

    def _meta(self, node: Node) -> Meta | None:
        """The object's metadata as last seen, unless a namesake has taken its place."""
        assert node.identity is not None
        if not self.informers.known(node.identity.kind):
            return None
        obj = self.informers.lister(node.identity.kind).get(node.identity.namespace, node.identity.name)
        return obj.metadata if obj is not None and obj.metadata.uid == node.uid else None

    def _wait_for_dependents(self, node: Node, meta: Meta) -> Plan | None:
        assert node.identity is not None
        blockers = planner.blocking(node.uid, self.graph.dependents(node.uid))
        if not blockers:
            return Plan(planner.without_finalizer(node.identity.kind, meta, FOREGROUND))
        for blocker in blockers:
            if not blocker.deleting_dependents:
                self.add(_JUDGE + blocker.uid)
        return None

    def _let_go(self, node: Node, meta: Meta) -> Plan | None:
        assert node.identity is not None
        if not node.orphaning:
            return None
        actions: list[Action] = []
        for dependent in self.graph.dependents(node.uid):
            other = self._meta(dependent)
            if other is not None and dependent.identity is not None:
                actions.append(without_owners(dependent.identity.kind, other, {node.uid}))
        return Plan([*actions, *planner.without_finalizer(node.identity.kind, meta, ORPHAN)])

    async def _owner_state(self, ref: OwnerReference, kind: Kind, meta: Meta) -> planner.Owner:
        """What became of an owner. The graph is trusted where it shows a real one; absence is asked for."""
        owner = self.graph.nodes.get(ref.uid)
        if owner is not None and owner.identity is not None and not owner.virtual:
            if owner.identity.kind.namespaced and owner.identity.namespace != meta.namespace:
                await self._tell_wrong_namespace(ref, kind, meta)
                return planner.Owner.ABSENT
            return planner.Owner.WAITING if owner.deleting_dependents else planner.Owner.SOLID
        if ref.uid in self.graph.absent:
            return planner.Owner.ABSENT
        owner_kind = self._by_api.get((ref.apiVersion, ref.kind)) or self._other_version(ref)
        if owner_kind is None:
            raise UnknownKind(f"{ref.apiVersion} {ref.kind} {ref.name}")
        try:
            namespace = meta.namespace if owner_kind.namespaced else ""
            live: Any = await self.env.client.get(owner_kind, ref.name, namespace)
        except errors.NotFound:
            return self._absent(ref)
        found = objects.decode_partial(objects.encode(live)).metadata
        if found.uid != ref.uid:
            return self._absent(ref)
        if found.deletionTimestamp is not None and FOREGROUND in (found.finalizers or ()):
            return planner.Owner.WAITING
        return planner.Owner.SOLID

    def _absent(self, ref: OwnerReference) -> planner.Owner:
        self.graph.absent[ref.uid] = None
        return planner.Owner.ABSENT

    def _other_version(self, ref: OwnerReference) -> Kind | None:
        """A reference may name a version other than the one that is followed."""
        group = ref.apiVersion.rpartition("/")[0]
        return next((kind for kind in self._kinds if kind.group == group and kind.kind == ref.kind), None)

    async def _tell_wrong_namespace(self, ref: OwnerReference, kind: Kind, meta: Meta) -> None:
        text = f'ownerRef [{ref.apiVersion}/{ref.kind}, namespace: {meta.namespace}, name: {ref.name}, uid: {ref.uid}] does not exist in namespace "{meta.namespace}"'  # noqa: E501 - upstream's text
        await self.apply("", reference(kind, meta), [Emit(WARNING, "OwnerRefInvalidNamespace", text)])
