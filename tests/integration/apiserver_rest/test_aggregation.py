"""An aggregated API: another server's group in discovery, and requests that reach it with who asks."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from tests.integration.apiserver_rest.test_proxy import own_address
from tests.support.apiserver_process import ApiServerProcess
from tests.support.kubectl import Kubectl

GROUP_VERSION = "flowers.example.com/v1"
SCHEMAS = {
    "com.example.flowers.v1.Rose": {
        "type": "object",
        "description": "A rose is a rose.",
        "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"}},
        "x-kubernetes-group-version-kind": [{"group": "flowers.example.com", "version": "v1", "kind": "Rose"}],
    }
}


async def _answer(request: web.Request) -> web.StreamResponse:
    if request.path == f"/apis/{GROUP_VERSION}":
        entry = {"name": "roses", "singularName": "rose", "namespaced": True, "kind": "Rose", "verbs": ["get", "list"]}
        resources = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": GROUP_VERSION, "resources": [entry]}
        return web.json_response(resources)
    if request.path == "/openapi/v3":
        url = f"/openapi/v3/apis/{GROUP_VERSION}?hash=ABC"
        return web.json_response({"paths": {f"apis/{GROUP_VERSION}": {"serverRelativeURL": url}}})
    if request.path == f"/openapi/v3/apis/{GROUP_VERSION}":
        return web.json_response({"openapi": "3.0.0", "info": {"title": "roses"}, "components": {"schemas": SCHEMAS}})
    if request.path == "/openapi/v2":
        paths = {f"/apis/{GROUP_VERSION}/roses": {}, "/api/v1/secrets": {"get": {"description": "not theirs"}}}
        return web.json_response({"swagger": "2.0", "paths": paths, "definitions": SCHEMAS})
    if request.path.endswith("/redirect"):
        raise web.HTTPFound("https://127.0.0.1:1/")
    names = {key: request.headers.getall(key) for key in request.headers if key.startswith("X-Remote")}
    metadata = {"name": "red", "namespace": "default", "annotations": {"asked-by": json.dumps(names)}}
    rose = {"apiVersion": GROUP_VERSION, "kind": "Rose", "metadata": metadata}
    if request.path.endswith("/roses"):
        return web.json_response({"apiVersion": GROUP_VERSION, "kind": "RoseList", "metadata": {}, "items": [rose]})
    return web.json_response(rose)


@pytest_asyncio.fixture
async def roses(server: ApiServerProcess, kubectl: Kubectl) -> AsyncIterator[None]:
    """A server of roses, its Service, and the APIService that names it."""
    address = own_address()
    identity = server.pki.server("roses", "roses", ["roses.default.svc"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert_file, identity.key_file)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", _answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, address, 0, ssl_context=context).start()
    port = runner.addresses[0][1]
    objects = [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "roses"}, "spec": {"ports": [{"port": 443}]}},
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": "roses"},
            "subsets": [{"addresses": [{"ip": address}], "ports": [{"port": port}]}],
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v1.flowers.example.com"},
            "spec": {
                "group": "flowers.example.com",
                "version": "v1",
                "groupPriorityMinimum": 1000,
                "versionPriority": 10,
                "service": {"name": "roses", "namespace": "default", "port": 443},
                "caBundle": base64.b64encode(server.pki.ca_file.read_bytes()).decode(),
            },
        },
    ]

    def create() -> None:
        for obj in objects:
            kubectl("create", "-f", "-", stdin=json.dumps(obj))
        kubectl("wait", "--for=condition=Available", "apiservice/v1.flowers.example.com", "--timeout=30s")

    await asyncio.to_thread(create)
    yield
    for kind in ("apiservice/v1.flowers.example.com", "service/roses", "endpoints/roses"):
        await asyncio.to_thread(kubectl, "delete", kind)
    await runner.cleanup()


async def test_kubectl_finds_and_reads_another_servers_kind(
    roses: None, kubectl: Kubectl, http: aiohttp.ClientSession
) -> None:
    found = await asyncio.to_thread(kubectl, "api-resources", "--api-group=flowers.example.com", "--no-headers")
    assert found.split() == ["roses", GROUP_VERSION, "true", "Rose"]
    rose = await asyncio.to_thread(kubectl.json, "get", "rose", "red")
    asked = json.loads(rose["metadata"]["annotations"]["asked-by"])
    assert asked["X-Remote-User"] == ["kubernetes-admin"]
    assert "system:masters" in asked["X-Remote-Group"]
    assert "red" in await asyncio.to_thread(kubectl, "get", "roses")
    # What a caller claims about itself does not get through.
    path = f"/apis/{GROUP_VERSION}/namespaces/default/roses/red"
    async with http.get(path, headers={"X-Remote-User": "mallory"}) as answer:
        assert "mallory" not in await answer.text()
    async with http.get(f"{path}/redirect", allow_redirects=False) as answer:
        assert answer.status == 302
    async with http.get("/apis") as answer:
        assert "flowers.example.com" in await answer.text()
    async with http.get("/apis/flowers.example.com") as answer:
        assert (await answer.json())["preferredVersion"]["groupVersion"] == GROUP_VERSION
    forbidden = await asyncio.to_thread(kubectl.fails, "get", "roses", "--as=jane")
    assert 'cannot list resource "roses" in API group "flowers.example.com"' in forbidden


async def test_another_servers_schemas_are_in_our_documents(
    roses: None, kubectl: Kubectl, http: aiohttp.ClientSession
) -> None:
    async with http.get("/openapi/v3") as answer:
        entry = (await answer.json())["paths"][f"apis/{GROUP_VERSION}"]
    assert entry["serverRelativeURL"] == f"/openapi/v3/apis/{GROUP_VERSION}?hash=ABC"
    async with http.get(entry["serverRelativeURL"]) as answer:
        assert (await answer.json())["info"]["title"] == "roses"
    async with http.get("/openapi/v2") as answer:
        document = await answer.json()
    assert document["definitions"].keys() >= SCHEMAS.keys()
    assert f"/apis/{GROUP_VERSION}/roses" in document["paths"]
    # A server speaks for its own group alone.
    assert "not theirs" not in json.dumps(document["paths"]["/api/v1/secrets"])


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [(None, "EndpointsNotFound"), ("127.0.0.1", ""), ("169.254.169.254", ""), ("192.0.2.1", "MissingEndpoints")],
)
async def test_a_server_that_cannot_be_asked_is_said_to_be_unavailable(
    kubectl: Kubectl, http: aiohttp.ClientSession, endpoint: str | None, reason: str
) -> None:
    """No endpoints; an address of this very machine (CVE-2022-3294), which even the apiserver's own writer of endpoints
    may not name; endpoints of another port.
    """
    spec = {"ports": [{"name": "https", "port": 443}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "lost"}, "spec": spec}
    reference = {"name": "lost", "namespace": "default", "port": 443}
    api_service = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1.lost.example.com"},
        "spec": {
            "group": "lost.example.com",
            "version": "v1",
            "groupPriorityMinimum": 1,
            "versionPriority": 1,
            "service": reference,
        },
    }
    endpoints = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "lost"},
        "subsets": [{"addresses": [{"ip": endpoint}], "ports": [{"name": "other", "port": 443}]}],
    }
    create = ("create", "-f", "-")
    try:
        await asyncio.to_thread(kubectl, *create, stdin=json.dumps(service))
        if endpoint is not None and not reason:
            assert "may not be in the" in await asyncio.to_thread(kubectl.fails, *create, stdin=json.dumps(endpoints))
            return
        if endpoint is not None:
            await asyncio.to_thread(kubectl, *create, stdin=json.dumps(endpoints))
        await asyncio.to_thread(kubectl, *create, stdin=json.dumps(api_service))
        wait = ("wait", "--for=condition=Available=False", "apiservice/v1.lost.example.com", "--timeout=30s")
        await asyncio.to_thread(kubectl, *wait)
        told = await asyncio.to_thread(kubectl.json, "get", "apiservice", "v1.lost.example.com")
        assert told["status"]["conditions"][0]["reason"] == reason
        async with http.get("/apis/lost.example.com/v1/things") as answer:
            assert answer.status == 503
        # Others are discovered all the same.
        assert "pods" in await asyncio.to_thread(kubectl, "api-resources", "--api-group=")
    finally:
        for kind in ("apiservice/v1.lost.example.com", "service/lost", "endpoints/lost"):
            await asyncio.to_thread(kubectl, "delete", kind, "--ignore-not-found")
