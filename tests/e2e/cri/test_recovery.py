"""Kills of the shim and of containerd: containers go on with the same process ids, and nothing is forgotten."""

import contextlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from cri_api.v1 import api_pb2 as cri

from cri import kernel
from tests.support.containerd import mounts_below, shims_of, wait_until
from tests.support.cri_client import CriClient, TestContainer
from tests.support.torture import figure, times

KILLS = times(50, 5)
RESTARTS = times(20, 2)
COUNTER = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.02; done"


def pid_of(client: CriClient, container: TestContainer) -> int:
    import json

    request = cri.ContainerStatusRequest(container_id=container.id, verbose=True)
    return int(json.loads(client.runtime.ContainerStatus(request).info["info"])["pid"])


def again(client: CriClient, container: TestContainer) -> TestContainer:
    """The same container through a new connection."""
    container._runtime = client.runtime
    return container


@pytest.mark.torture
def test_kills_of_the_shim_change_no_process_and_lose_no_log_line(node) -> None:
    pod = node.client.run_pod()
    container = pod.run("sh", "-c", COUNTER)
    container.wait_output("line 3\n")
    before = (pod.status(), container.status(), pid_of(node.client, container), shims_of(node.containerd.socket))
    for _ in range(KILLS):
        node.restart_shim()
        pod.client = node.client
        again(node.client, container)
        count = len(container.records())
        container.wait_output(f"line {count + 3}\n")
    after = (pod.status(), container.status(), pid_of(node.client, container), shims_of(node.containerd.socket))
    assert after == before
    container.stop(0)
    numbers = [int(text.split()[1]) for _, tag, text in container.records() if text.startswith("line ") and tag == "F"]
    assert numbers == list(range(1, len(numbers) + 1))
    figure(8, f"shim killed {KILLS} times: same pid, same addresses, {len(numbers)} lines of log without a gap")


def test_an_exit_while_the_shim_is_dead_is_told_afterwards(node) -> None:
    pod = node.client.run_pod()
    flag = node.directory / "flag"
    config = pod.container_config(
        "sh",
        "-c",
        "while [ ! -e /host/flag ]; do sleep 0.02; done; exit 9",
        mounts=[cri.Mount(container_path="/host", host_path=str(node.directory))],
    )
    container = pod.run(config=config)
    pid = pid_of(node.client, container)
    node.shim.kill()
    flag.touch()
    while Path(f"/proc/{pid}/exe").is_symlink() and _alive(pid):
        time.sleep(0.01)
    node.shim.start()
    node.connect()
    status = again(node.client, container).wait_exited()
    assert (status.exit_code, status.reason) == (9, "Error")
    flag.unlink()


def _alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_kills_of_containerd_change_no_process(node) -> None:
    pod = node.client.run_pod()
    container = pod.run("sh", "-c", COUNTER)
    short = pod.run("sh", "-c", "while [ ! -e /go ]; do sleep 0.02; done; exit 4")
    pid = pid_of(node.client, container)
    for _ in range(RESTARTS):
        node.restart_containerd()
        end = time.monotonic() + 15
        while True:
            try:
                assert container.exec("true").exit_code == 0
                break
            except Exception:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        assert pid_of(node.client, container) == pid
        assert container.status().state == cri.CONTAINER_RUNNING
    short.exec("touch", "/go")
    status = short.wait_exited()
    assert (status.exit_code, status.reason) == (4, "Error")
    count = len(container.records())
    container.wait_output(f"line {count + 3}\n")


def test_an_exit_while_containerd_is_dead_is_told_afterwards(node) -> None:
    pod = node.client.run_pod()
    container = pod.run("sleep", "1000")
    pid = pid_of(node.client, container)
    node.containerd.kill()
    os.kill(pid, 9)
    node.containerd.start()
    assert container.wait_exited().exit_code == 137


def test_both_may_die_together(node) -> None:
    pod = node.client.run_pod()
    container = pod.run("sh", "-c", COUNTER)
    pid = pid_of(node.client, container)
    node.shim.kill()
    node.containerd.kill()
    node.containerd.start()
    node.shim.start()
    node.connect()
    again(node.client, container)
    assert pid_of(node.client, container) == pid
    assert container.exec("true").exit_code == 0
    container.stop(0)
    assert container.status().exit_code == 137


def test_a_sandbox_whose_namespaces_are_gone_is_not_ready_and_can_be_removed(node) -> None:
    pod = node.client.run_pod()
    container = pod.create("true")
    node.shim.kill()
    kernel.unmount(str(node.directory / "shim/state/sandboxes" / pod.id / "net"))
    node.shim.start()
    node.connect()
    pod.client = node.client
    assert pod.status().state == cri.SANDBOX_NOTREADY
    assert again(node.client, container).status().state == cri.CONTAINER_CREATED
    pod.stop()
    pod.remove()
    assert node.client.sandboxes() == []


def test_names_and_states_are_known_again(node) -> None:
    config = node.client.pod_config("kept", labels={"a": "b"})
    pod = node.client.run_pod(config)
    created, done = pod.create("true", name="created"), pod.run("sh", "-c", "exit 2", name="done")
    done.wait_exited()
    before = (pod.status(), created.status(), done.status())
    node.restart_shim()
    pod.client = node.client
    assert (pod.status(), again(node.client, created).status(), again(node.client, done).status()) == before
    with pytest.raises(Exception, match="reserved"):
        node.client.run_pod(config)
    created.start()
    assert created.wait_exited().exit_code == 0


def test_a_second_shim_is_refused_with_one_line(node) -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "cri", "--config", str(node.directory / "shim/cri.yaml")],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"cri: another runtime already uses {node.directory}/shim/root"]


@pytest.mark.parametrize("delay", [0.02, 0.06, 0.12, 0.2])
def test_a_kill_of_containerd_in_the_middle_of_a_start_strands_nothing(node, delay: float) -> None:
    pod = node.client.run_pod()

    def start() -> None:
        with contextlib.suppress(grpc.RpcError):
            pod.run("sleep", "4321")

    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(start)
        time.sleep(delay)  # wherever in the start that is
        node.restart_containerd()
        starting.result(30)

    def removed() -> bool:
        with contextlib.suppress(grpc.RpcError):
            node.client.remove_everything()
        return not node.client.sandboxes()

    wait_until(removed, what="the removal of every sandbox")
    wait_until(lambda: not shims_of(node.containerd.socket), what="the end of containerd's shims")
    assert not mounts_below(node.directory)


def test_a_kill_of_the_shim_in_the_middle_of_a_start_strands_nothing(node) -> None:
    for delay in (0.01, 0.05, 0.1, 0.15):

        def start() -> None:
            with contextlib.suppress(grpc.RpcError):
                node.client.run_pod().run("sleep", "4321")

        with ThreadPoolExecutor(1) as pool:
            starting = pool.submit(start)
            time.sleep(delay)
            node.restart_shim()
            starting.result(30)
        node.client.remove_everything()
        assert node.client.containers() == []
    wait_until(lambda: not shims_of(node.containerd.socket), what="the end of containerd's shims")
    assert not mounts_below(node.directory)
    leases = node.directory / "containerd/ipam" / node.containerd.bridge
    assert not [path for path in leases.iterdir() if path.name[0].isdigit()]
