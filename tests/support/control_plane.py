"""An apiserver process and a controller-manager process, with nodes and pods that only pretend.

For kubectl to play with.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import yaml

from machinery.api import errors, kinds, objects
from machinery.client.api_client import ApiClient, Mutation, PatchType
from machinery.component.tls import TlsFiles
from tests.support.apiserver_process import ROOT, ApiServerProcess, files, free_port
from tests.support.controllers import ready_status
from tests.support.memory import resident_mb


class ControlPlane:
    """`async with ControlPlane(tmp_path) as plane: plane.kubectl("get", "pods")`."""

    def __init__(self, directory: Path, *, nodes: int = 2, pretend: bool = True, **settings: Any) -> None:
        self.directory = directory
        self.pretend = pretend
        self.server = ApiServerProcess(directory)
        self.nodes = nodes
        self.grpc_port = free_port()
        pki = self.server.pki
        identity = pki.client("controller-manager", "system:kube-controller-manager")
        serving = pki.server("controller-manager-server", "kube-controller-manager", ["localhost", "127.0.0.1"])
        self.settings: dict[str, Any] = {
            "apiserver": [self.server.grpc],
            "tls": _paths(files(identity)),
            "serving": _paths(files(serving)),
            "grpc_address": f"127.0.0.1:{self.grpc_port}",
            "root_ca_file": str(identity.ca_file),
            "signing_ca_file": str(pki.directory / "ca.crt"),
            "signing_key_file": str(pki.directory / "ca.key"),
            "log_format": "console",
            **settings,
        }
        self.manager: subprocess.Popen[bytes] | None = None
        self.client: ApiClient
        self._running: contextlib.AsyncExitStack
        self._addresses = itertools.count(2)

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(asyncio.to_thread, self.server.stop)
            await asyncio.to_thread(self.server.start)
            stack.push_async_callback(self._end_manager)
            self.start_manager()
            address, admin = self.server.grpc, files(self.server.admin)
            self.client = await ApiClient.connect(address, admin, user_agent="pretend-kubelet")
            stack.push_async_callback(self.client.close)
            for number in range(self.nodes):
                await self.add_node(f"n{number + 1}")
            if self.pretend:
                pretend = asyncio.create_task(self._run_kubelets(), name="pretend kubelets")
                stack.push_async_callback(_end, pretend)
            await self.until(lambda: self._exists(kinds.SERVICE_ACCOUNT, "default", "default"), "controllers work")
            self._running = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._running.aclose()

    async def _end_manager(self) -> None:
        code = await asyncio.to_thread(self.stop_manager)
        assert code == 0, self.log

    @property
    def log(self) -> str:
        """What the controller-manager logged."""
        return (self.directory / "controller-manager.log").read_text()

    def start_manager(self) -> None:
        """Start the controller-manager."""
        config = self.directory / "controller-manager.yaml"
        config.write_text(yaml.safe_dump(self.settings))
        arguments = [sys.executable, "-m", "services.controller_manager", "--config", str(config)]
        with (self.directory / "controller-manager.log").open("ab") as log:
            environment = {**os.environ, **self.server.environment}
            self.manager = subprocess.Popen(arguments, cwd=ROOT, stdout=log, stderr=log, env=environment)

    def stop_manager(self, number: int = signal.SIGTERM) -> int:
        """End the controller-manager; its exit code."""
        assert self.manager is not None
        self.manager.send_signal(number)
        code = self.manager.wait(15)
        self.manager = None
        return code

    @property
    def resident_megabytes(self) -> float:
        """The controller-manager's resident memory."""
        assert self.manager is not None
        return resident_mb(self.manager.pid)

    async def kubectl(self, *arguments: str, stdin: Any = None, check: bool = True) -> str:
        """Run the real kubectl; what it printed."""
        text = stdin if stdin is None or isinstance(stdin, str) else yaml.safe_dump(stdin)
        done = await asyncio.to_thread(self.server.kubectl, *arguments, stdin=text, check=check)
        return done.stdout + done.stderr

    async def until(self, condition: Any, what: str = "", seconds: float = 20.0) -> None:
        """Wait until `await condition()` is true."""
        deadline = time.monotonic() + seconds
        while not await condition():
            assert time.monotonic() < deadline, f"never: {what}\n{self.log[-3000:]}"
            await asyncio.sleep(0.05)

    async def _exists(self, kind: Any, name: str, namespace: str) -> bool:
        with contextlib.suppress(errors.ApiError):
            await self.client.get(kind, name, namespace)
            return True
        return False

    async def add_node(self, name: str) -> None:
        """A node that is ready."""
        metadata = {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}}
        await self.client.create(kinds.NODE, {"apiVersion": "v1", "kind": "Node", "metadata": metadata})
        now = objects.now_rfc3339()
        conditions = [{"type": "Ready", "status": "True", "lastHeartbeatTime": now, "lastTransitionTime": now}]
        status = {"conditions": conditions, "allocatable": {"cpu": "64", "memory": "256Gi", "pods": "2000"}}
        await self.client.patch(kinds.NODE, name, "", {"status": status}, subresource="status")

    # --- pretending ---------------------------------------------------------------------------------------------------

    async def _run_kubelets(self) -> None:
        async for batch in self.client.watch(kinds.POD, decode=objects.decode_dict):
            mutations = [m for event, pod in batch.events if event != "DELETED" and (m := self._next(pod)) is not None]
            if mutations:
                with contextlib.suppress(errors.ApiError):
                    await self.client.batch(mutations)

    def _next(self, pod: dict[str, Any]) -> Mutation | None:
        meta = pod["metadata"]
        name, namespace = meta["name"], meta["namespace"]
        labels = meta.get("labels") or {}
        if meta.get("deletionTimestamp"):
            return Mutation.delete(kinds.POD, name, namespace, grace_period_seconds=0, uid=meta["uid"])
        if not pod["spec"].get("nodeName"):
            node = f"n{sum(map(ord, name)) % self.nodes + 1}"
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, "namespace": namespace},
                       "target": {"apiVersion": "v1", "kind": "Node", "name": node}}  # fmt: skip
            return Mutation.create(kinds.POD, binding, namespace, name=name, subresource="binding")
        if pod["status"].get("phase", "Pending") == "Pending" and "hold" not in labels:
            number = next(self._addresses)
            status = ready_status(f"10.244.{number // 250 % 250}.{number % 250 + 1}")
            if ended := labels.get("ends"):
                status = {"phase": ended}
            return Mutation.patch(
                kinds.POD, name, namespace, {"status": status}, type=PatchType.MERGE, subresource="status"
            )
        return None


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _paths(tls: TlsFiles) -> dict[str, str]:
    return {"ca_file": tls.ca_file, "cert_file": tls.cert_file, "key_file": tls.key_file}
