"""What a write does to an object, on a real store and without a transport."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from machinery.api import errors
from services.apiserver.admission import service_account
from services.apiserver.request import Fence
from tests.support.apiserver_core import CoreClient

POD = {"spec": {"containers": [{"name": "c", "image": "i"}]}}


def pod(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}


def deployment(name: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": POD["spec"]},
        },
    }


async def test_the_server_keeps_its_own_fields(core: CoreClient) -> None:
    made = await core.create(
        "configmaps", {"metadata": {"name": "a", "uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z"}}, "default"
    )
    assert made["metadata"]["uid"] != "mine"
    assert made["metadata"]["creationTimestamp"] > "2020"
    changed = dict(made, metadata={**made["metadata"], "creationTimestamp": "2001-01-01T00:00:00Z", "generation": 7})
    again = await core.update("configmaps", changed, "default")
    assert again["metadata"]["creationTimestamp"] == made["metadata"]["creationTimestamp"]
    assert "generation" not in again["metadata"]


async def test_a_write_that_changes_nothing_is_no_write(core: CoreClient) -> None:
    made = await core.create("configmaps", {"metadata": {"name": "a"}, "data": {"k": "v"}}, "default")
    revision = core.core.cache.revision
    again = await core.update("configmaps", {"metadata": {"name": "a"}, "data": {"k": "v"}}, "default")
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    await core.patch("configmaps", "a", {"data": {"k": "v"}}, "default")
    assert core.core.cache.revision == revision


async def test_generated_names_are_drawn_again_when_taken(core: CoreClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from services.apiserver.registry import metadata

    drawn = iter(["x", "x", "y"])
    monkeypatch.setattr(metadata, "random_suffix", lambda: next(drawn))
    names = [
        (await core.create("configmaps", {"metadata": {"generateName": "a-"}}, "default"))["metadata"]["name"]
        for _ in range(2)
    ]
    assert names == ["a-x", "a-y"]


async def test_a_stale_version_is_a_conflict_and_none_wins(core: CoreClient) -> None:
    made = await core.create("configmaps", {"metadata": {"name": "a"}, "data": {"k": "1"}}, "default")
    await core.patch("configmaps", "a", {"data": {"k": "2"}}, "default")
    with pytest.raises(errors.Conflict, match="the object has been modified"):
        await core.update("configmaps", {**made, "data": {"k": "3"}}, "default")
    del made["metadata"]["resourceVersion"]
    assert (await core.update("configmaps", {**made, "data": {"k": "4"}}, "default"))["data"] == {"k": "4"}


async def test_concurrent_patches_all_arrive(core: CoreClient) -> None:
    await core.create("configmaps", {"metadata": {"name": "a"}}, "default")
    await asyncio.gather(*(core.patch("configmaps", "a", {"data": {f"k{n}": "v"}}, "default") for n in range(15)))
    assert len((await core.get("configmaps", "a", "default"))["data"]) == 15


async def test_status_and_spec_have_paths_of_their_own(core: CoreClient) -> None:
    made = await core.create("deployments", {**deployment("d"), "status": {"replicas": 9}}, "default", "apps")
    assert "replicas" not in made.get("status", {})
    assert made["metadata"]["generation"] == 1
    patch = {"status": {"replicas": 2, "observedGeneration": 1}, "spec": {"paused": True}}
    changed = await core.patch("deployments", "d", patch, "default", "apps", sub="status")
    assert changed["status"]["replicas"] == 2
    assert "paused" not in changed["spec"]
    assert changed["metadata"]["generation"] == 1
    changed = await core.patch("deployments", "d", patch, "default", "apps")
    assert changed["spec"]["paused"] is True
    assert changed["metadata"]["generation"] == 2


async def test_finalizers_hold_a_deleted_object(core: CoreClient) -> None:
    await core.create("configmaps", {"metadata": {"name": "a", "finalizers": ["example.com/x"]}}, "default")
    shown, gone = await core.delete("configmaps", "a", "default")
    assert not gone
    assert "deletionTimestamp" in shown["metadata"]
    with pytest.raises(errors.Invalid, match="finalizers"):
        await core.patch("configmaps", "a", {"metadata": {"finalizers": ["example.com/x", "example.com/y"]}}, "default")
    await core.patch("configmaps", "a", {"metadata": {"finalizers": None}}, "default")
    with pytest.raises(errors.NotFound):
        await core.get("configmaps", "a", "default")


@pytest.mark.parametrize(
    ("policy", "finalizers"), [("Orphan", ["orphan"]), ("Foreground", ["foregroundDeletion"]), ("Background", None)]
)
async def test_propagation_is_left_to_the_garbage_collector(
    core: CoreClient, policy: str, finalizers: list[str] | None
) -> None:
    await core.create("deployments", deployment("d"), "default", "apps")
    shown, gone = await core.delete("deployments", "d", "default", "apps", propagation_policy=policy)
    assert gone is (finalizers is None)
    assert shown["metadata"].get("finalizers") == finalizers


async def test_a_jobs_pods_are_orphaned_unless_said_otherwise(core: CoreClient) -> None:
    template = {"spec": {**POD["spec"], "restartPolicy": "Never"}}
    made = await core.create("jobs", {"metadata": {"name": "j"}, "spec": {"template": template}}, "default", "batch")
    uid = made["metadata"]["uid"]
    assert made["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    shown, gone = await core.delete("jobs", "j", "default", "batch")
    assert (gone, shown["metadata"]["finalizers"]) == (False, ["orphan"])


async def test_graceful_deletion_waits_only_for_a_kubelet(core: CoreClient) -> None:
    await core.create("pods", pod("free"), "default")
    assert (await core.delete("pods", "free", "default"))[1]
    await core.create("pods", pod("bound", nodeName="n1"), "default")
    shown, gone = await core.delete("pods", "bound", "default", grace_period_seconds=20)
    assert not gone
    assert shown["metadata"]["deletionGracePeriodSeconds"] == 20
    # Longer is not possible, shorter is.
    shown, gone = await core.delete("pods", "bound", "default", grace_period_seconds=40)
    assert shown["metadata"]["deletionGracePeriodSeconds"] == 20
    shown, gone = await core.delete("pods", "bound", "default", grace_period_seconds=5)
    assert (gone, shown["metadata"]["deletionGracePeriodSeconds"]) == (False, 5)
    assert (await core.delete("pods", "bound", "default", grace_period_seconds=0))[1]


async def test_preconditions_are_judged(core: CoreClient) -> None:
    made = await core.create("configmaps", {"metadata": {"name": "a"}}, "default")
    with pytest.raises(errors.Conflict, match="UID in precondition: other"):
        await core.delete("configmaps", "a", "default", uid="other")
    with pytest.raises(errors.Conflict, match="ResourceVersion in precondition"):
        await core.delete("configmaps", "a", "default", resource_version="1")
    assert (await core.delete("configmaps", "a", "default", uid=made["metadata"]["uid"]))[1]


async def test_a_write_of_a_former_leader_is_refused(core: CoreClient) -> None:
    lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "one", "leaseTransitions": 3}}
    await core.create("leases", lease, "default", "coordination.k8s.io")
    fence = Fence("default", "l", 3)
    await core.create("configmaps", {"metadata": {"name": "a"}}, "default", fence=fence)
    await core.patch("leases", "l", {"spec": {"leaseTransitions": 4}}, "default", "coordination.k8s.io")
    with pytest.raises(errors.Conflict, match="leadership"):
        await core.create("configmaps", {"metadata": {"name": "b"}}, "default", fence=fence)


async def test_a_dry_run_commits_nothing(core: CoreClient) -> None:
    revision = core.core.cache.revision
    shown = await core.create(
        "services", {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}, "default", dry_run=True
    )
    assert shown["spec"]["clusterIP"]
    assert core.core.cache.revision == revision


async def test_the_past_can_be_asked(core: CoreClient) -> None:
    made = await core.create("configmaps", {"metadata": {"name": "a"}, "data": {"k": "1"}}, "default")
    await core.patch("configmaps", "a", {"data": {"k": "2"}}, "default")
    then = await core.get("configmaps", "a", "default", at_revision=int(made["metadata"]["resourceVersion"]))
    assert then["data"] == {"k": "1"}


async def test_both_event_groups_show_one_event(core: CoreClient) -> None:
    event = {
        "metadata": {"name": "e"},
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        "note": "hello", "reason": "R", "type": "Normal", "action": "A",
        "reportingController": "c", "reportingInstance": "i",
        "eventTime": "2026-01-01T00:00:00.000000Z",
    }  # fmt: skip
    await core.create("events", event, "default", "events.k8s.io")
    assert (await core.get("events", "e", "default"))["message"] == "hello"
    assert (await core.get("events", "e", "default", "events.k8s.io"))["note"] == "hello"
    found = await core.list("events", "default", "events.k8s.io", field_selector="regarding.name=p")
    assert len(found.items) == 1
    assert b'"note":"hello"' in found.items[0]


async def test_both_autoscaler_versions_show_one_autoscaler(core: CoreClient) -> None:
    row = core.core.registry.resolve("autoscaling", "v1", "horizontalpodautoscalers")
    from services.apiserver.request import SYSTEM, Request, WriteOptions

    body = {
        "metadata": {"name": "h"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
            "maxReplicas": 3,
            "targetCPUUtilizationPercentage": 50,
        },
    }
    await core.core.handlers.create(Request(SYSTEM, "create", row, "", "default"), body, WriteOptions())
    shown = await core.get("horizontalpodautoscalers", "h", "default", "autoscaling")
    assert shown["apiVersion"] == "autoscaling/v2"
    assert shown["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 50


async def test_a_pod_waits_for_the_account_that_its_new_namespace_is_about_to_get(core: CoreClient) -> None:
    await core.create("namespaces", {"metadata": {"name": "new"}})
    creating = asyncio.create_task(core.create("pods", pod("p"), "new"))
    await core.create("configmaps", {"metadata": {"name": "another"}}, "new")
    assert not creating.done()
    await core.create("serviceaccounts", {"metadata": {"name": "default"}}, "new")
    made = await creating
    assert made["spec"]["serviceAccountName"] == "default"


async def test_a_pod_whose_account_never_comes_is_refused(core: CoreClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_account, "DEFAULT_SECONDS_MAX", 0.05)
    await core.create("namespaces", {"metadata": {"name": "new"}})
    with pytest.raises(errors.Forbidden, match='serviceaccount "default" not found'):
        await core.create("pods", pod("p"), "new")


async def test_a_mirror_pod_waits_for_no_account(core: CoreClient) -> None:
    """It may have none: a node's static pods are seen before there is a controller that makes any."""
    await core.create("namespaces", {"metadata": {"name": "new"}})
    mirror = pod("p", nodeName="n")
    mirror["metadata"]["annotations"] = {service_account.MIRROR: "hash"}
    async with asyncio.timeout(service_account.DEFAULT_SECONDS_MAX / 2):
        made = await core.create("pods", mirror, "new")
    assert "serviceAccountName" not in made["spec"]
