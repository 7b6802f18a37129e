"""Custom resources whose versions a webhook converts: v1 has spec.host and spec.port, v2 spec.address "host:port"."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.apiserver_process import ApiServerProcess
from tests.support.rest import Rest
from tests.support.webhook_server import WebhookServer

GROUP = "conversion.example.com"
NAME = f"backends.{GROUP}"


def convert(obj: dict[str, Any], wanted: str) -> dict[str, Any]:
    spec = obj.get("spec") or {}
    if wanted == f"{GROUP}/v2" and "host" in spec:
        obj["spec"] = {"address": f"{spec['host']}:{spec['port']}", "unknown": "pruned"}
    elif wanted == f"{GROUP}/v1" and "address" in spec:
        host, _, port = spec["address"].rpartition(":")
        obj["spec"] = {"host": host, "port": int(port)}
    obj["apiVersion"] = wanted
    # What a webhook may not change is put back; labels it may.
    obj["metadata"]["creationTimestamp"] = "1999-01-01T00:00:00Z"
    obj["metadata"].setdefault("labels", {})["converted-to"] = wanted.rpartition("/")[2]
    return obj


def answer(review: dict[str, Any]) -> dict[str, Any]:
    # What webhooks that are built with upstream's types decode, and nothing else.
    assert (review["apiVersion"], review["kind"]) == ("apiextensions.k8s.io/v1", "ConversionReview")
    request = review["request"]
    objects = [convert(obj, request["desiredAPIVersion"]) for obj in request["objects"]]
    failed = any((obj["metadata"].get("annotations") or {}).get("fail") for obj in objects)
    result = {"status": "Failed", "message": "no such luck"} if failed else {"status": "Success"}
    response = {"uid": request["uid"], "result": result, "convertedObjects": [] if failed else objects}
    return {"kind": review["kind"], "apiVersion": review["apiVersion"], "response": response}


def version(name: str, properties: dict[str, Any], *, storage: bool) -> dict[str, Any]:
    spec = {"type": "object", "properties": properties}
    schema = {"type": "object", "properties": {"spec": spec, "status": {"type": "object"}}}
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
        "selectableFields": [{"jsonPath": f".spec.{next(iter(properties))}"}],
    }


def definition(config: dict[str, str], stored: str) -> dict[str, Any]:
    v1 = {"host": {"type": "string"}, "port": {"type": "integer", "maximum": 65535}}
    v2 = {"address": {"type": "string"}, "weight": {"type": "integer", "default": 1}}
    webhook = {"clientConfig": config, "conversionReviewVersions": ["v1"]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"plural": "backends", "kind": "Backend"},
            "versions": [version("v1", v1, storage=stored == "v1"), version("v2", v2, storage=stored == "v2")],
            "conversion": {"strategy": "Webhook", "webhook": webhook},
        },
    }


@pytest.fixture
def webhook(server: ApiServerProcess) -> Iterator[WebhookServer]:
    with WebhookServer(server.pki, answer) as running:
        server.kubectl("apply", "-f", "-", stdin=json.dumps(definition(running.client_config, "v1")))
        server.kubectl("wait", "--for=condition=Established", f"crd/{NAME}", "--timeout=10s")
        yield running
        running.answer = answer
        server.kubectl("delete", "crd", NAME, "--ignore-not-found", "--timeout=30s")


@pytest_asyncio.fixture
async def rest(server: ApiServerProcess, webhook: WebhookServer) -> AsyncIterator[Rest]:
    async with Rest(server) as client:
        yield client


def path(namespace: str, api: str, name: str = "") -> str:
    return f"/apis/{GROUP}/{api}/namespaces/{namespace}/backends" + (f"/{name}" if name else "")


def v1(name: str = "a", port: int = 80, **metadata: Any) -> dict[str, Any]:
    spec = {"host": "h", "port": port}
    return {"apiVersion": f"{GROUP}/v1", "kind": "Backend", "metadata": {"name": name, **metadata}, "spec": spec}


def v2(name: str = "b", address: str = "i:81", **metadata: Any) -> dict[str, Any]:
    spec = {"address": address}
    return {"apiVersion": f"{GROUP}/v2", "kind": "Backend", "metadata": {"name": name, **metadata}, "spec": spec}


async def test_each_client_writes_and_reads_its_own_version(rest: Rest, namespace: str) -> None:
    status, made = await rest.post(path(namespace, "v1"), v1())
    assert (status, made["spec"]) == (201, {"host": "h", "port": 80})
    status, made = await rest.post(path(namespace, "v2"), v2())
    # The answer to a write comes from what is stored: the weight that v1 can't hold is v2's default again.
    assert (status, made["apiVersion"], made["spec"]) == (201, f"{GROUP}/v2", {"address": "i:81", "weight": 1})
    _, as_v2 = await rest.get(path(namespace, "v2", "a"))
    assert as_v2["spec"] == {"address": "h:80", "weight": 1}
    assert as_v2["metadata"]["labels"] == {"converted-to": "v2"}
    assert not as_v2["metadata"]["creationTimestamp"].startswith("1999")
    _, as_v1 = await rest.get(path(namespace, "v1", "b"))
    assert as_v1["spec"] == {"host": "i", "port": 81}
    _, listed = await rest.get(path(namespace, "v2"))
    assert [item["spec"]["address"] for item in listed["items"]] == ["h:80", "i:81"]
    assert {item["apiVersion"] for item in listed["items"]} == {f"{GROUP}/v2"}


async def test_updates_and_patches_are_of_the_callers_version(rest: Rest, namespace: str) -> None:
    _, made = await rest.post(path(namespace, "v1"), v1())
    _, read = await rest.get(path(namespace, "v2", "a"))
    read["spec"]["address"] = "j:82"
    status, written = await rest.put(path(namespace, "v2", "a"), read)
    assert (status, written["spec"]["address"]) == (200, "j:82")
    status, patched = await rest.patch(path(namespace, "v2", "a"), {"spec": {"address": "k:83"}})
    assert (status, patched["spec"]["address"]) == (200, "k:83")
    _, as_v1 = await rest.get(path(namespace, "v1", "a"))
    assert as_v1["spec"] == {"host": "k", "port": 83}
    assert as_v1["metadata"]["generation"] == made["metadata"]["generation"] + 2
    # A write that changes nothing is none, in either version.
    _, again = await rest.patch(path(namespace, "v2", "a"), {"spec": {"address": "k:83"}})
    assert again["metadata"]["resourceVersion"] == as_v1["metadata"]["resourceVersion"]
    status, applied = await rest.patch(
        path(namespace, "v2", "a"), v2("a", "l:84"), "apply-patch+yaml", fieldManager="t", force="true"
    )
    assert (status, applied["spec"]["address"]) == (200, "l:84")
    # The schema that judges is that of the caller's version.
    status, refused = await rest.patch(path(namespace, "v1", "a"), {"spec": {"port": 70_000}})
    assert (status, refused["details"]["causes"][0]["field"]) == (422, "spec.port")
    body = v2("dry", "m:85")
    status, dry = await rest.post(path(namespace, "v2"), body, dryRun="All")
    assert (status, dry["spec"]["address"]) == (201, "m:85")
    status, _ = await rest.delete(path(namespace, "v2", "a"))
    assert status == 200


async def test_a_watch_sees_its_version(rest: Rest, namespace: str, webhook: WebhookServer) -> None:
    await rest.post(path(namespace, "v1"), v1())
    async with rest.watch(path(namespace, "v2")) as first, rest.watch(path(namespace, "v2")) as second:
        for stream in (first, second):
            event = await stream.next()
            assert event is not None
            assert (event["type"], event["object"]["spec"]["address"]) == ("ADDED", "h:80")
        await rest.patch(path(namespace, "v1", "a"), {"spec": {"port": 90}})
        await rest.delete(path(namespace, "v1", "a"))
        for stream in (first, second):
            events = [await stream.next(), await stream.next()]
            seen = [(e["type"], e["object"]["apiVersion"], e["object"]["spec"]["address"]) for e in events if e]
            assert seen == [("MODIFIED", f"{GROUP}/v2", "h:90"), ("DELETED", f"{GROUP}/v2", "h:90")]


async def test_fields_are_selected_as_the_version_has_them(rest: Rest, namespace: str) -> None:
    await rest.post(path(namespace, "v1"), v1("a", 80))
    selector = "spec.address=h:80"
    async with rest.watch(path(namespace, "v2"), fieldSelector=selector) as watch:
        assert await watch.take(1) == [("ADDED", "a")]
        await rest.post(path(namespace, "v1"), v1("b", 81))
        for name, port in (("b", 80), ("a", 81), ("b", 80)):
            await rest.patch(path(namespace, "v1", name), {"spec": {"port": port}, "metadata": {"labels": {"x": "y"}}})
        await rest.delete(path(namespace, "v1", "b"))
        # b moves in, a moves out, a change of b that is none, and its end.
        assert await watch.take(3) == [("ADDED", "b"), ("DELETED", "a"), ("DELETED", "b")]
    await rest.post(path(namespace, "v2"), v2("c", "h:80"))
    _, listed = await rest.get(path(namespace, "v2"), fieldSelector=selector)
    assert [item["metadata"]["name"] for item in listed["items"]] == ["c"]
    _, listed = await rest.get(path(namespace, "v1"), fieldSelector="spec.host=h")
    assert [item["metadata"]["name"] for item in listed["items"]] == ["a", "c"]
    status, refused = await rest.get(path(namespace, "v1"), fieldSelector=selector)
    assert (status, refused["reason"]) == (400, "BadRequest")
    await rest.delete(path(namespace, "v2"), fieldSelector=selector)
    _, left = await rest.get(path(namespace, "v2"))
    assert [item["spec"]["address"] for item in left["items"]] == ["h:81"]


async def test_lists_of_mixed_storage_versions_are_of_one(
    server: ApiServerProcess, rest: Rest, namespace: str, webhook: WebhookServer
) -> None:
    await rest.post(path(namespace, "v1"), v1("a"))
    server.kubectl("apply", "-f", "-", stdin=json.dumps(definition(webhook.client_config, "v2")))
    await rest.post(path(namespace, "v2"), v2("b"))
    webhook.asked.clear()
    for api, key in (("v1", "host"), ("v2", "address")):
        _, listed = await rest.get(path(namespace, api))
        assert {item["apiVersion"] for item in listed["items"]} == {f"{GROUP}/{api}"}
        assert all(key in item["spec"] for item in listed["items"])
    # One review a list, with only what is of another version.
    assert [len(review["request"]["objects"]) for review in webhook.asked] == [1, 1]
    # Deleting and changing what was stored as v1 brings it to v2.
    status, _ = await rest.patch(path(namespace, "v1", "a"), {"metadata": {"finalizers": ["example.com/x"]}})
    assert status == 200
    await rest.delete(path(namespace, "v1", "a"))
    _, held = await rest.get(path(namespace, "v2", "a"))
    assert (held["spec"]["address"], bool(held["metadata"]["deletionTimestamp"])) == ("h:80", True)
    await rest.patch(path(namespace, "v2", "a"), {"metadata": {"finalizers": None}})
    assert (await rest.get(path(namespace, "v1", "a")))[0] == 404


async def test_a_failing_webhook_fails_the_request(rest: Rest, namespace: str, webhook: WebhookServer) -> None:
    status, refused = await rest.post(path(namespace, "v2"), v2(annotations={"fail": "yes"}))
    assert (status, refused["reason"]) == (500, "InternalError")
    assert refused["message"].endswith(f"conversion webhook for {GROUP}/v2, Kind=Backend failed: no such luck")
    await rest.post(path(namespace, "v1"), v1())

    def renamed(review: dict[str, Any]) -> dict[str, Any]:
        reply = answer(review)
        reply["response"]["convertedObjects"][0]["metadata"]["name"] = "other"
        return reply

    webhook.answer = renamed
    status, refused = await rest.get(path(namespace, "v2", "a"))
    assert status == 500
    assert "must have the same name: a != other" in refused["message"]
    webhook.answer = lambda review: {**answer(review), "response": None}
    assert "no response provided" in (await rest.get(path(namespace, "v2")))[1]["message"]
    # The stored version needs no webhook.
    assert (await rest.get(path(namespace, "v1", "a")))[0] == 200


async def test_an_admission_webhook_is_asked_in_the_version_that_it_knows(
    server: ApiServerProcess, rest: Rest, namespace: str, webhook: WebhookServer
) -> None:
    def admit(review: dict[str, Any]) -> dict[str, Any]:
        if review["kind"] == "ConversionReview":
            return answer(review)
        import base64

        operations = [{"op": "replace", "path": "/spec/port", "value": 99}]
        patch = base64.b64encode(json.dumps(operations).encode()).decode()
        response = {"uid": review["request"]["uid"], "allowed": True, "patch": patch, "patchType": "JSONPatch"}
        return {"kind": review["kind"], "apiVersion": review["apiVersion"], "response": response}

    webhook.answer = admit
    rule = {"operations": ["CREATE"], "apiGroups": [GROUP], "apiVersions": ["v1"], "resources": ["backends"]}
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "conversion-test"},
        "webhooks": [
            {
                "name": "port.example.com",
                "clientConfig": webhook.client_config,
                "rules": [rule],
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }
        ],
    }
    server.kubectl("create", "-f", "-", stdin=json.dumps(configuration))
    try:
        status, made = await rest.post(path(namespace, "v2"), v2())
    finally:
        server.kubectl("delete", "mutatingwebhookconfiguration", "conversion-test")
    assert (status, made["spec"]["address"]) == (201, "i:99")
    asked = [review["request"] for review in webhook.asked if review["kind"] == "AdmissionReview"]
    assert [(r["object"]["spec"], r["requestKind"]["version"]) for r in asked] == [({"host": "i", "port": 81}, "v2")]
