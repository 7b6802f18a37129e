"""pods/proxy, services/proxy and nodes/proxy: there and back, and nowhere else."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from tests.support.kubectl import Kubectl


def own_address() -> str:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        address: str = probe.getsockname()[0]
        return address


@pytest_asyncio.fixture
async def backend(kubectl: Kubectl) -> AsyncIterator[int]:
    """A web server, and a pod and a Service whose addresses are its."""
    address = own_address()

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/redirect":
            raise web.HTTPFound("/target")
        if request.path == "/away":
            raise web.HTTPFound("https://127.0.0.1:1/secret")
        if request.path == "/page":
            return web.Response(text='<a href="/rewriteme">test</a>', content_type="text/html")
        if request.path == "/ws":
            back = web.WebSocketResponse()
            await back.prepare(request)
            async for message in back:
                await back.send_str(message.data.upper())
            return back
        seen = {
            "method": request.method,
            "path": request.path_qs,
            "headers": dict(request.headers),
            "body": (await request.read()).decode(),
        }
        return web.json_response(seen)

    server = web.AppRunner(_application(answer))
    await server.setup()
    site = web.TCPSite(server, address, 0)
    await site.start()
    port = server.addresses[0][1]

    def state() -> None:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": port}]}]},
        }
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"ports": [{"name": "http", "port": 80}]},
        }
        endpoints = {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": "web", "namespace": "default"},
            "subsets": [{"addresses": [{"ip": address}], "ports": [{"name": "http", "port": port}]}],
        }
        for obj in (pod, service, endpoints):
            kubectl("delete", obj["kind"], "web", "-n", "default", "--ignore-not-found", "--now")
            kubectl("create", "-f", "-", stdin=json.dumps(obj))
        status = {"status": {"podIP": address, "podIPs": [{"ip": address}], "phase": "Running"}}
        kubectl("patch", "pod", "web", "--subresource=status", "--type=merge", "-p", json.dumps(status))

    await asyncio.to_thread(state)
    yield port
    await server.cleanup()


def _application(answer: Any) -> web.Application:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    return application


POD = "/api/v1/namespaces/default/pods"


@pytest.mark.parametrize(
    "path", ["pods/web", "pods/web:http", "pods/http:web:http", "services/web", "services/web:http", "services/web:80"]
)
async def test_a_request_goes_through(http: aiohttp.ClientSession, backend: int, path: str) -> None:
    url = f"/api/v1/namespaces/default/{path}/proxy/a/b%20c?x=1"
    headers = {"X-Mine": "1", "Impersonate-Nothing": "x"}
    async with http.post(url, data=b"body", headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        seen = await answer.json()
    assert (seen["method"], seen["path"], seen["body"]) == ("POST", "/a/b%20c?x=1", "body")
    assert seen["headers"]["X-Mine"] == "1"
    assert "X-Forwarded-For" in seen["headers"]
    assert not any(name.lower().startswith(("authorization", "impersonate")) for name in seen["headers"])


@pytest.mark.parametrize("method", ["DELETE", "OPTIONS", "PATCH", "PUT"])
async def test_every_method_goes_through_and_no_odd_one(http: aiohttp.ClientSession, backend: int, method: str) -> None:
    async with http.request(method, f"{POD}/web/proxy/x") as answer:
        assert (await answer.json())["method"] == method
    async with http.request("TRACE", f"{POD}/web/proxy/x") as answer:
        assert answer.status == 405


async def test_links_and_redirects_stay_below_the_proxy(http: aiohttp.ClientSession, backend: int) -> None:
    base = f"{POD}/web/proxy"
    async with http.get(base, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (301, f"{base}/")
    async with http.get(f"{base}/page") as answer:
        assert await answer.text() == f'<a href="{base}/rewriteme">test</a>'
    async with http.get(f"{base}/redirect", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (302, f"{base}/target")
    # A redirect elsewhere is the client's affair: it is not followed here.
    async with http.get(f"{base}/away", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (302, "https://127.0.0.1:1/secret")


async def test_websockets_go_through(http: aiohttp.ClientSession, backend: int) -> None:
    async with http.ws_connect(f"{POD}/web/proxy/ws") as back:
        await back.send_str("hello")
        assert await back.receive_str(timeout=5) == "HELLO"


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "0.0.0.0", "::1", "::ffff:127.0.0.1", "fe80::1"])
async def test_addresses_of_the_server_itself_are_refused(
    http: aiohttp.ClientSession, backend: int, kubectl: Kubectl, address: str
) -> None:
    status = json.dumps({"status": {"podIP": address, "podIPs": [{"ip": address}]}})
    await asyncio.to_thread(kubectl.run, "patch", "pod", "web", "--subresource=status", "--type=merge", "-p", status)
    async with http.get(f"{POD}/web:{backend}/proxy/") as answer:
        assert answer.status == 400, await answer.text()
        assert "address not allowed" in await answer.text()


async def test_a_backend_that_is_not_there_is_unavailable(http: aiohttp.ClientSession, backend: int) -> None:
    for path in (f"{POD}/web:1/proxy/", "/api/v1/namespaces/default/services/web:9999/proxy/"):
        async with http.get(path) as answer:
            assert answer.status == 503, path
    async with http.get(f"{POD}/nothing/proxy/") as answer:
        assert answer.status == 404
    async with http.get(f"{POD}/web:99999999/proxy/") as answer:
        assert answer.status == 400


async def test_logs_over_websocket(http: aiohttp.ClientSession, kubelet: object) -> None:
    async with http.ws_connect(f"{POD}/box/log?container=main", protocols=["binary.k8s.io"]) as back:
        assert await back.receive_bytes(timeout=5) == b""
        text = b""
        async for message in back:
            text += message.data
    assert text == b"main line 0\nmain line 1\nmain line 2\n"
