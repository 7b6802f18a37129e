"""What upstream's own components write at their start and at their work, as they write it: protobuf bodies and
strategic merge patches, under their names (read in Kubernetes 1.36: cmd/kube-*, pkg/kubelet, client-go)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.apiserver.rest.protobuf import MEDIA_TYPE, encode
from tests.integration.security.conftest import Target

ACCEPT = f"{MEDIA_TYPE}, application/json"
NOW = "2026-01-02T03:04:05Z"
PRECISE = "2026-01-02T03:04:05.000006Z"
LEASES = "/apis/coordination.k8s.io/v1/namespaces"
PODS = "/api/v1/namespaces/default/pods"


class Component:
    """One of them, by what it sends."""

    def __init__(self, session: Any) -> None:
        self._session = session

    async def ask(self, verb: str, path: str, *, accept: str = ACCEPT, status: tuple[int, ...] = (200, 201)) -> Any:
        """A request without a body; the answer as JSON."""
        return await self._send(verb, path, None, {"Accept": accept.replace(MEDIA_TYPE, "application/json")}, status)

    async def write(self, verb: str, path: str, obj: dict[str, Any], status: tuple[int, ...] = (200, 201)) -> Any:
        """A body in protobuf; the answer, in JSON to who takes both."""
        headers = {"Content-Type": MEDIA_TYPE, "Accept": ACCEPT}
        return await self._send(verb, path, encode(obj), headers, status)

    async def patch(self, path: str, change: dict[str, Any]) -> Any:
        """A strategic merge patch."""
        headers = {"Content-Type": "application/strategic-merge-patch+json", "Accept": "application/json"}
        return await self._send("PATCH", path, json.dumps(change).encode(), headers, (200,))

    async def _send(self, verb: str, path: str, data: bytes | None, headers: Any, status: tuple[int, ...]) -> Any:
        async with self._session.request(verb, path, data=data, headers=headers) as answer:
            raw = await answer.read()
            assert answer.status in status, (verb, path, answer.status, raw[:500])
        return json.loads(raw) if answer.content_type == "application/json" else raw


@asynccontextmanager
async def component(target: Target, user: str, *groups: str) -> AsyncIterator[Component]:
    async with target.session(target.user(user, *groups)) as session, asyncio.timeout(60):
        yield Component(session)


def lease(namespace: str, name: str, holder: str) -> dict[str, Any]:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": 15,
            "acquireTime": PRECISE,
            "renewTime": PRECISE,
            "leaseTransitions": 0,
        },
    }


def event(name: str, regarding: dict[str, str], controller: str) -> dict[str, Any]:
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": "default"},
        "eventTime": PRECISE,
        "reportingController": controller,
        "reportingInstance": f"{controller}-1",
        "action": "Binding",
        "reason": "Scheduled",
        "regarding": regarding,
        "note": "Successfully assigned",
        "type": "Normal",
    }


def pod(name: str, **spec: Any) -> dict[str, Any]:
    containers = [{"name": "c", "image": "example.test/image:1"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": containers, "automountServiceAccountToken": False, **spec},
    }


REVIEWS = {
    "/apis/authentication.k8s.io/v1/tokenreviews": {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": "not-a-token"},
    },
    "/apis/authorization.k8s.io/v1/subjectaccessreviews": {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": "somebody", "nonResourceAttributes": {"path": "/metrics", "verb": "get"}},
    },
}


async def delegates_authentication(who: Component) -> None:
    """What every component does whose own port asks the apiserver who a caller is."""
    for path, review in REVIEWS.items():
        await who.write("POST", path, review)


async def leads(who: Component, name: str) -> None:
    """Takes its Lease and renews it."""
    path = f"{LEASES}/kube-system/leases"
    await who.ask("GET", f"{path}/{name}", status=(200, 404))
    await who.write("POST", path, lease("kube-system", name, "one"), status=(201, 409))
    found = await who.ask("GET", f"{path}/{name}")
    held = lease("kube-system", name, "two")
    held["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
    await who.write("PUT", f"{path}/{name}", held)


@pytest.fixture
async def prepared(target: Target) -> None:
    """An account for pods, which a controller would make."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    await target.create("/api/v1/namespaces/default/serviceaccounts", account)


async def test_a_scheduler_leads_binds_tells_and_preempts(target: Target, prepared: None) -> None:
    for name in ("chosen", "victim"):
        await target.create(PODS, pod(name))
    async with component(target, "system:kube-scheduler") as scheduler:
        await scheduler.ask("GET", "/version")
        await delegates_authentication(scheduler)
        await leads(scheduler, "kube-scheduler")
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": NOW}
        await scheduler.patch(
            f"{PODS}/chosen/status", {"status": {"conditions": [condition], "nominatedNodeName": "node1"}}
        )
        chosen = await scheduler.ask("GET", f"{PODS}/chosen")
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": "chosen", "namespace": "default", "uid": chosen["metadata"]["uid"]},
            "target": {"kind": "Node", "name": "node1"},
        }
        await scheduler.write("POST", f"{PODS}/chosen/binding", binding)
        assert (await scheduler.ask("GET", f"{PODS}/chosen"))["spec"]["nodeName"] == "node1"
        events = "/apis/events.k8s.io/v1/namespaces/default/events"
        told = event("chosen.1", {"kind": "Pod", "name": "chosen", "namespace": "default"}, "default-scheduler")
        await scheduler.write("POST", events, told)
        series = {"series": {"count": 2, "lastObservedTime": PRECISE}}
        await scheduler.patch(f"{events}/chosen.1", series)
        await scheduler.write("DELETE", f"{PODS}/victim", {"apiVersion": "v1", "kind": "DeleteOptions"})


async def test_a_kubelet_registers_reports_and_runs_a_pod(target: Target, prepared: None) -> None:
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "k1", "labels": {"kubernetes.io/hostname": "k1", "kubernetes.io/os": "linux"}},
        "spec": {},
        "status": {
            "capacity": {"cpu": "2", "memory": "4Gi", "pods": "110"},
            "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"},
            "nodeInfo": {"kubeletVersion": "v1.36.0", "operatingSystem": "linux", "architecture": "amd64"},
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        },
    }
    async with component(target, "system:node:k1", "system:nodes") as kubelet:
        await delegates_authentication(kubelet)
        await kubelet.write("POST", "/api/v1/nodes", node, status=(201, 409))
        await kubelet.ask("GET", "/api/v1/nodes/k1?resourceVersion=0")
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": NOW}
        order = {"$setElementOrder/conditions": [{"type": "Ready"}], "conditions": [ready]}
        await kubelet.patch("/api/v1/nodes/k1/status", {"status": order})
        held = lease("kube-node-lease", "k1", "k1")
        await kubelet.write("POST", f"{LEASES}/kube-node-lease/leases", held, status=(201, 409))
        csi = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "CSINode",
            "metadata": {"name": "k1"},
            "spec": {"drivers": []},
        }
        await kubelet.ask("GET", "/apis/storage.k8s.io/v1/csinodes/k1", status=(200, 404))
        await kubelet.write("POST", "/apis/storage.k8s.io/v1/csinodes", csi)
        await target.create(PODS, pod("on-k1", nodeName="k1", automountServiceAccountToken=True))
        mine = await kubelet.ask("GET", f"{PODS}/on-k1")
        running = {"phase": "Running", "podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.9"}], "startTime": NOW}
        uid = {"metadata": {"uid": mine["metadata"]["uid"]}}
        await kubelet.patch(f"{PODS}/on-k1/status", {**uid, "status": running})
        token = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [],
                "expirationSeconds": 3607,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "on-k1", "uid": mine["metadata"]["uid"]},
            },
        }
        await kubelet.write("POST", "/api/v1/namespaces/default/serviceaccounts/default/token", token)
        core_event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "on-k1.1", "namespace": "default"},
            "involvedObject": {"kind": "Pod", "name": "on-k1", "namespace": "default"},
            "reason": "Started",
            "message": "Started container c",
            "type": "Normal",
            "count": 1,
            "firstTimestamp": NOW,
            "lastTimestamp": NOW,
            "source": {"component": "kubelet", "host": "k1"},
        }
        await kubelet.write("POST", "/api/v1/namespaces/default/events", core_event)
        await kubelet.patch("/api/v1/namespaces/default/events/on-k1.1", {"count": 2, "lastTimestamp": NOW})
        gone = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": mine["metadata"]["uid"]},
        }
        await kubelet.write("DELETE", f"{PODS}/on-k1", gone)


async def test_a_controller_manager_makes_accounts_and_their_tokens_and_works_as_them(target: Target) -> None:
    """With --use-service-account-credentials, as kubeadm starts it."""
    accounts = "/api/v1/namespaces/kube-system/serviceaccounts"
    async with component(target, "system:kube-controller-manager") as manager:
        assert await manager.ask("GET", "/healthz", accept="*/*") == b"ok"
        aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
        groups = await manager.ask("GET", "/apis", accept=aggregated)
        assert groups["kind"] == "APIGroupDiscoveryList"
        await delegates_authentication(manager)
        await leads(manager, "kube-controller-manager")
        name = "deployment-controller"
        await manager.ask("GET", f"{accounts}/{name}", status=(200, 404))
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "kube-system"}}
        await manager.write("POST", accounts, account, status=(201, 409))
        wanted = {"spec": {"audiences": [], "expirationSeconds": 3600}}
        headers = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        issued = await manager.write("POST", f"{accounts}/{name}/token", headers | wanted)
    deployments = "/apis/apps/v1/namespaces/default/deployments"
    labels = {"matchLabels": {"a": "b"}}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    made = {"apiVersion": "apps/v1", "metadata": {"name": "d", "namespace": "default"}}
    await target.create(
        deployments, {**made, "kind": "Deployment", "spec": {"replicas": 1, "selector": labels, "template": template}}
    )
    bearer = {"Authorization": f"Bearer {issued['status']['token']}"}
    async with target.session(None, **bearer) as session, asyncio.timeout(60):
        controller = Component(session)
        found = await controller.ask("GET", f"{deployments}/d")
        replica_set = {**made, "kind": "ReplicaSet", "spec": {"replicas": 1, "selector": labels, "template": template}}
        sets = "/apis/apps/v1/namespaces/default/replicasets"
        await controller.write("POST", sets, replica_set)
        await controller.write("PUT", f"{deployments}/d/status", found | {"status": {"observedGeneration": 1}})
        owner = [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": found["metadata"]["uid"]}]
        await controller.patch(f"{sets}/d", {"metadata": {"ownerReferences": owner}})
        await controller.ask("GET", "/api/v1/namespaces/kube-system/secrets", status=(403,))


async def test_a_proxy_reads_its_node_and_tells_events(target: Target) -> None:
    await target.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "p1"}})
    async with component(target, "system:kube-proxy") as proxy:
        await proxy.ask("GET", "/api/v1/nodes/p1")
        told = event("p1.1", {"kind": "Node", "name": "p1"}, "kube-proxy")
        await proxy.write("POST", "/apis/events.k8s.io/v1/namespaces/default/events", told)
        await proxy.ask("GET", "/api/v1/nodes/p1/status", status=(403,))
