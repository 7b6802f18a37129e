"""What every implementation of the ApiServer contract promises: tests over a fixture `client` (an ApiClient).

A test module subclasses it, and provides `client` and `namespace` (one that exists and is the test's own):

    class TestFake(ApiServerContract): ...
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from machinery.api import errors, kinds
from machinery.client.api_client import ApiClient, Fence, Mutation, PatchType, WriteOptions


def config_map(name: str, data: dict[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, **metadata},
        "data": data or {"k": "v"},
    }


def pod(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "registry.example/web:1"}], **spec},
    }


def deployment(name: str, replicas: int = 2) -> dict[str, Any]:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod(name)["spec"]},
        },
    }


async def next_events(watch: Any, count: int) -> list[tuple[str, Any]]:
    """The next `count` events of a watch; bookmarks are skipped."""
    events: list[tuple[str, Any]] = []
    async with asyncio.timeout(10):
        while len(events) < count:
            events += (await anext(watch)).events
    return events


class ApiServerContract:
    """See the module's docstring."""

    # --- objects ------------------------------------------------------------------------------------------------------

    async def test_a_created_object_is_read_back_as_it_was_answered(self, client: ApiClient, namespace: str) -> None:
        made = await client.create(kinds.CONFIG_MAP, config_map("a", labels={"x": "y"}), namespace)
        assert made.metadata.uid
        assert int(made.metadata.resourceVersion) > 0
        assert made.metadata.creationTimestamp is not None
        assert made.metadata.namespace == namespace
        assert await client.get(kinds.CONFIG_MAP, "a", namespace) == made

    async def test_an_absent_object_is_not_found_by_name(self, client: ApiClient, namespace: str) -> None:
        with pytest.raises(errors.NotFound) as caught:
            await client.get(kinds.CONFIG_MAP, "absent", namespace)
        assert caught.value.message == 'configmaps "absent" not found'
        assert (caught.value.code, caught.value.name, caught.value.resource) == (404, "absent", "configmaps")

    async def test_an_unknown_resource_is_not_found(self, client: ApiClient, namespace: str) -> None:
        with pytest.raises(errors.NotFound):
            await client.get(kinds.Kind("nobody.example", "v1", "Nothing", "nothings"), "a", namespace)

    async def test_creating_twice_is_refused(self, client: ApiClient, namespace: str) -> None:
        await client.create(kinds.CONFIG_MAP, config_map("a"), namespace)
        with pytest.raises(errors.AlreadyExists):
            await client.create(kinds.CONFIG_MAP, config_map("a"), namespace)

    async def test_generate_name_makes_distinct_names(self, client: ApiClient, namespace: str) -> None:
        obj = config_map("")
        obj["metadata"] = {"generateName": "made-"}
        names = {(await client.create(kinds.CONFIG_MAP, obj, namespace)).metadata.name for _ in range(5)}
        assert len(names) == 5
        assert all(name.startswith("made-") and len(name) == 10 for name in names)

    async def test_dry_run_answers_and_commits_nothing(self, client: ApiClient, namespace: str) -> None:
        options = WriteOptions(dry_run=True)
        await client.create(kinds.CONFIG_MAP, config_map("a"), namespace, options=options)
        with pytest.raises(errors.NotFound):
            await client.get(kinds.CONFIG_MAP, "a", namespace)

    async def test_revisions_grow_with_every_write(self, client: ApiClient, namespace: str) -> None:
        revisions = []
        for name in ("a", "b", "c"):
            made = await client.create(kinds.CONFIG_MAP, config_map(name), namespace)
            revisions.append(int(made.metadata.resourceVersion))
        assert revisions == sorted(set(revisions))

    # --- update -------------------------------------------------------------------------------------------------------

    async def test_an_update_of_an_old_version_conflicts(self, client: ApiClient, namespace: str) -> None:
        made = await client.create(kinds.CONFIG_MAP, config_map("a"), namespace)
        made.data = {"k": "1"}
        await client.update(kinds.CONFIG_MAP, made)
        made.data = {"k": "2"}
        with pytest.raises(errors.Conflict, match="the object has been modified"):
            await client.update(kinds.CONFIG_MAP, made)
        assert (await client.get(kinds.CONFIG_MAP, "a", namespace)).data == {"k": "1"}

    async def test_an_update_that_changes_nothing_keeps_the_revision(self, client: ApiClient, namespace: str) -> None:
        made = await client.create(kinds.CONFIG_MAP, config_map("a"), namespace)
        again = await client.update(kinds.CONFIG_MAP, made)
        assert again.metadata.resourceVersion == made.metadata.resourceVersion

    async def test_uid_and_creation_time_cannot_be_changed(self, client: ApiClient, namespace: str) -> None:
        made = await client.create(kinds.CONFIG_MAP, config_map("a"), namespace)
        body = config_map("a", {"k": "2"}, creationTimestamp="2001-01-01T00:00:00Z")
        changed = await client.update(kinds.CONFIG_MAP, body, namespace)
        assert changed.metadata.uid == made.metadata.uid
        assert changed.metadata.creationTimestamp == made.metadata.creationTimestamp

    async def test_generation_grows_with_the_spec_only(self, client: ApiClient, namespace: str) -> None:
        made = await client.create(kinds.DEPLOYMENT, deployment("d"), namespace)
        assert made.metadata.generation == 1
        labelled = await client.patch(kinds.DEPLOYMENT, "d", namespace, {"metadata": {"labels": {"a": "b"}}})
        assert labelled.metadata.generation == 1
        scaled = await client.patch(kinds.DEPLOYMENT, "d", namespace, {"spec": {"replicas": 5}})
        assert scaled.metadata.generation == 2

    async def test_status_and_spec_are_written_apart(self, client: ApiClient, namespace: str) -> None:
        await client.create(kinds.DEPLOYMENT, deployment("d"), namespace)
        status = {"spec": {"replicas": 9}, "status": {"replicas": 1, "observedGeneration": 1}}
        first = await client.patch(kinds.DEPLOYMENT, "d", namespace, status, subresource="status")
        assert (first.spec.replicas, first.status.replicas) == (2, 1)
        assert first.metadata.generation == 1
        second = await client.patch(
            kinds.DEPLOYMENT, "d", namespace, {"spec": {"replicas": 3}, "status": {"replicas": 7}}
        )
        assert (second.spec.replicas, second.status.replicas) == (3, 1)

    async def test_scale_is_read_and_written(self, client: ApiClient, namespace: str) -> None:
        await client.create(kinds.DEPLOYMENT, deployment("d"), namespace)
        scale = await client.get(kinds.DEPLOYMENT, "d", namespace, subresource="scale")
        assert (scale.kind, scale.spec.replicas, scale.status.selector) == ("Scale", 2, "app=d")
        await client.patch(kinds.DEPLOYMENT, "d", namespace, {"spec": {"replicas": 4}}, subresource="scale")
        assert (await client.get(kinds.DEPLOYMENT, "d", namespace)).spec.replicas == 4

    # --- patch --------------------------------------------------------------------------------------------------------

    async def test_a_merge_patch_sets_and_removes(self, client: ApiClient, namespace: str) -> None:
        await client.create(kinds.CONFIG_MAP, config_map("a", {"x": "1", "y": "2"}), namespace)
        changed = await client.patch(kinds.CONFIG_MAP, "a", namespace, {"data": {"x": None, "z": "3"}})
        assert changed.data == {"y": "2", "z": "3"}

    async def test_a_json_patch_applies_all_or_nothing(self, client: ApiClient, namespace: str) -> None:
        await client.create(kinds.CONFIG_MAP, config_map("a", {"x": "1"}), namespace)
        add = {"op": "add", "path": "/data/y", "value": "2"}
        changed = await client.patch(kinds.CONFIG_MAP, "a", namespace, [add], type=PatchType.JSON)
        assert changed.data == {"x": "1", "y": "2"}
        wrong = [{"op": "remove", "path": "/data/y"}, {"op": "test", "path": "/data/x", "value": "9"}]
        with pytest.raises(errors.ApiError) as caught:
            await client.patch(kinds.CONFIG_MAP, "a", namespace, wrong, type=PatchType.JSON)
        assert caught.value.code in (400, 422)
        assert (await client.get(kinds.CONFIG_MAP, "a", namespace)).data == {"x": "1", "y": "2"}

    async def test_a_strategic_patch_merges_containers_by_name(self, client: ApiClient, namespace: str) -> None:
        await client.create(kinds.DEPLOYMENT, deployment("d"), namespace)
        patch = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "registry.example/web:2"}]}}}}
        changed = await client.patch(kinds.DEPLOYMENT, "d", namespace, patch, type=PatchType.STRATEGIC)
        assert [c.image for c in changed.spec.template.spec.containers] == ["registry.example/web:2"]
        more = {"spec": {"template": {"spec": {"containers": [{"name": "e", "image": "registry.example/side:1"}]}}}}
        changed = await client.patch(kinds.DEPLOYMENT, "d", namespace, more, type=PatchType.STRATEGIC)
        assert {c.name for c in changed.spec.template.spec.containers} == {"c", "e"}

    async def test_a_strategic_patch_takes_one_consumer_out_of_a_claim(self, client: ApiClient, namespace: str) -> None:
        request = {"name": "r", "exactly": {"deviceClassName": "gpu"}}
        claim = {"metadata": {"name": "c"}, "spec": {"devices": {"requests": [request]}}}
        await client.create(kinds.RESOURCE_CLAIM, claim, namespace)
        result = {"request": "r", "driver": "gpu.example.com", "pool": "p", "device": "d"}
        consumers = [{"resource": "pods", "name": name, "uid": f"uid-{name}"} for name in ("a", "b")]
        status = {"allocation": {"devices": {"results": [result]}}, "reservedFor": consumers}
        await client.patch(kinds.RESOURCE_CLAIM, "c", namespace, {"status": status}, subresource="status")
        delete = {"status": {"reservedFor": [{"$patch": "delete", "uid": "uid-a"}]}}
        changed = await client.patch(
            kinds.RESOURCE_CLAIM, "c", namespace, delete, type=PatchType.STRATEGIC, subresource="status"
        )
        assert [consumer.name for consumer in changed.status.reservedFor] == ["b"]

    async def test_a_patch_may_carry_the_version_as_a_precondition(self, client: ApiClient, namespace: str) -> None:
        made = await client.create(kinds.CONFIG_MAP, config_map("a"), namespace)
        version = {"metadata": {"resourceVersion": made.metadata.resourceVersion}}
        await client.patch(kinds.CONFIG_MAP, "a", namespace, {**version, "data": {"k": "1"}})
        with pytest.raises(errors.Conflict):
            await client.patch(kinds.CONFIG_MAP, "a", namespace, {**version, "data": {"k": "2"}})

    # --- delete -------------------------------------------------------------------------------------------------------

    async def test_a_deleted_object_is_gone(self, client: ApiClient, namespace: str) -> None:
        await client.create(kinds.CONFIG_MAP, config_map("a"), namespace)
        assert await client.delete(kinds.CONFIG_MAP, "a", namespace) is None
        with pytest.raises(errors.NotFound):
            await client.delete(kinds.CONFIG_MAP, "a", namespace)

    async def test_a_wrong_uid_keeps_the_object(self, client: ApiClient, namespace: str) -> None:
        await client.create(kinds.CONFIG_MAP, config_map("a"), namespace)
        with pytest.raises(errors.Conflict):
            await client.delete(kinds.CONFIG_MAP, "a", namespace, uid="another")
        assert await client.get(kinds.CONFIG_MAP, "a", namespace)

    async def test_a_finalizer_holds_the_object_until_it_is_removed(self, client: ApiClient, namespace: str) -> None:
        await client.create(kinds.CONFIG_MAP, config_map("a", finalizers=["example.com/hold"]), namespace)
        ending = await client.delete(kinds.CONFIG_MAP, "a", namespace)
        assert ending.metadata.deletionTimestamp is not None
        await client.patch(kinds.CONFIG_MAP, "a", namespace, {"metadata": {"finalizers": None}})
        with pytest.raises(errors.NotFound):
            await client.get(kinds.CONFIG_MAP, "a", namespace)

    async def test_a_bound_pod_ends_gracefully(self, client: ApiClient, namespace: str) -> None:
        await client.create(kinds.POD, pod("p", nodeName="n1", terminationGracePeriodSeconds=20), namespace)
        ending = await client.delete(kinds.POD, "p", namespace)
        assert ending.metadata.deletionGracePeriodSeconds == 20
        assert (await client.get(kinds.POD, "p", namespace)).metadata.deletionTimestamp is not None
        assert await client.delete(kinds.POD, "p", namespace, grace_period_seconds=0) is None

    async def test_an_unbound_pod_is_gone_at_once(self, client: ApiClient, namespace: str) -> None:
        await client.create(kinds.POD, pod("p"), namespace)
        assert await client.delete(kinds.POD, "p", namespace) is None

    async def test_delete_collection_deletes_what_is_chosen(self, client: ApiClient, namespace: str) -> None:
        for name in ("a", "b"):
            await client.create(kinds.CONFIG_MAP, config_map(name, labels={"of": name}), namespace)
        assert await client.delete_collection(kinds.CONFIG_MAP, namespace, label_selector="of=a") == 1
        left = [obj.metadata.name for obj in await client.list(kinds.CONFIG_MAP, namespace, label_selector="of")]
        assert left == ["b"]

    # --- lists --------------------------------------------------------------------------------------------------------

    async def test_selectors_choose(self, client: ApiClient, namespace: str) -> None:
        for name, tier in (("a", "web"), ("b", "web"), ("c", "db")):
            await client.create(kinds.CONFIG_MAP, config_map(name, labels={"tier": tier}), namespace)

        async def names(**selector: str) -> list[str]:
            return [obj.metadata.name for obj in await client.list(kinds.CONFIG_MAP, namespace, **selector)]

        assert await names(label_selector="tier=web") == ["a", "b"]
        assert await names(label_selector="tier in (db)") == ["c"]
        assert await names(label_selector="tier,tier!=web") == ["c"]
        assert await names(field_selector="metadata.name=b") == ["b"]
        with pytest.raises(errors.BadRequest):
            await names(label_selector="=x")

    async def test_a_list_of_many_comes_whole(self, client: ApiClient, namespace: str) -> None:
        mutations = [
            Mutation.create(kinds.CONFIG_MAP, config_map(f"m-{i:04}", labels={"many": ""}), namespace)
            for i in range(1100)
        ]
        results = await client.batch(mutations)
        assert [result.error for result in results if result.error] == []
        listing = await client.list(kinds.CONFIG_MAP, namespace, label_selector="many")
        assert [obj.metadata.name for obj in listing] == [f"m-{i:04}" for i in range(1100)]
        assert listing.revision >= max(int(obj.metadata.resourceVersion) for obj in listing)

    async def test_the_past_can_be_read(self, client: ApiClient, namespace: str) -> None:
        made = await client.create(kinds.CONFIG_MAP, config_map("a", {"k": "1"}), namespace)
        await client.patch(kinds.CONFIG_MAP, "a", namespace, {"data": {"k": "2"}})
        then = await client.get(kinds.CONFIG_MAP, "a", namespace, at_revision=int(made.metadata.resourceVersion))
        assert then.data == {"k": "1"}

    # --- watches ------------------------------------------------------------------------------------------------------

    async def test_a_watch_begins_with_the_state_then_tells_changes(self, client: ApiClient, namespace: str) -> None:
        await client.create(kinds.CONFIG_MAP, config_map("a", labels={"w": ""}), namespace)
        watch = client.watch(kinds.CONFIG_MAP, namespace, label_selector="w")
        initial, ended = [], False
        async with asyncio.timeout(10):
            while not ended:
                batch = await anext(watch)
                initial += batch.events
                ended = batch.initial_events_end
        assert [(type, obj.metadata.name) for type, obj in initial] == [("ADDED", "a")]
        await client.create(kinds.CONFIG_MAP, config_map("b", labels={"w": ""}), namespace)
        await client.patch(kinds.CONFIG_MAP, "a", namespace, {"data": {"k": "2"}})
        await client.delete(kinds.CONFIG_MAP, "a", namespace)
        events = await next_events(watch, 3)
        told = [(type, obj.metadata.name) for type, obj in events]
        assert told == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "a")]
        revisions = [int(obj.metadata.resourceVersion) for _, obj in events]
        assert revisions == sorted(set(revisions))
        await watch.aclose()

    async def test_a_watch_goes_on_after_a_revision(self, client: ApiClient, namespace: str) -> None:
        first = await client.create(kinds.CONFIG_MAP, config_map("a"), namespace)
        await client.create(kinds.CONFIG_MAP, config_map("b"), namespace)
        watch = client.watch(kinds.CONFIG_MAP, namespace, after_revision=int(first.metadata.resourceVersion))
        assert [obj.metadata.name for _, obj in await next_events(watch, 1)] == ["b"]
        await watch.aclose()

    async def test_leaving_a_selection_is_a_deletion(self, client: ApiClient, namespace: str) -> None:
        made = await client.create(kinds.CONFIG_MAP, config_map("a", labels={"w": "in"}), namespace)
        after = int(made.metadata.resourceVersion)
        watch = client.watch(kinds.CONFIG_MAP, namespace, label_selector="w=in", after_revision=after)
        await client.patch(kinds.CONFIG_MAP, "a", namespace, {"metadata": {"labels": {"w": "out"}}})
        await client.patch(kinds.CONFIG_MAP, "a", namespace, {"metadata": {"labels": {"w": "in"}}})
        assert [type for type, _ in await next_events(watch, 2)] == ["DELETED", "ADDED"]
        await watch.aclose()

    async def test_a_watch_of_one_node_sees_its_pods_only(self, client: ApiClient, namespace: str) -> None:
        watch = client.watch(kinds.POD, field_selector=f"spec.nodeName={namespace}")
        await client.create(kinds.POD, pod("p"), namespace)
        await client.create(kinds.POD, pod("q", nodeName=namespace), namespace)
        target = {"apiVersion": "v1", "kind": "Node", "name": namespace}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": target}
        await client.create(kinds.POD, binding, namespace, name="p", subresource="binding")
        events = await next_events(watch, 2)
        assert sorted((type, obj.metadata.name) for type, obj in events) == [("ADDED", "p"), ("ADDED", "q")]
        await watch.aclose()

    # --- bindings, batches, fences ------------------------------------------------------------------------------------

    async def test_a_pod_is_bound_once(self, client: ApiClient, namespace: str) -> None:
        await client.create(kinds.POD, pod("p"), namespace)

        def bind(node: str) -> Mutation:
            target = {"apiVersion": "v1", "kind": "Node", "name": node}
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": target}
            return Mutation.create(kinds.POD, binding, namespace, name="p", subresource="binding")

        first, second = await client.batch([bind("n1"), bind("n2")])
        assert first.error is None
        assert isinstance(second.error, errors.Conflict)
        bound = await client.get(kinds.POD, "p", namespace)
        assert bound.spec.nodeName == "n1"
        assert [c.status for c in bound.status.conditions if c.type == "PodScheduled"] == ["True"]

    async def test_a_batch_judges_each_mutation_by_itself(self, client: ApiClient, namespace: str) -> None:
        results = await client.batch(
            [
                Mutation.create(kinds.CONFIG_MAP, config_map("a"), namespace),
                Mutation.create(kinds.CONFIG_MAP, config_map("a"), namespace),
                Mutation.patch(kinds.CONFIG_MAP, "a", namespace, {"data": {"k": "9"}}),
                Mutation.delete(kinds.CONFIG_MAP, "absent", namespace),
            ],
            omit_objects=False,
        )
        assert [type(result.error) for result in results] == [
            type(None),
            errors.AlreadyExists,
            type(None),
            errors.NotFound,
        ]
        assert results[2].object.data == {"k": "9"}

    async def test_a_fenced_write_needs_its_epoch(self, client: ApiClient, namespace: str) -> None:
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "leader"},
            "spec": {"holderIdentity": "one", "leaseTransitions": 1, "leaseDurationSeconds": 15},
        }
        await client.create(kinds.LEASE, lease, namespace)
        leader = client.fenced(Fence(namespace, "leader", 1))
        await leader.create(kinds.CONFIG_MAP, config_map("a"), namespace)
        await client.patch(kinds.LEASE, "leader", namespace, {"spec": {"holderIdentity": "two", "leaseTransitions": 2}})
        with pytest.raises(errors.Conflict):
            await leader.create(kinds.CONFIG_MAP, config_map("b"), namespace)
        [result] = await leader.batch([Mutation.patch(kinds.CONFIG_MAP, "a", namespace, {"data": {"k": "stale"}})])
        assert isinstance(result.error, errors.Conflict)
        assert (await client.get(kinds.CONFIG_MAP, "a", namespace)).data == {"k": "v"}

    async def test_a_lease_made_anew_does_not_revive_the_fences_of_the_one_before(
        self, client: ApiClient, namespace: str
    ) -> None:
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "leader"},
            "spec": {"holderIdentity": "one", "leaseTransitions": 1, "leaseDurationSeconds": 15},
        }
        first = await client.create(kinds.LEASE, lease, namespace)
        former = client.fenced(Fence(namespace, "leader", 1, first.metadata.uid))
        await former.create(kinds.CONFIG_MAP, config_map("a"), namespace)
        await client.delete(kinds.LEASE, "leader", namespace)
        with pytest.raises(errors.Conflict):
            await former.create(kinds.CONFIG_MAP, config_map("b"), namespace)
        second = await client.create(kinds.LEASE, lease, namespace)
        with pytest.raises(errors.Conflict):
            await former.create(kinds.CONFIG_MAP, config_map("b"), namespace)
        await client.fenced(Fence(namespace, "leader", 1, second.metadata.uid)).create(
            kinds.CONFIG_MAP, config_map("b"), namespace
        )

    async def test_discovery_names_what_is_served(self, client: ApiClient) -> None:
        answer = await client.discover()
        served = {(r.resource.group, r.resource.resource): r for r in answer.resources}
        assert answer.version.startswith("v1.37")
        assert served["", "pods"].kind == "Pod"
        assert served["", "pods"].namespaced
        assert not served["", "nodes"].namespaced
        assert "watch" in served["apps", "deployments"].verbs
