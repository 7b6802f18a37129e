"""What upstream's own components ask for at their start, as they ask it and under their names (Kubernetes 1.36)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.integration.security.conftest import Target

# What client-go sends: protobuf if there is, else whatever comes.
ACCEPT = {"Accept": "application/vnd.kubernetes.protobuf, */*"}
METADATA = ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
METADATA_ONLY = {"Accept": f"application/vnd.kubernetes.protobuf{METADATA},application/json{METADATA},application/json"}
WATCH_LIST = (
    "watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=60"
)
LOOK_UP = "/api/v1/namespaces/kube-system/configmaps"
AUTHENTICATION = f"{LOOK_UP}?fieldSelector=metadata.name%3Dextension-apiserver-authentication"

SCHEDULER = [
    *(f"/api/v1/{name}" for name in ("namespaces", "nodes", "persistentvolumeclaims", "persistentvolumes", "services")),
    "/api/v1/pods?fieldSelector=status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed",
    "/api/v1/replicationcontrollers", "/apis/apps/v1/replicasets", "/apis/apps/v1/statefulsets",
    "/apis/policy/v1/poddisruptionbudgets", AUTHENTICATION,
    *(f"/apis/storage.k8s.io/v1/{name}" for name in ("csidrivers", "csinodes", "csistoragecapacities")),
    *(f"/apis/storage.k8s.io/v1/{name}" for name in ("storageclasses", "volumeattachments")),
    *(f"/apis/resource.k8s.io/v1/{name}" for name in ("deviceclasses", "resourceclaims", "resourceslices")),
]  # fmt: skip
PROXY = [
    "/api/v1/services?labelSelector=%21service.kubernetes.io%2Fservice-proxy-name",
    "/apis/discovery.k8s.io/v1/endpointslices?labelSelector=%21service.kubernetes.io%2Fheadless",
    "/api/v1/nodes?fieldSelector=metadata.name%3Dnode1", "/apis/networking.k8s.io/v1/servicecidrs",
]  # fmt: skip
KUBELET = [
    "/api/v1/nodes?fieldSelector=metadata.name%3Dnode1", "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode1",
    "/api/v1/services", "/apis/node.k8s.io/v1/runtimeclasses", "/apis/storage.k8s.io/v1/csidrivers",
]  # fmt: skip


async def watch_list(session: Any, path: str) -> None:
    """A watch that begins with the state, up to the mark that ends it."""
    async with session.get(f"{path}{'&' if '?' in path else '?'}{WATCH_LIST}", headers=ACCEPT) as answer:
        assert answer.status == 200, (path, await answer.text())
        async for line in answer.content:
            event = json.loads(line)
            if event["type"] == "BOOKMARK":
                assert event["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true"
                return
    raise AssertionError(f"{path} ended without its mark")


@pytest.mark.parametrize(
    ("user", "groups", "paths"),
    [
        ("system:kube-scheduler", (), SCHEDULER),
        ("system:kube-proxy", (), PROXY),
        ("system:node:node1", ("system:nodes",), KUBELET),
    ],
)
async def test_everything_that_a_component_follows(target: Target, user: str, groups: Any, paths: list[str]) -> None:
    async with target.session(target.user(user, *groups)) as session, asyncio.timeout(30):
        for path in paths:
            async with session.get(path, headers=ACCEPT) as answer:
                assert answer.status == 200, (path, await answer.text())
            await watch_list(session, path)


async def test_the_controller_manager_follows_every_resource_also_by_its_metadata_only(target: Target) -> None:
    async with target.session(target.user("system:kube-controller-manager")) as session, asyncio.timeout(60):
        async with session.get("/apis") as answer:
            groups = (await answer.json())["groups"]
        versions = [
            "/api/v1",
            *(f"/apis/{version['groupVersion']}" for group in groups for version in group["versions"]),
        ]
        seen = 0
        for version in versions:
            async with session.get(version) as answer:
                resources = (await answer.json())["resources"]
            for resource in resources:
                if "/" in resource["name"] or not {"list", "watch"} <= set(resource["verbs"]):
                    continue
                path = f"{version}/{resource['name']}"
                await watch_list(session, path)
                async with session.get(f"{path}?limit=1", headers=METADATA_ONLY) as answer:
                    assert answer.status == 200, path
                    assert (await answer.json())["kind"] == "PartialObjectMetadataList"
                seen += 1
        assert seen > 40


async def test_a_kubelet_begins_by_deleting_the_resource_slices_of_its_own_node(target: Target) -> None:
    path = "/apis/resource.k8s.io/v1/resourceslices"
    async with target.session(target.user("system:node:node1", "system:nodes")) as session:
        for selector, status in (
            ("?fieldSelector=spec.nodeName%3Dnode1", 200),
            ("?fieldSelector=spec.nodeName%3Dn2", 403),
            ("", 403),
        ):
            async with session.delete(path + selector, headers=ACCEPT) as answer:
                assert answer.status == status, await answer.text()
