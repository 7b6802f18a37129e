"""Exec, Attach and PortForward: the URLs that they answer with, by SPDY (both runtimes) and WebSocket."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from cri_api.v1 import api_pb2 as cri

from tests.support.cri_client import CriClient, TestContainer, code_of
from tests.support.streaming import Result, command_by_spdy, command_by_websocket, forward_by_spdy

Command = Callable[..., Awaitable[Result]]


def exec_url(container: TestContainer, *command: str, tty: bool = False, stdin: bool = False) -> str:
    request = cri.ExecRequest(container_id=container.id, cmd=command, tty=tty, stdin=stdin, stdout=True, stderr=not tty)
    return container.pod.client.runtime.Exec(request).url


@pytest.fixture
def container(client: CriClient) -> TestContainer:
    return client.run_pod().run("sleep", "1000")


@pytest.mark.parametrize("run", [command_by_spdy, command_by_websocket], ids=["spdy", "websocket"])
async def test_exec_gives_both_outputs_and_the_exit_code(container: TestContainer, run: Command) -> None:
    result = await run(exec_url(container, "sh", "-c", "echo out; echo err >&2; exit 6"))
    assert (result.stdout, result.stderr, result.exit_code) == (b"out\n", b"err\n", 6)
    result = await run(exec_url(container, "true"))
    assert (result.stdout, result.exit_code) == (b"", 0)


async def test_exec_takes_input_to_its_end(container: TestContainer) -> None:
    data = os.urandom(300_000)
    result = await command_by_spdy(exec_url(container, "cat", stdin=True), stdin=data)
    assert result.stdout == data
    assert result.exit_code == 0


async def test_exec_takes_input_to_its_end_by_websocket(container: TestContainer) -> None:
    if container.pod.client.name != "cutaway":
        pytest.skip("v5.channel.k8s.io is newer than containerd 1.6's plugin")
    data = os.urandom(300_000)
    url = exec_url(container, "cat", stdin=True)
    result = await command_by_websocket(url, stdin=data, protocol="v5.channel.k8s.io")
    assert result.stdout == data
    assert result.exit_code == 0


@pytest.mark.parametrize("run", [command_by_spdy, command_by_websocket], ids=["spdy", "websocket"])
async def test_a_terminal_has_the_clients_size(container: TestContainer, run: Command) -> None:
    if run is command_by_websocket and container.pod.client.name == "containerd":
        pytest.skip("containerd 1.6's plugin takes no size by WebSocket")
    fields: dict[str, Any] = {"stderr": False} if run is command_by_spdy else {}
    # The size comes a moment after the start; until then there is none.
    wait = "until stty size 2>/dev/null | grep .; do sleep 0.02; done"
    result = await run(exec_url(container, "sh", "-c", wait, tty=True), size=(101, 31), **fields)
    assert result.stdout == b"31 101\r\n"


async def test_much_output_arrives_whole(container: TestContainer) -> None:
    url = exec_url(container, "sh", "-c", "head -c 5000000 /dev/zero")
    assert len((await command_by_spdy(url)).stdout) == 5_000_000


async def test_attach_shows_output_and_the_end(client: CriClient) -> None:
    pod = client.run_pod()
    config = pod.container_config("sh", "-c", "echo started; cat; echo ended", stdin=True, stdin_once=True)
    container = pod.run(config=config)
    container.wait_output("started")
    request = cri.AttachRequest(container_id=container.id, stdin=True, stdout=True, stderr=True)
    result = await command_by_spdy(client.runtime.Attach(request).url, stdin=b"typed\n")
    assert result.stdout == b"typed\nended\n"
    assert container.wait_exited().exit_code == 0
    assert container.output() == "started\ntyped\nended\n"


async def test_a_port_is_reached_inside_the_pod(client: CriClient) -> None:
    pod = client.run_pod()
    server = pod.run("sh", "-c", "while true; do echo answer | nc -l -p 8080 >> /tmp/got; done")
    await asyncio.to_thread(server.wait_listening, 8080)
    request = cri.PortForwardRequest(pod_sandbox_id=pod.id, port=[8080])
    data, error = await forward_by_spdy(client.runtime.PortForward(request).url, 8080, b"question\n")
    assert (data, error) == (b"answer\n", b"")
    assert await asyncio.to_thread(server.exec_output, "cat /tmp/got") == "question\n"
    data, error = await forward_by_spdy(client.runtime.PortForward(request).url, 8999, b"x")
    assert data == b""
    assert b"refused" in error


def test_what_contradicts_itself_is_refused(client: CriClient) -> None:
    pod = client.run_pod()
    container = pod.run("sleep", "1000")
    runtime = client.runtime
    nothing = cri.ExecRequest(container_id=container.id, cmd=["true"])
    both = cri.ExecRequest(container_id=container.id, cmd=["true"], tty=True, stdout=True, stderr=True)
    unknown = cri.ExecRequest(container_id="f" * 64, cmd=["true"], stdout=True)
    assert code_of(lambda: runtime.Exec(nothing)) != "OK"
    assert code_of(lambda: runtime.Exec(both)) != "OK"
    assert code_of(lambda: runtime.Exec(unknown)) == "NOT_FOUND"
    container.stop(0)
    dead = cri.ExecRequest(container_id=container.id, cmd=["true"], stdout=True)
    assert code_of(lambda: runtime.Exec(dead)) != "OK"


async def test_a_url_is_good_once(container: TestContainer) -> None:
    url = exec_url(container, "true")
    await command_by_websocket(url)
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(url)
