"""A scheduler in another language, generated from protos/, is a component like ours."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from machinery.api import kinds
from machinery.client.api_client import ApiClient
from tests.support.apiserver_process import ApiServerProcess, files

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "node"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed")
    # In a copy: the checkout stays as it is. The example finds protos/ two folders above itself.
    home = tmp_path_factory.mktemp("node")
    (home / "examples").mkdir()
    shutil.copytree(EXAMPLE, home / "examples" / "node", ignore=shutil.ignore_patterns("node_modules"))
    (home / "protos").symlink_to(ROOT / "protos")
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(home / "examples/node")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        pytest.skip(f"npm reaches no registry: {done.stderr.strip().splitlines()[-1:]}")
    return [node, str(home / "examples/node/scheduler.js")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServerProcess]:
    process = ApiServerProcess(tmp_path_factory.mktemp("apiserver")).start()
    yield process
    process.stop()


def node(name: str) -> dict[str, object]:
    ready = [{"type": "Ready", "status": "True"}]
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"conditions": ready}}


async def test_a_scheduler_in_javascript_binds_pods_with_the_schedulers_own_certificate(
    program: list[str], server: ApiServerProcess
) -> None:
    client = await ApiClient.connect(server.grpc, files(server.admin), user_agent="test")
    for name in ("n1", "n2"):
        await client.create(kinds.NODE, node(name))
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    await client.create(kinds.SERVICE_ACCOUNT, account, "default")
    mine = files(server.pki.client("scheduler", "system:kube-scheduler"))
    arguments = ["--apiserver", server.grpc, "--ca", mine.ca_file, "--cert", mine.cert_file, "--key", mine.key_file]
    process = await asyncio.create_subprocess_exec(
        *program, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        spec = {"containers": [{"name": "c", "image": "i"}]}
        for number in range(4):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"p{number}"}, "spec": spec}
            await client.create(kinds.POD, pod, "default")
        bound: dict[str, str] = {}
        async with asyncio.timeout(30):
            async for batch in client.watch(kinds.POD, "default"):
                bound |= {pod.metadata.name: pod.spec.nodeName for _, pod in batch.events if pod.spec.nodeName}
                if len(bound) == 4:
                    break
        assert sorted(bound.values()) == ["n1", "n1", "n2", "n2"]
    finally:
        process.send_signal(signal.SIGTERM)
        said = (await asyncio.wait_for(process.communicate(), 10))[0].decode()
        await client.close()
    assert process.returncode == 0, said
    assert said.count(" -> n") == 4, said
