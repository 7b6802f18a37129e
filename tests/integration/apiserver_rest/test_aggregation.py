"""An aggregated API: another server's group in discovery, and requests that reach it with who asks."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator

import aiohttp
import pytest_asyncio
from aiohttp import web

from tests.integration.apiserver_rest.test_proxy import own_address
from tests.support.apiserver_process import ApiServerProcess
from tests.support.kubectl import Kubectl

GROUP_VERSION = "flowers.example.com/v1"


async def _answer(request: web.Request) -> web.StreamResponse:
    if request.path == f"/apis/{GROUP_VERSION}":
        entry = {"name": "roses", "singularName": "rose", "namespaced": True, "kind": "Rose", "verbs": ["get", "list"]}
        resources = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": GROUP_VERSION, "resources": [entry]}
        return web.json_response(resources)
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
    await asyncio.to_thread(kubectl, "delete", "apiservice", "v1.flowers.example.com")
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
    forbidden = await asyncio.to_thread(kubectl.fails, "get", "roses", "--as=jane")
    assert 'cannot list resource "roses" in API group "flowers.example.com"' in forbidden
