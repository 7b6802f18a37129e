"""What may you do: no path around a refusal."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.security.conftest import Target

RBAC = "/apis/rbac.authorization.k8s.io/v1"


def role(name: str, *rules: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": list(rules),
    }


def binding(name: str, role_name: str, user: str) -> dict[str, Any]:
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role_name}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": ref,
        "subjects": [subject],
    }


async def grant(target: Target, user: str, *rules: dict[str, Any]) -> None:
    name = f"test:{user}"
    await target.create(f"{RBAC}/clusterroles", role(name, *rules))
    await target.create(f"{RBAC}/clusterrolebindings", binding(name, name, user))


async def call(target: Target, user: str, method: str, path: str, *groups: str, **more: Any) -> int:
    async with (
        target.session(target.user(user, *groups)) as session,
        session.request(method, path, **more) as answer,
    ):
        return answer.status


def rule(verbs: str, resources: str, groups: str = "") -> dict[str, Any]:
    return {"verbs": verbs.split(","), "resources": resources.split(","), "apiGroups": groups.split(",")}


async def test_exec_needs_create_also_by_get(target: Target) -> None:
    await grant(target, "reader", rule("get,list,watch", "pods,pods/exec,pods/attach,pods/portforward"))
    for subresource in ("exec?command=id&stdout=1", "attach?stdout=1", "portforward?ports=80"):
        path = f"/api/v1/namespaces/default/pods/x/{subresource}"
        headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        headers["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
        for method in ("GET", "POST"):
            assert await call(target, "reader", method, path, headers=headers) == 403, (method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/namespaces/default/secrets"),
        ("GET", "/api/v1/namespaces/default/secrets?watch=1"),
        ("GET", "/api/v1/watch/namespaces/default/secrets"),
        ("GET", "/api/v1/secrets"),
        ("GET", "//api/v1/secrets"),
        ("GET", "/api/v1//secrets"),
        ("GET", "/api/v1/namespaces/default/../kube-system/secrets"),
        ("GET", "/api/v1/namespaces/default/%2e%2e/secrets"),
        ("GET", "/api/v1/namespaces/default/pods/..%2fsecrets"),
        ("GET", "/api/v1/proxy/namespaces/default/secrets"),
        ("HEAD", "/api/v1/namespaces/default/secrets/x"),
        ("DELETE", "/api/v1/namespaces/default/secrets"),
        ("PATCH", "/api/v1/namespaces/default/secrets/x"),
        ("POST", "/api/v1/namespaces/default/secrets"),
        ("PUT", "/api/v1/namespaces/default/secrets/x"),
        ("OPTIONS", "/api/v1/namespaces/default/secrets"),
        ("TRACE", "/api/v1/namespaces/default/secrets"),
    ],
)
async def test_no_spelling_of_a_path_leads_around_a_refusal(target: Target, method: str, path: str) -> None:
    import yarl

    await grant(target, "podder", rule("get,list,watch", "pods"))
    status = await call(target, "podder", method, yarl.URL(target.process.url + path, encoded=True))
    assert status in (400, 403, 404, 405), status


async def test_a_cluster_scoped_object_is_not_reachable_below_a_namespace(target: Target) -> None:
    await target.create(
        f"{RBAC}/namespaces/default/rolebindings",
        {
            **binding("scoped", "cluster-admin", "scoped"),
            "kind": "RoleBinding",
            "metadata": {"name": "scoped", "namespace": "default"},
        },
    )
    assert await call(target, "scoped", "GET", "/api/v1/namespaces/default/configmaps") == 200
    for path in ("/api/v1/namespaces/default/nodes", "/api/v1/namespaces/default/nodes/x", "/api/v1/nodes"):
        assert await call(target, "scoped", "GET", path) in (403, 404), path
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "evil"}}
    for path in ("/api/v1/namespaces/default/namespaces", "/api/v1/namespaces"):
        assert await call(target, "scoped", "POST", path, json=body) in (403, 404, 405), path


async def test_no_role_grants_more_than_its_author_holds(target: Target) -> None:
    await grant(
        target,
        "author",
        rule("create,update,patch,get", "clusterroles,clusterrolebindings,roles,rolebindings", RBAC.split("/")[2]),
        rule("get", "pods"),
    )
    escalations = [
        role("up1", rule("get", "secrets")),
        role("up2", rule("*", "*", "*")),
        role("up3", {"verbs": ["get"], "nonResourceURLs": ["/metrics"]}),
        {**role("up4"), "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}},
    ]
    for body in escalations:
        assert await call(target, "author", "POST", f"{RBAC}/clusterroles", json=body) == 403, body
    assert await call(target, "author", "POST", f"{RBAC}/clusterroles", json=role("fine", rule("get", "pods"))) == 201
    patch = [{"op": "add", "path": "/rules/-", "value": rule("get", "secrets")}]
    headers = {"Content-Type": "application/json-patch+json"}
    path = f"{RBAC}/clusterroles/fine"
    assert await call(target, "author", "PATCH", path, json=patch, headers=headers) == 403
    up = binding("up", "cluster-admin", "author")
    assert await call(target, "author", "POST", f"{RBAC}/clusterrolebindings", json=up) == 403


async def test_a_kubelet_reaches_only_what_belongs_to_its_node(target: Target) -> None:
    for name in ("n1", "n2"):
        await target.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    await target.create("/api/v1/namespaces/default/serviceaccounts", account)
    for name, node in (("mine", "n1"), ("other", "n2")):
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
        await target.create("/api/v1/namespaces/default/secrets", secret)
        container = {"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": name}}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}}
        pod["spec"] = {"nodeName": node, "containers": [container]}  # type: ignore[assignment]
        await target.create("/api/v1/namespaces/default/pods", pod)

    async def n1(method: str, path: str, **more: Any) -> int:
        return await call(target, "system:node:n1", method, path, "system:nodes", **more)

    merge = {"headers": {"Content-Type": "application/merge-patch+json"}}
    base = "/api/v1/namespaces/default"
    assert await n1("GET", f"{base}/secrets/mine") == 200
    assert await n1("GET", f"{base}/secrets/other") == 403
    assert await n1("GET", f"{base}/secrets") == 403
    assert await n1("GET", "/api/v1/secrets") == 403
    assert await n1("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1") == 200
    assert await n1("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2") == 403
    assert await n1("GET", "/api/v1/nodes/n1") == 200
    assert await n1("GET", "/api/v1/nodes/n2") == 403
    status = {"json": {"status": {"phase": "Running"}}, **merge}
    assert await n1("PATCH", f"{base}/pods/mine/status", **status) == 200
    assert await n1("PATCH", f"{base}/pods/other/status", **status) == 403
    assert await n1("DELETE", f"{base}/pods/other") == 403
    assert await n1("PATCH", "/api/v1/nodes/n2/status", json={"status": {}}, **merge) == 403
    assert await n1("DELETE", "/api/v1/nodes/n1") == 403
    token = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    assert await n1("POST", "/api/v1/namespaces/kube-system/serviceaccounts/default/token", json=token) == 403
    assert await n1("POST", f"{base}/pods/mine/exec?command=id") == 403


async def test_a_kubelet_labels_and_taints_only_what_it_may(target: Target) -> None:
    """NodeRestriction: the reserved labels, other nodes, and pods with claims are out of a kubelet's hands."""

    async def n1(method: str, path: str, **more: Any) -> int:
        return await call(target, "system:node:n1", method, path, "system:nodes", **more)

    await target.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
    headers = {"Content-Type": "application/merge-patch+json"}
    for label in ("node-restriction.kubernetes.io/zone", "node-role.kubernetes.io/control-plane"):
        body = {"metadata": {"labels": {label: "x"}}}
        assert await n1("PATCH", "/api/v1/nodes/n1", json=body, headers=headers) == 403, label
    body = {"spec": {"taints": []}, "metadata": {"labels": {"topology.kubernetes.io/zone": "a"}}}
    assert await n1("PATCH", "/api/v1/nodes/n1", json=body, headers=headers) in (200, 403)
    mirror = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "m", "annotations": {"kubernetes.io/config.mirror": "x"}},
        "spec": {"nodeName": "n2", "containers": [{"name": "c", "image": "i"}]},
    }
    assert await n1("POST", "/api/v1/namespaces/default/pods", json=mirror) == 403
    plain = {**mirror, "metadata": {"name": "p"}, "spec": {**mirror["spec"], "nodeName": "n1"}}  # type: ignore[dict-item]
    assert await n1("POST", "/api/v1/namespaces/default/pods", json=plain) == 403
