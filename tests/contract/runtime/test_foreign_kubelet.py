"""The apiserver's way to a kubelet that is not ours: sessions over SPDY, ended as they must be.

The streaming server behind is containerd's, which is upstream's own library.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from machinery.api import errors
from machinery.component.tls import client_context
from protos.cutaway.v1 import stream_pb2
from services.apiserver.kubelet_https import HttpsKubelet, stats_from_summary
from services.apiserver.kubelet_proxy import GRPC_ANNOTATION, KubeletProxy
from services.kubelet.runtime import Runtime
from tests.contract.runtime.test_runtimes import LIVE, World
from tests.support.apiserver_process import free_port
from tests.support.foreign_kubelet import LOG, ForeignKubelet
from tests.support.pki import Pki
from tests.support.private_containerd import PrivateContainerd, available


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    if not available():
        pytest.skip("needs root, containerd, runc and busybox")
    with PrivateContainerd("foreign-kubelet-", "10.219.0.0/24", "rc219", shim=False) as daemon:
        yield daemon.endpoint


@pytest_asyncio.fixture
async def kubelet(endpoint: str, tmp_path: Path) -> AsyncIterator[tuple[HttpsKubelet, ForeignKubelet, Pki]]:
    runtime = Runtime(endpoint)
    world = World(runtime, tmp_path)
    sandbox = await world.run()
    container = await world.start(LIVE)
    pki = Pki(tmp_path / "pki")
    async with ForeignKubelet(runtime, sandbox, container, pki.server("system:node:n1")) as front:
        yield HttpsKubelet("n1", front.address, client_context(pki.client("apiserver", "system:masters"))), front, pki
    await runtime.stop_sandbox(sandbox)
    await runtime.remove_sandbox(sandbox)
    await runtime.close()


async def frames(*what: stream_pb2.ExecInput) -> AsyncIterator[stream_pb2.ExecInput]:
    for each in what:
        yield each


def start(*command: str, **flags: bool) -> stream_pb2.ExecStart:
    return stream_pb2.ExecStart(namespace="ns", pod="p", container="c", command=command, **{"stdout": True, **flags})


async def test_output_and_exit_code_of_a_command(kubelet: Any) -> None:
    outputs = [
        out async for out in kubelet[0].exec(start("sh", "-c", "echo out; echo err >&2; exit 3", stderr=True), frames())
    ]
    assert b"".join(out.stdout for out in outputs) == b"out\n"
    assert b"".join(out.stderr for out in outputs) == b"err\n"
    status = json.loads(outputs[-1].status)
    assert (status["status"], status["reason"]) == ("Failure", "NonZeroExitCode")
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


async def test_the_end_of_stdin_reaches_the_command(kubelet: Any) -> None:
    typed = frames(
        stream_pb2.ExecInput(stdin=b"hello "), stream_pb2.ExecInput(stdin=b"there"),
        stream_pb2.ExecInput(stdin_closed=True),
    )  # fmt: skip
    outputs = [out async for out in kubelet[0].exec(start("cat", stdin=True), typed)]
    assert b"".join(out.stdout for out in outputs) == b"hello there"
    assert json.loads(outputs[-1].status)["status"] == "Success"


async def test_much_output_arrives_whole(kubelet: Any) -> None:
    command = start("sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo line-$i; i=$((i+1)); done")
    lines = b"".join([out.stdout async for out in kubelet[0].exec(command, frames())]).splitlines()
    assert len(lines) == 20000
    assert lines[-1] == b"line-19999"


async def test_a_terminal_has_the_size_that_it_is_told(kubelet: Any) -> None:
    size = stream_pb2.TerminalSize(width=101, height=33)
    typed = frames(stream_pb2.ExecInput(resize=size), stream_pb2.ExecInput(stdin=b"sleep 0.3; stty size; exit\n"))
    outputs = [out async for out in kubelet[0].exec(start("sh", stdin=True, tty=True), typed)]
    assert b"33 101" in b"".join(out.stdout for out in outputs)


async def test_connections_are_forwarded_and_half_closed(kubelet: Any) -> None:
    https, front, _ = kubelet
    serve = "echo -e 'HTTP/1.0 200 OK\\n\\nhi' | nc -l -p 8080"
    await front._runtime.exec_sync(front._container, ["sh", "-c", f"({serve}) >/dev/null 2>&1 &"], 5)

    async def asked() -> AsyncIterator[stream_pb2.PortForwardFrame]:
        yield stream_pb2.PortForwardFrame(connection=1, open_port=8080)
        yield stream_pb2.PortForwardFrame(connection=1, data=b"GET / HTTP/1.0\r\n\r\n")
        yield stream_pb2.PortForwardFrame(connection=1, closed=True)
        yield stream_pb2.PortForwardFrame(connection=2, open_port=8099)

    got, refused, closed = b"", "", False
    async for frame in https.port_forward(stream_pb2.PortForwardStart(namespace="ns", pod="p"), asked()):
        if frame.connection == 1:
            got, closed = got + frame.data, closed or frame.closed
        refused += frame.error
        if closed and refused:
            break
    assert b"hi" in got
    assert "8099" in refused


async def test_logs_are_asked_for_as_upstream_names_the_options(kubelet: Any) -> None:
    https, front, _ = kubelet
    request = stream_pb2.LogsRequest(namespace="ns", pod="p", container="c", tail_lines=2, timestamps=True)
    assert b"".join([chunk.data async for chunk in https.logs(request)]) == LOG.partition(b"\n")[2]
    assert front.asked == ["GET /containerLogs/ns/p/c?timestamps=true&tailLines=2"]
    request.container = "gone"
    with pytest.raises(errors.NotFound, match="no container with name"):
        await anext(https.logs(request))


async def test_an_address_that_another_kubelet_left_behind_does_not_matter(kubelet: Any) -> None:
    _, front, pki = kubelet
    host, _, port = front.address.rpartition(":")
    node = {
        "metadata": {"name": "n1", "annotations": {GRPC_ANNOTATION: f"127.0.0.1:{free_port()}"}},
        "status": {
            "addresses": [{"type": "InternalIP", "address": host}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": int(port)}},
        },
    }
    pod = {"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c"}]}}
    proxy = KubeletProxy(
        lambda storage, _, __: {"nodes": node, "pods": pod}[storage], pki.client("apiserver", "system:masters")
    )
    try:
        first = stream_pb2.ExecInput(start=start("echo", "here"))
        outputs = [out async for out in proxy.exec(frames(first))]
        assert b"".join(out.stdout for out in outputs) == b"here\n"
    finally:
        await proxy.close()


def test_the_summary_becomes_our_statistics() -> None:
    usage = {"cpu": {"usageNanoCores": 5}, "memory": {"workingSetBytes": 7}}
    pods = [{"podRef": {"namespace": "ns", "name": "p", "uid": "u"}, **usage, "containers": [{"name": "c", **usage}]}]
    found = stats_from_summary("n1", {"node": usage, "pods": pods})
    assert (found.node, found.usage.cpu_usage_nanocores, found.pods[0].containers[0].name) == ("n1", 5, "c")
    assert found.pods[0].containers[0].usage.memory_working_set_bytes == 7
