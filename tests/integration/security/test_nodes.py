"""A kubelet that is in an attacker's hands: it gets what belongs to the pods on its node, and nothing else."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.security.conftest import Target

PODS = "/api/v1/namespaces/default/pods"
MERGE = {"Content-Type": "application/merge-patch+json"}
SLICES = "/apis/resource.k8s.io/v1/resourceslices"


class Kubelet:
    """What the kubelet of `n1` is answered, and the objects of its cluster."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.identity = target.user("system:node:n1", "system:nodes")

    async def __call__(self, method: str, path: str, **more: Any) -> tuple[int, str]:
        async with self.target.session(self.identity) as session, session.request(method, path, **more) as answer:
            return answer.status, await answer.text()

    async def refused(self, method: str, path: str, **more: Any) -> str:
        status, text = await self(method, path, **more)
        assert status == 403, (method, path, status, text)
        return text

    async def uid(self, path: str) -> str:
        async with self.target.session(self.target.process.admin) as admin, admin.get(path) as answer:
            uid: str = (await answer.json())["metadata"]["uid"]
            return uid


def secret(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"k": "v"}}


def pod(name: str, node: str, **spec: Any) -> dict[str, Any]:
    whole = {"nodeName": node, "containers": [{"name": "c", "image": "i"}], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": whole}


def volume(**source: Any) -> dict[str, Any]:
    return {"volumes": [{"name": "v", **source}]}


@pytest_asyncio.fixture
async def n1(target: Target) -> Kubelet:
    for name in ("n1", "n2"):
        await target.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    for name in ("default", "rich"):
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
        await target.create("/api/v1/namespaces/default/serviceaccounts", account)
    for name in ("mine", "other"):
        await target.create("/api/v1/namespaces/default/secrets", secret(name))
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": claim}
        await target.create("/api/v1/namespaces/default/persistentvolumeclaims", body)
    for name, node, account in (("mine", "n1", "default"), ("other", "n2", "rich")):
        container = {"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": name}}]}
        claims = volume(persistentVolumeClaim={"claimName": name})
        await target.create(PODS, pod(name, node, containers=[container], serviceAccountName=account, **claims))
    return Kubelet(target)


async def mirror(n1: Kubelet, name: str = "", **spec: Any) -> dict[str, Any]:
    made = pod(name or f"m-{uuid.uuid4()}", "n1", **spec)
    uid = await n1.uid("/api/v1/nodes/n1")
    owner = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid, "controller": True}
    made["metadata"] |= {"annotations": {"kubernetes.io/config.mirror": "x"}, "ownerReferences": [owner]}
    return made


async def test_a_mirror_pod_that_reaches_for_nothing_is_made(n1: Kubelet) -> None:
    host = volume(hostPath={"path": "/var/log"})
    status, text = await n1("POST", PODS, json=await mirror(n1, "plain", hostNetwork=True, **host))
    assert status == 201, text
    assert (await n1("DELETE", f"{PODS}/plain"))[0] == 200


def env(source: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": "c", "image": "i", "env": [{"name": "A", "valueFrom": source}]}]


@pytest.mark.parametrize(
    "spec",
    [
        {"containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": "other"}}]}]},
        {"containers": [{"name": "c", "image": "i", "envFrom": [{"configMapRef": {"name": "other"}}]}]},
        {"containers": env({"secretKeyRef": {"name": "other", "key": "k"}})},
        {"initContainers": [{**env({"configMapKeyRef": {"name": "other", "key": "k"}})[0], "name": "i"}]},
        {"imagePullSecrets": [{"name": "other"}]},
        {"serviceAccountName": "rich"},
        {"resourceClaims": [{"name": "r", "resourceClaimName": "r"}]},
        volume(secret={"secretName": "other"}),
        volume(configMap={"name": "other"}),
        volume(persistentVolumeClaim={"claimName": "other"}),
        volume(projected={"sources": [{"secret": {"name": "other"}}]}),
        volume(projected={"sources": [{"serviceAccountToken": {"path": "token"}}]}),
        volume(projected={"sources": [{"downwardAPI": {}}, {"clusterTrustBundle": {"name": "b", "path": "p"}}]}),
        volume(csi={"driver": "d", "nodePublishSecretRef": {"name": "other"}}),
        volume(iscsi={"targetPortal": "1.2.3.4", "iqn": "iqn.2000-01.x:y", "lun": 0, "secretRef": {"name": "other"}}),
        volume(ephemeral={"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"],
                                                           "resources": {"requests": {"storage": "1"}}}}}),
        volume(azureFile={"secretName": "other", "shareName": "s"}),
    ],
    ids=lambda spec: json.dumps(spec)[:60],
)  # fmt: skip
async def test_a_mirror_pod_opens_nothing_of_the_api_to_its_node(n1: Kubelet, spec: dict[str, Any]) -> None:
    """CVE-2025-4563 and older ones: what a pod refers to its node may read."""
    await n1.refused("POST", PODS, json=await mirror(n1, **spec))
    await n1.refused("GET", "/api/v1/namespaces/default/secrets/other")


@pytest.mark.parametrize(
    "owner",
    [None, {"uid": "wrong"}, {"name": "n2"}, {"kind": "Pod"}, {"controller": False}, {"blockOwnerDeletion": True}],
    ids=str,
)
async def test_a_mirror_pod_belongs_to_its_own_node(n1: Kubelet, owner: dict[str, Any] | None) -> None:
    body = await mirror(n1)
    references = body["metadata"]["ownerReferences"]
    body["metadata"]["ownerReferences"] = [] if owner is None else [{**references[0], **owner}]
    await n1.refused("POST", PODS, json=body)
    elsewhere = await mirror(n1)
    elsewhere["spec"]["nodeName"] = "n2"
    await n1.refused("POST", PODS, json=elsewhere)


def token_request(name: str = "", uid: str = "", **spec: Any) -> dict[str, Any]:
    ref = {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}} if name else {}
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {**ref, **spec}}


async def test_a_kubelet_gets_tokens_for_its_own_pods_only(n1: Kubelet) -> None:
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    mine, other = await n1.uid(f"{PODS}/mine"), await n1.uid(f"{PODS}/other")
    status, text = await n1("POST", f"{accounts}/default/token", json=token_request("mine", mine))
    assert status == 201, text
    for body in (
        token_request(),
        token_request("mine"),
        token_request("mine", other),
        token_request("other", other),
        token_request("mine", mine, audiences=["vault"]),
        token_request("mine", mine, audiences=["", "vault"]),
        {**token_request(), "spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Node", "name": "n1"}}},
        {**token_request(), "spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": "mine"}}},
    ):
        await n1.refused("POST", f"{accounts}/default/token", json=body)
    await n1.refused("POST", f"{accounts}/rich/token", json=token_request("other", other))
    await n1.refused("POST", f"{accounts}/rich/token", json=token_request("mine", mine))


def merge(patch: dict[str, Any]) -> dict[str, Any]:
    return {"json": patch, "headers": MERGE}


LABEL = merge({"metadata": {"labels": {"a": "b"}}})
GONE = {"apiVersion": "v1", "kind": "Node", "name": "gone", "uid": "gone"}
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
LEASES = "/apis/coordination.k8s.io/v1/namespaces"


def named(kind: str, api: str, name: str, **more: Any) -> dict[str, Any]:
    return {"json": {"apiVersion": api, "kind": kind, "metadata": {"name": name}, **more}}


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("PATCH", f"{PODS}/other/status", merge({"status": {"phase": "Failed"}})),
        ("DELETE", f"{PODS}/other", {}),
        ("POST", f"{PODS}/other/eviction", named("Eviction", "policy/v1", "other")),
        ("PATCH", f"{PODS}/mine", LABEL),
        ("PATCH", f"{PODS}/mine/status", LABEL),
        ("PATCH", f"{PODS}/mine/status",
         merge({"status": {"resourceClaimStatuses": [{"name": "r", "resourceClaimName": "x"}]}})),
        ("PATCH", f"{PODS}/mine/ephemeralcontainers", merge({"spec": {"ephemeralContainers": []}})),
        ("PATCH", f"{PODS}/mine/resize", merge({"spec": {}})),
        ("POST", f"{PODS}/mine/binding", named("Binding", "v1", "mine", target={"name": "n1"})),
        ("PATCH", f"{CLAIMS}/other/status", merge({"status": {"phase": "Lost"}})),
        ("PATCH", f"{CLAIMS}/mine", LABEL),
        ("PATCH", f"{CLAIMS}/mine/status", merge({"metadata": {"finalizers": ["a.b/c"]}})),
        ("PATCH", "/api/v1/nodes/n2", LABEL),
        ("PATCH", "/api/v1/nodes/n2/status", merge({"status": {"addresses": []}})),
        ("DELETE", "/api/v1/nodes/n1", {}),
        ("PATCH", "/api/v1/nodes/n1", merge({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}})),
        ("PATCH", "/api/v1/nodes/n1", merge({"metadata": {"ownerReferences": [GONE]}})),
        ("PATCH", "/api/v1/nodes/n1/status",
         merge({"metadata": {"labels": {"a.node-restriction.kubernetes.io/b": ""}}})),
        ("POST", "/api/v1/nodes", named("Node", "v1", "n3")),
        ("PUT", f"{LEASES}/kube-node-lease/leases/n2", named("Lease", "coordination.k8s.io/v1", "n2")),
        ("POST", f"{LEASES}/kube-node-lease/leases", named("Lease", "coordination.k8s.io/v1", "n2")),
        ("POST", f"{LEASES}/kube-system/leases", named("Lease", "coordination.k8s.io/v1", "n1")),
        ("POST", "/apis/storage.k8s.io/v1/csinodes",
         named("CSINode", "storage.k8s.io/v1", "n2", spec={"drivers": []})),
        ("POST", "/api/v1/namespaces/default/secrets", {"json": secret("new")}),
    ],
    ids=lambda value: str(value)[:70],
)  # fmt: skip
async def test_a_kubelet_writes_nothing_beyond_its_own(
    n1: Kubelet, method: str, path: str, more: dict[str, Any]
) -> None:
    """CVE-2025-5187 (owner references: the garbage collector would delete the node), and what came before it."""
    await n1.refused(method, path, **more)


def resource_slice(name: str, node: str) -> dict[str, Any]:
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": "d.example.com", "nodeName": node, "pool": pool, "devices": []}
    return {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": name}, "spec": spec}


async def test_a_kubelets_resource_slices_are_of_its_node(n1: Kubelet) -> None:
    await n1.target.create(SLICES, resource_slice("theirs", "n2"))
    status, text = await n1("POST", SLICES, json=resource_slice("ours", "n1"))
    assert status in (201, 409), text
    await n1.refused("POST", SLICES, json=resource_slice("false", "n2"))
    await n1.refused("DELETE", f"{SLICES}/theirs")
    await n1.refused("PATCH", f"{SLICES}/theirs", json={"metadata": {"labels": {"a": "b"}}}, headers=MERGE)
    await n1.refused("PATCH", f"{SLICES}/ours", json={"spec": {"nodeName": "n2"}}, headers=MERGE)


async def test_a_kubelet_reads_nothing_of_another_node(n1: Kubelet) -> None:
    selector = "spec.nodeName%3Dn1"
    assert (await n1("GET", f"/api/v1/pods?fieldSelector={selector}"))[0] == 200
    for path in (
        "/api/v1/pods",
        "/api/v1/pods?fieldSelector=spec.nodeName!%3Dn1",
        "/api/v1/pods?fieldSelector=spec.nodeName!%3Dzz%5C,spec.nodeName%5C%3Dn1",
        "/api/v1/pods?fieldSelector=metadata.name!%3Dspec.nodeName%5C%3Dn1",
        f"/api/v1/pods?labelSelector={selector}",
        f"/api/v1/nodes?fieldSelector={selector}",
        f"{PODS}/other",
        f"{PODS}/mine/log",
        f"{PODS}/mine/exec?command=id&stdout=1",
        "/api/v1/namespaces/default/persistentvolumeclaims/other",
        "/api/v1/namespaces/default/secrets?fieldSelector=metadata.name%3Dother",
        "/api/v1/namespaces/default/secrets?watch=1&fieldSelector=metadata.name%3Dother",
        "/api/v1/namespaces/default/serviceaccounts/rich",
        "/api/v1/nodes/n2/proxy/",
        "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2",
        "/apis/storage.k8s.io/v1/csinodes/n2",
        SLICES,
    ):
        await n1.refused("GET", path)


async def test_a_kubelet_asks_for_its_own_certificate_only(n1: Kubelet) -> None:
    from tests.integration.security.test_certificates import request, signing_request

    path = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
    for signer, usage in (("kube-apiserver-client-kubelet", "client auth"), ("kubelet-serving", "server auth")):
        for name, wanted in (("n1", 201), ("n2", 403)):
            pem = request(f"system:node:{name}", "system:nodes")
            body = signing_request(f"{signer}-{name}", f"kubernetes.io/{signer}", pem, usage)
            assert (await n1("POST", path, json=body))[0] == wanted, (signer, name)
    broken = base64.b64encode(b"no request").decode()
    body = signing_request("broken", "kubernetes.io/kubelet-serving", b"", "server auth")
    body["spec"]["request"] = broken
    assert (await n1("POST", path, json=body))[0] in (403, 422)
