"""logs, exec, attach, cp and port-forward by the real kubectl through the real apiserver to a kubelet."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path

import pytest

from tests.integration.apiserver_rest.fake_kubelet import EchoKubelet
from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.usefixtures("kubelet")


async def run(kubectl: Kubectl, *arguments: str, stdin: str | None = None) -> tuple[int, str, str]:
    done = await asyncio.to_thread(kubectl.run, *arguments, stdin=stdin)
    return done.returncode, done.stdout, done.stderr


async def test_logs(kubectl: Kubectl) -> None:
    assert (await run(kubectl, "logs", "box"))[1] == "main line 0\nmain line 1\nmain line 2\n"
    assert (await run(kubectl, "logs", "box", "--tail=1"))[1] == "main line 2\n"
    assert (await run(kubectl, "logs", "-f", "box"))[1].endswith("main line 3\nmain line 4\n")
    code, _, complaint = await run(kubectl, "logs", "box", "--previous")
    assert code == 1
    assert "previous terminated container" in complaint
    assert "container other is not valid for pod box" in (await run(kubectl, "logs", "box", "-c", "other"))[2]


async def test_exec_with_output_error_output_and_exit_code(kubectl: Kubectl) -> None:
    code, out, err = await run(kubectl, "exec", "box", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (code, out) == (3, "out\n")
    assert err.startswith("err\n")
    assert "exit code 3" in err


async def test_exec_with_input_to_its_end(kubectl: Kubectl) -> None:
    text = "line\n" * 100_000
    code, out, err = await run(kubectl, "exec", "-i", "box", "--", "cat", stdin=text)
    assert code == 0, err
    assert out == text


async def test_attach(kubectl: Kubectl) -> None:
    code, out, err = await run(kubectl, "attach", "-i", "box", stdin="hello\n")
    assert code == 0, err
    assert "HELLO" in out


async def test_copy_there_and_back(kubectl: Kubectl, tmp_path: Path) -> None:
    source, target, back = tmp_path / "source", tmp_path / "target", tmp_path / "back"
    source.write_bytes(bytes(range(256)) * 500)
    assert (await run(kubectl, "cp", str(source), f"box:{target}"))[0] == 0
    assert target.read_bytes() == source.read_bytes()
    assert (await run(kubectl, "cp", f"box:{target}", str(back)))[0] == 0
    assert back.read_bytes() == source.read_bytes()


async def test_port_forward(kubectl: Kubectl) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read()
        writer.write(data[::-1])
        writer.close()

    backend = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = backend.sockets[0].getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        kubectl.program,
        f"--kubeconfig={kubectl.kubeconfig}",
        "port-forward",
        "pod/box",
        f":{port}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"HOME": str(kubectl.home)},
    )
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 10)).decode()
        match = re.search(r"127\.0\.0\.1:(\d+) ->", line)
        assert match is not None, line
        payload = bytes(range(256)) * 4000

        async def once() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(match[1]))
            writer.write(payload)
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), 20)
            writer.close()
            return answer

        answers = await asyncio.gather(*(once() for _ in range(5)))
        assert all(answer == payload[::-1] for answer in answers)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        backend.close()


async def test_a_terminal_has_a_size(kubectl: Kubectl, kubelet: EchoKubelet) -> None:
    code, out, _ = await run(kubectl, "exec", "box", "--", "echo", "no terminal")
    assert (code, out) == (0, "no terminal\n")
    assert kubelet.sizes == []
