"""pods/proxy, services/proxy and nodes/proxy: there and back, and nowhere else."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from tests.support.apiserver_process import ApiServerProcess
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


# Paths that a redirect of an upgrade led to.
stolen: list[str] = []


@pytest_asyncio.fixture
async def backend(kubectl: Kubectl) -> AsyncIterator[int]:
    """A web server, and a pod and a Service whose addresses are its."""
    address = own_address()
    stolen.clear()

    def site_port() -> int:
        port: int = server.addresses[0][1]
        return port

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/redirect":
            raise web.HTTPFound("/target")
        if request.path == "/away":
            raise web.HTTPFound("https://127.0.0.1:1/secret")
        if request.path.startswith("/upgrade-away"):
            raise web.HTTPTemporaryRedirect(f"http://{address}:{site_port()}/ws?stolen")
        if request.path == "/no-upgrade":
            return web.Response(status=403, text="not you")
        if request.query_string == "stolen":
            stolen.append(request.path)
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


async def test_a_redirected_upgrade_is_not_followed(http: aiohttp.ClientSession, backend: int) -> None:
    """CVE-2020-8559: a node or pod sends the apiserver, with its certificate, to another one."""
    for path in ("upgrade-away", "upgrade-away?x=1", "no-upgrade"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with http.ws_connect(f"{POD}/web/proxy/{path}"):
                pass
        assert refused.value.status == 503
    assert stolen == []


async def test_after_a_failed_upgrade_the_connection_leads_nowhere(
    http: aiohttp.ClientSession, server: ApiServerProcess, backend: int
) -> None:
    """CVE-2018-1002105: what is sent after a refused upgrade must not reach the back end as the apiserver's own."""
    context = ssl.create_default_context(cafile=str(server.admin.ca_file))
    context.load_cert_chain(server.admin.cert_file, server.admin.key_file)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.rest_port, ssl=context)
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    head = f"GET {POD}/web/proxy/no-upgrade HTTP/1.1\r\nHost: x\r\n{upgrade}Sec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\n\r\n"
    writer.write(head.encode() + b"GET /ws?stolen HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(10):
        said = await reader.read()
    writer.close()
    # The second request was the apiserver's to answer, as any path that it does not serve.
    assert said.startswith(b"HTTP/1.1 503"), said
    assert b"HTTP/1.1 404" in said, said
    assert stolen == []


async def test_the_apiserver_itself_is_no_back_end(http: aiohttp.ClientSession, backend: int, kubectl: Kubectl) -> None:
    """CVE-2022-3294, CVE-2021-25737: by a pod's address, an endpoint's, a node's."""
    address, base = own_address(), "/api/v1/namespaces/default"
    subsets = {"subsets": [{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": backend}]}]}
    node = {"addresses": [{"type": "InternalIP", "address": address}]}
    ports = {"daemonEndpoints": {"kubeletEndpoint": {"Port": backend}}}

    def pretend() -> None:
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "false"}}
        kubectl("delete", "node", "false", "--ignore-not-found")
        kubectl("create", "-f", "-", stdin=json.dumps(body))
        status = json.dumps({"status": {**node, **ports}})
        kubectl("patch", "node", "false", "--subresource=status", "--type=merge", "-p", status)
        # A server that is reached by loopback only publishes no address of its own.
        own = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "kubernetes", "namespace": "default"}}
        kubectl("delete", "endpoints", "kubernetes", "-n", "default", "--ignore-not-found")
        kubectl("create", "-f", "-", stdin=json.dumps({**own, **subsets}))

    paths = (f"{base}/pods/web/proxy/", f"{base}/services/web/proxy/", "/api/v1/nodes/false/proxy/pods")
    await asyncio.to_thread(pretend)
    for path in paths:
        async with http.get(path) as answer:
            assert (answer.status, "an apiserver's" in await answer.text()) == (400, True), path
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with http.ws_connect(path):
                pass
        assert refused.value.status == 400


@pytest.mark.parametrize("address", ["localhost", "169.254.169.254", "127.0.0.1", "::ffff:127.0.0.1", "metadata.local"])
async def test_a_nodes_address_is_judged_too(http: aiohttp.ClientSession, kubectl: Kubectl, address: str) -> None:
    """Names are not looked up: what they mean can change between the look and the use."""
    kind = "Hostname" if address[0].isalpha() else "InternalIP"
    status = json.dumps({"status": {"addresses": [{"type": kind, "address": address}]}})

    def pretend() -> None:
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "liar"}}
        kubectl.run("create", "-f", "-", stdin=json.dumps(body))
        kubectl("patch", "node", "liar", "--subresource=status", "--type=merge", "-p", status)

    await asyncio.to_thread(pretend)
    for path in ("/api/v1/nodes/liar/proxy/pods", "/api/v1/nodes/liar:80/proxy/", "/api/v1/nodes/https:liar:80/proxy/"):
        async with http.get(path) as answer:
            assert answer.status == 400, (path, await answer.text())


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
