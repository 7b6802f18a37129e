"""Many sandboxes, containers, execs and attaches: afterwards the machine is as it was."""

import asyncio
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from cri_api.v1 import api_pb2 as cri

from tests.support.containerd import mounts_below, shims_of, wait_until
from tests.support.streaming import command_by_spdy, command_by_websocket
from tests.support.torture import times

LIVES = times(200, 20)
ROUNDS = times(1000, 15)


def _cgroups(name: str) -> list[str]:
    return [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{name}/*") if path.is_dir()]


def _state(node) -> dict[str, object]:
    socket = str(node.containerd.socket)
    snapshots = subprocess.run(
        ["ctr", "-a", socket, "-n", "k8s.io", "snapshots", "ls"], capture_output=True, text=True, check=True
    ).stdout
    leases = subprocess.run(
        ["ctr", "-a", socket, "-n", "k8s.io", "leases", "ls", "-q"], capture_output=True, text=True, check=True
    ).stdout
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout.splitlines()
    files = {
        str(path.relative_to(node.directory))
        for top in ("shim/root", "shim/state", "containerd/ipam")
        for path in (node.directory / top).rglob("*")
        if path.name not in ("last_reserved_ip.0", "lock")
    }
    return {
        "mounts": mounts_below(node.directory),
        "links": [line for line in links if f"master {node.containerd.bridge}" in line],
        "cgroups": _cgroups(node.client.cgroup_parent.lstrip("/")),
        "snapshots": snapshots.splitlines(),
        "leases": leases,
        "files": files,
        "shims": shims_of(node.containerd.socket),
    }


def _descriptors(node) -> int:
    return len(os.listdir(f"/proc/{node.shim.process.pid}/fd"))


def _life(node, number: int) -> None:
    config = node.client.pod_config(f"leak{number}")
    if number % 5 == 0:
        config.linux.security_context.namespace_options.pid = cri.POD
    config.port_mappings.add(container_port=80, host_port=21500 + number % 50, protocol=cri.TCP)
    pod = node.client.run_pod(config)
    container = pod.run("sh", "-c", "echo out; sleep 1000")
    assert container.exec("true").exit_code == 0
    if number % 2:
        container.stop(0)
        container.remove()
    pod.stop()
    pod.remove()


@pytest.mark.torture
def test_sandboxes_leave_nothing(node) -> None:
    _life(node, 0)
    before, descriptors = _state(node), _descriptors(node)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: _life(node, number), range(1, 1 + LIVES)))
    wait_until(lambda: not shims_of(node.containerd.socket), what="the end of containerd's shims")
    assert _state(node) == before
    wait_until(lambda: _descriptors(node) <= descriptors + 2, what="closed descriptors")


@pytest.mark.torture
async def test_execs_and_attaches_leave_nothing(node) -> None:
    pod = await asyncio.to_thread(node.client.run_pod)
    container = await asyncio.to_thread(pod.run, "sh", "-c", "while true; do echo x; sleep 0.05; done")
    runtime = node.client.runtime

    async def round_of(number: int) -> None:
        execute = cri.ExecRequest(container_id=container.id, cmd=["echo", "x"], stdout=True, stderr=True)
        run = command_by_spdy if number % 2 else command_by_websocket
        assert (await run(runtime.Exec(execute).url)).stdout == b"x\n"
        attach = cri.AttachRequest(container_id=container.id, stdout=True, stderr=True)
        try:
            async with asyncio.timeout(0.15):  # the client goes; the container does not end
                await run(runtime.Attach(attach).url)
        except TimeoutError:
            pass

    await round_of(0)
    await round_of(1)
    io = node.directory / "shim/state/io"
    wait_until(lambda: len(os.listdir(io)) == 1, what="removed fifos")
    descriptors = _descriptors(node)
    for number in range(ROUNDS):
        await round_of(number)
    wait_until(lambda: len(os.listdir(io)) == 1, what="removed fifos")
    wait_until(lambda: _descriptors(node) <= descriptors + 2, what="closed descriptors")


def test_what_fails_half_way_is_taken_back(node) -> None:
    conf = next(node.containerd.cni_conf.iterdir())
    good = conf.read_text()
    before = _state(node)
    try:
        conf.write_text(good.replace('"portmap"', '"no-such-plugin"'))
        for _ in range(3):
            with pytest.raises(grpc.RpcError, match="no-such-plugin"):
                node.client.run_pod()
    finally:
        conf.write_text(good)
    assert _state(node) == before
    assert node.client.sandboxes() == []
