"""Admission sees every way in: subresources, ephemeral containers, posts that are not stored."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.security.conftest import Target
from tests.support.webhook_server import WebhookServer

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
MERGE = {"Content-Type": "application/merge-patch+json"}
STRATEGIC = {"Content-Type": "application/strategic-merge-patch+json"}


async def ask(target: Target, method: str, path: str, **more: Any) -> tuple[int, str]:
    async with target.session(target.process.admin) as admin, admin.request(method, path, **more) as answer:
        return answer.status, await answer.text()


async def namespace(target: Target, name: str, **labels: str) -> str:
    """The path of a namespace with a service account, made if it is not there."""
    labelled = {f"pod-security.kubernetes.io/{key.replace('_', '-')}": value for key, value in labels.items()}
    await target.create(
        "/api/v1/namespaces",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labelled}},
    )
    path = f"/api/v1/namespaces/{name}"
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    await target.create(f"{path}/serviceaccounts", account)
    return path


def pod(name: str, image: str = "good", **container: Any) -> dict[str, Any]:
    containers = [{"name": "c", "image": image, **container}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers}}


def debugger(image: str = "good", **more: Any) -> dict[str, Any]:
    return {"spec": {"ephemeralContainers": [{"name": "d", "image": image, **more}]}}


# --- webhooks


@pytest.fixture
def guard(target: Target) -> Iterator[WebhookServer]:
    """A webhook that refuses what its reviews call evil."""

    def judge(review: dict[str, Any]) -> dict[str, Any]:
        request = review["request"]
        allowed = "evil" not in str(request["object"])
        response = {"uid": request["uid"], "allowed": allowed, "status": {"message": "no evil here"}}
        return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response}

    with WebhookServer(target.pki, judge) as server:
        yield server


def configuration(name: str, client: dict[str, str], *resources: str, group: str = "") -> dict[str, Any]:
    rule = {"apiGroups": [group], "apiVersions": ["*"], "operations": ["*"], "resources": list(resources)}
    hook = {"name": f"{name}.example.com", "clientConfig": client, "rules": [rule], "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "timeoutSeconds": 5}  # fmt: skip
    kind = "ValidatingWebhookConfiguration"
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name},
        "webhooks": [hook],
    }


@pytest_asyncio.fixture
async def guarded(target: Target, guard: WebhookServer) -> Any:
    resources = ("pods", "pods/ephemeralcontainers", "pods/resize", "pods/eviction", "pods/binding", "pods/exec",
                 "serviceaccounts/token")  # fmt: skip
    path = f"{ADMISSION}/validatingwebhookconfigurations"
    await target.create(path, configuration("guard", guard.client_config, *resources))
    yield guard
    await ask(target, "DELETE", f"{path}/guard")


async def test_a_webhook_is_asked_about_every_way_to_run_something(target: Target, guarded: WebhookServer) -> None:
    """CVE-2023-2727, -2728: an image policy that looks at pods must see ephemeral containers and resizes too."""
    base = await namespace(target, "hooked")
    await target.create(f"{base}/pods", pod("p", resources={"requests": {"cpu": "10m"}}))
    ways: list[tuple[str, str, str, dict[str, Any]]] = [
        ("", "POST", "pods", {"json": pod("q", "evil")}),
        ("", "PATCH", "pods/p", {"json": {"spec": {"containers": [{"name": "c", "image": "evil"}]}},
                                 "headers": STRATEGIC}),
        ("ephemeralcontainers", "PATCH", "pods/p/ephemeralcontainers",
         {"json": debugger("evil"), "headers": STRATEGIC}),
        ("resize", "PATCH", "pods/p/resize", {"json": {"metadata": {"annotations": {"a": "evil"}}}, "headers": MERGE}),
        ("eviction", "POST", "pods/p/eviction",
         {"json": {"apiVersion": "policy/v1", "kind": "Eviction",
                   "metadata": {"name": "p", "annotations": {"a": "evil"}}}}),
        ("binding", "POST", "pods/p/binding",
         {"json": {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"},
                   "target": {"kind": "Node", "name": "evil"}}}),
        ("exec", "POST", "pods/p/exec?command=evil&stdout=1", {}),
        ("exec", "GET", "pods/p/exec?command=evil&stdout=1", {}),
        ("token", "POST", "serviceaccounts/default/token",
         {"json": {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                   "spec": {"audiences": ["evil"]}}}),
    ]  # fmt: skip
    for subresource, method, path, more in ways:
        guarded.asked.clear()
        status, text = await ask(target, method, f"{base}/{path}", **more)
        seen = [review["request"].get("subResource", "") for review in guarded.asked]
        assert (status, seen) == (403, [subresource]), (path, text)
        assert "no evil here" in text, text
    assert guarded.asked[-1]["request"]["kind"]["kind"] == "TokenRequest"


async def test_without_evil_each_way_is_open(target: Target, guarded: WebhookServer) -> None:
    base = await namespace(target, "hooked-fine")
    for name in ("p", "q"):
        await target.create(f"{base}/pods", pod(name, resources={"requests": {"cpu": "10m"}}))
    resized = {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "20m"}}}]}}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "q"}}
    token = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"name": "n"}}
    for subresource, method, path, body in (
        ("ephemeralcontainers", "PATCH", "pods/p/ephemeralcontainers", debugger()),
        ("resize", "PATCH", "pods/p/resize", resized),
        ("binding", "POST", "pods/p/binding", binding),
        ("eviction", "POST", "pods/q/eviction", eviction),
        ("token", "POST", "serviceaccounts/default/token", token),
    ):
        guarded.asked.clear()
        status, text = await ask(
            target, method, f"{base}/{path}", json=body, headers=STRATEGIC if method == "PATCH" else {}
        )
        assert status in (200, 201), text
        assert [review["request"].get("subResource") for review in guarded.asked][:1] == [subresource]


async def test_a_webhook_is_asked_about_reviews(target: Target, guard: WebhookServer) -> None:
    """As upstream: with a rule for them, a webhook decides who may ask about whom. Policies are never asked."""
    path = f"{ADMISSION}/validatingwebhookconfigurations"
    await target.create(path, configuration("reviews", guard.client_config, "*", group="authorization.k8s.io"))
    reviews = "/apis/authorization.k8s.io/v1"
    about = {"verb": "get", "resource": "pods", "namespace": "nowhere"}
    try:
        for user, wanted in (("jane", 201), ("evil", 403)):
            for kind, at in (
                ("SubjectAccessReview", f"{reviews}/subjectaccessreviews"),
                ("LocalSubjectAccessReview", f"{reviews}/namespaces/nowhere/localsubjectaccessreviews"),
            ):
                guard.asked.clear()
                spec = {"user": user, "resourceAttributes": about}
                body = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
                status, text = await ask(target, "POST", at, json=body)
                assert (status, [one["request"]["kind"]["kind"] for one in guard.asked]) == (wanted, [kind]), text
    finally:
        await ask(target, "DELETE", f"{path}/reviews")


async def test_a_redirect_from_a_webhook_is_a_failure(target: Target, guard: WebhookServer) -> None:
    """CVE-2022-3172's kin: whoever answers with another address is not followed there."""

    class Redirect(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(307)
            self.send_header("Location", guard.client_config["url"])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Redirect)
    thread = threading.Thread(target=server.serve_forever, name="redirecting webhook")
    thread.start()
    path = f"{ADMISSION}/validatingwebhookconfigurations"
    try:
        base = await namespace(target, "redirected")
        plain = {"url": f"https://127.0.0.1:{server.server_address[1]}/", "caBundle": guard.ca_bundle}
        server.socket = _tls(target, server)
        await target.create(path, configuration("away", plain, "configmaps"))
        config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
        status, text = await ask(target, "POST", f"{base}/configmaps", json=config_map)
        assert (status, "307" in text) == (500, True), text
        assert guard.asked == []
    finally:
        await ask(target, "DELETE", f"{path}/away")
        server.shutdown()
        server.server_close()
        thread.join()


def _tls(target: Target, server: HTTPServer) -> Any:
    import ssl

    identity = target.pki.server("redirecting", "redirecting", ["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert_file, identity.key_file)
    return context.wrap_socket(server.socket, server_side=True)


# --- Pod Security


PRIVILEGED = {"securityContext": {"privileged": True}}


async def test_a_level_holds_for_what_is_added_to_a_running_pod(target: Target) -> None:
    base = await namespace(target, "levelled", enforce="baseline")
    assert (await ask(target, "POST", f"{base}/pods", json=pod("bad", **PRIVILEGED)))[0] == 403
    await target.create(f"{base}/pods", pod("p"))
    status, text = await ask(target, "PATCH", f"{base}/pods/p/ephemeralcontainers", json=debugger(**PRIVILEGED),
                             headers=STRATEGIC)  # fmt: skip
    assert (status, "privileged" in text) == (403, True), text
    status, text = await ask(target, "PATCH", f"{base}/pods/p/ephemeralcontainers", json=debugger(), headers=STRATEGIC)
    assert status == 200, text
    status, text = await ask(target, "POST", f"{base}/pods?dryRun=All", json=pod("bad", **PRIVILEGED))
    assert status == 403, text


async def test_a_pinned_version_and_labels_that_mean_nothing(target: Target) -> None:
    probed = {"livenessProbe": {"httpGet": {"host": "10.0.0.1", "port": 80}}}
    for name, version, wanted in (("old", "v1.33", 201), ("new", "v1.34", 403), ("newest", "latest", 403)):
        base = await namespace(target, name, enforce="baseline", enforce_version=version)
        status, text = await ask(target, "POST", f"{base}/pods", json=pod("p", **probed))
        assert status == wanted, (name, text)
    for label, value in (("enforce", "strict"), ("enforce-version", "1.33"), ("warn-version", "v2.0"), ("audit", "x")):
        labels = {f"pod-security.kubernetes.io/{label}": value}
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "never", "labels": labels}}
        status, text = await ask(target, "POST", "/api/v1/namespaces", json=body)
        assert (status, label in text) == (422, True), text
        patch = {"metadata": {"labels": labels}}
        assert (await ask(target, "PATCH", "/api/v1/namespaces/old", json=patch, headers=MERGE))[0] == 422


async def test_a_stricter_level_tells_what_it_would_refuse_and_leaves_what_runs_alone(target: Target) -> None:
    base = await namespace(target, "tightened")
    await target.create(f"{base}/pods", pod("loud", **PRIVILEGED))
    await target.create(f"{base}/pods", pod("quiet"))
    patch = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}
    async with target.session(target.process.admin) as admin, admin.patch(base, json=patch, headers=MERGE) as answer:
        warnings = answer.headers.getall("Warning")
    assert any("existing pods in namespace" in text for text in warnings)
    assert any("loud: privileged" in text for text in warnings)
    label = {"metadata": {"labels": {"a": "b"}}}
    assert (await ask(target, "PATCH", f"{base}/pods/loud", json=label, headers=MERGE))[0] == 200
    evil = {"spec": {"containers": [{"name": "c", "image": "other"}]}}
    assert (await ask(target, "PATCH", f"{base}/pods/loud", json=evil, headers=STRATEGIC))[0] == 403
