"""HTTP, TCP and hooks against servers on loopback: redirects, plain servers behind https, the words of failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
from lightkube.models import core_v1

from services.kubelet.handlers import Handlers, Outcome
from tests.support.kubelet_pods import pod

ANSWERS = {
    "/ok": "200 OK\r\ncontent-length: 2\r\n\r\nhi",
    "/bad": "503 Unavailable\r\ncontent-length: 6\r\n\r\nsecret",
    "/near": "302 Found\r\nlocation: /bad?a=b\r\n\r\n",
    "/nearby": "307 Temporary\r\nlocation: ok\r\n\r\n",
    "/far": "302 Found\r\nlocation: http://0.0.0.0/\r\ncontent-length: 4\r\n\r\naway",
    "/round": "301 Moved\r\nlocation: /round\r\n\r\n",
    "/bare": "304 Not Modified\r\n\r\n",
}


@pytest_asyncio.fixture
async def server() -> AsyncIterator[tuple[int, list[str]]]:
    """(port, request lines and host headers that arrived)."""
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = (await reader.readline()).decode("latin-1")
            seen.append(line.strip())
            while (header := (await reader.readline()).decode("latin-1").strip()) and line.startswith("GET"):
                if header.startswith(("host:", "x-own:")):
                    seen.append(header)
            path = line.split()[1].partition("?")[0] if line.startswith("GET") else ""
            writer.write(f"HTTP/1.1 {ANSWERS.get(path, '400 Bad Request')}".encode())
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield listening.sockets[0].getsockname()[1], seen
    listening.close()


async def ask(port: int, path: str, **more: object) -> Outcome:
    action = core_v1.HTTPGetAction(port=port, path=path, **more)  # type: ignore[arg-type]
    probe = core_v1.Probe(httpGet=action, timeoutSeconds=5)
    one = pod()
    return await Handlers(None).probe(one, one.spec.containers[0], probe, "id", ["127.0.0.1"])  # type: ignore[arg-type]


async def test_a_redirect_on_the_host_is_followed_to_its_verdict(server: tuple[int, list[str]]) -> None:
    port, seen = server
    assert await ask(port, "/ok") == Outcome(True)
    assert await ask(port, "/near") == Outcome(False, "HTTP probe failed with statuscode: 503")
    assert seen[-2:] == ["GET /bad?a=b HTTP/1.1", f"host: 127.0.0.1:{port}"]
    headers = [core_v1.HTTPHeader(name="Host", value="own.example"), core_v1.HTTPHeader(name="X-Own", value="1")]
    assert await ask(port, "/nearby", httpHeaders=headers) == Outcome(True)
    assert seen[-3:] == ["GET /ok HTTP/1.1", "host: own.example", "x-own: 1"]
    assert await ask(port, "/round") == Outcome(
        False, f'Get "http://127.0.0.1:{port}/round": stopped after 10 redirects'
    )


async def test_a_redirect_that_leads_away_is_a_success_with_a_warning(server: tuple[int, list[str]]) -> None:
    port, seen = server
    assert await ask(port, "/far") == Outcome(True, warning="Probe terminated redirects, Response body: away")
    assert await ask(port, "/bare") == Outcome(True, warning="Probe terminated redirects, Response body: ")
    assert len([line for line in seen if line.startswith("GET")]) == 2


async def test_failures_to_connect_are_told_as_people_know_them(server: tuple[int, list[str]]) -> None:
    listening = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    listening.close()
    await listening.wait_closed()
    url = f"http://127.0.0.1:{port}/x"
    assert (await ask(port, "/x")).message == f'Get "{url}": dial tcp 127.0.0.1:{port}: connect: connection refused'
    probe = core_v1.Probe(tcpSocket=core_v1.TCPSocketAction(port=port))
    one = pod()
    found = await Handlers(None).probe(one, one.spec.containers[0], probe, "id", ["127.0.0.1"])  # type: ignore[arg-type]
    assert found == Outcome(False, f"dial tcp 127.0.0.1:{port}: connect: connection refused")
    secure = await ask(server[0], "/ok", scheme="HTTPS")
    assert secure.message.endswith("http: server gave HTTP response to HTTPS client")


async def test_a_hook_is_run_whatever_is_answered_and_over_http_where_https_is_not_spoken(
    server: tuple[int, list[str]],
) -> None:
    port, seen = server
    for scheme in ("HTTP", "HTTPS"):
        action = core_v1.HTTPGetAction(port=port, path="/bad", scheme=scheme)
        hook = core_v1.LifecycleHandler(httpGet=action)
        found = await Handlers(None).hook(pod().spec.containers[0], hook, "id", ["127.0.0.1"], 5)  # type: ignore[arg-type]
        assert found == Outcome(True)
        assert seen[-2] == "GET /bad HTTP/1.1"
