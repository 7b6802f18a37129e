"""What a cluster leaves on the machine outside its folder, and how to take it away again.

Everything is found by what belongs to the cluster for certain: a path below its folder, a cgroup or link with its
number. So this also cleans up after a crash, and never touches another cluster or another runtime.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from pathlib import Path

from lab import process_spec
from lab.cluster import Cluster
from lab.process_spec import ProcessState

REMOVE_SANDBOXES_SECONDS = 60.0
CGROUP_ROOT = Path("/sys/fs/cgroup")


async def remove_sandboxes(cri_socket: Path) -> None:
    """Stop and remove every pod of a node through its runtime, so that networks and mounts go the proper way."""
    import asyncio

    import grpc
    from cri_api.v1 import api_pb2, api_pb2_grpc

    async with grpc.aio.insecure_channel(f"unix://{cri_socket}") as channel:
        runtime = api_pb2_grpc.RuntimeServiceStub(channel)

        async def remove(sandbox: str) -> None:
            await runtime.StopPodSandbox(
                api_pb2.StopPodSandboxRequest(pod_sandbox_id=sandbox), timeout=REMOVE_SANDBOXES_SECONDS
            )
            await runtime.RemovePodSandbox(
                api_pb2.RemovePodSandboxRequest(pod_sandbox_id=sandbox), timeout=REMOVE_SANDBOXES_SECONDS
            )

        try:
            listed = await runtime.ListPodSandbox(api_pb2.ListPodSandboxRequest(), timeout=5)
            await asyncio.gather(*(remove(item.id) for item in listed.items))
        except grpc.aio.AioRpcError:
            # A runtime that is not there or broken: `sweep` takes away what it left.
            return


def sweep(cluster: Cluster) -> None:
    """Take away processes, mounts and cgroups that belong to the cluster. Can be repeated."""
    kill_leftovers(cluster.home)
    unmount_below(cluster.home)
    for controller in (CGROUP_ROOT, *(path for path in CGROUP_ROOT.iterdir() if path.is_dir())):
        remove_cgroups(controller / "cutaway" / str(cluster.slot))
        with contextlib.suppress(OSError):
            (controller / "cutaway").rmdir()


def kill_leftovers(home: Path) -> None:
    """End containerd's shims, a proxy whose controller was killed, and whatever else was started with a path of this
    cluster, together with its children."""
    marker = f"{home}/"
    own = {os.getpid(), os.getppid()}
    for pid in [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]:
        if pid in own:
            continue
        command = _command(pid)
        if command and _outlives_its_parent(command[0]) and any(marker in word for word in command):
            for victim in [*_descendants(pid), pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)


def _outlives_its_parent(program: str) -> bool:
    return "containerd" in program or Path(program).name == "haproxy"


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _descendants(pid: int) -> list[int]:
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [victim for child in children for victim in (*_descendants(child), child)]


def mounts_below(directory: Path) -> list[str]:
    """Mount points inside a folder, deepest first."""
    prefix = f"{directory}/"
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    return sorted((point for point in points if point.startswith(prefix)), reverse=True)


def unmount_below(directory: Path) -> None:
    """Unmount everything inside a folder; what is busy goes when its last user does."""
    for point in mounts_below(directory):
        subprocess.run(["umount", "--lazy", point], capture_output=True, timeout=20)


def remove_cgroups(directory: Path) -> None:
    """Remove a cgroup and all below it, deepest first; one that still has processes stays."""
    if directory.is_dir():
        for path, _, _ in os.walk(directory, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(path)


def end_process(state: ProcessState, *, grace_seconds: float = 5.0) -> None:
    """End a process that no supervisor watches: SIGTERM, and SIGKILL after its grace."""
    if not process_spec.is_alive(state):
        return
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(state.pid)
        os.kill(state.pid, signal.SIGTERM)
        ended, _, _ = select.select([descriptor], [], [], grace_seconds)
        if not ended:
            os.kill(state.pid, signal.SIGKILL)
            select.select([descriptor], [], [], grace_seconds)
        os.close(descriptor)
