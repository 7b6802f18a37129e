"""A real kubelet process on a real apiserver and a real runtime, for end-to-end tests of the node."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from machinery.api import errors, kinds
from machinery.client.api_client import ApiClient
from tests.support.apiserver_process import ROOT, ApiServerProcess, files
from tests.support.private_containerd import BUSYBOX_IMAGE

Json = dict[str, Any]


class KubeletNode:
    """Start, kill and start again. `directory` holds its root, logs and configuration."""

    def __init__(
        self,
        apiserver: ApiServerProcess,
        runtime_endpoint: str,
        directory: Path,
        port: int,
        name: str = "n1",
        **more: Any,
    ) -> None:
        self.apiserver = apiserver
        self.name = name
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.root = directory / "kubelet"
        self.manifests = directory / "manifests"
        self.manifests.mkdir(exist_ok=True)
        user = f"system:node:{name}"
        identity = files(apiserver.pki.client(f"kubelet-{name}", user, ["system:nodes"]))
        serving = files(apiserver.pki.server(f"kubelet-{name}", user, ["127.0.0.1", "localhost"], ["system:nodes"]))
        self.settings: Json = {
            "apiserver": [apiserver.grpc],
            "tls": _section(identity),
            "serving": _section(serving),
            "grpc_address": f"127.0.0.1:{port}",
            "http_address": f"127.0.0.1:{port + 1}",
            "node_name": name,
            "node_ip": "127.0.0.1",
            "runtime_endpoint": runtime_endpoint,
            "root_dir": str(self.root),
            "manifests_dir": str(self.manifests),
            "cluster_dns": ["10.96.0.10"],
            "cgroup_root": f"/kubelet-test-{name}",
            "log_format": "console",
            "system_logs_dir": str(self.directory),
            **more,
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return (self.directory / "kubelet.log").read_text()

    def start(self) -> KubeletNode:
        config = self.directory / "kubelet.yaml"
        config.write_text(yaml.safe_dump(self.settings))
        arguments = [sys.executable, "-m", "services.kubelet", "--config", str(config)]
        with (self.directory / "kubelet.log").open("ab") as log:
            self.process = subprocess.Popen(arguments, cwd=ROOT, stdout=log, stderr=log)
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; its pods go on."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(15)
        self.process = None
        return code

    def clean(self) -> None:
        """Remove what a kubelet leaves when it is stopped with pods: mounts and cgroups."""
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(str(self.directory))), key=len, reverse=True):
            subprocess.run(["umount", "-l", mount], check=False)
        for root in Path("/sys/fs/cgroup").glob(f"*/{self.settings['cgroup_root'].strip('/')}"):
            for path, _, _ in os.walk(root, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(path)

    def rss_bytes(self) -> int:
        assert self.process is not None
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return 0


def _section(tls: Any) -> Json:
    return {"ca_file": tls.ca_file, "cert_file": tls.cert_file, "key_file": tls.key_file}


class Cluster:
    """What a test of the node needs of the API: create, wait, read. Synchronous by kubectl, fast by the client."""

    def __init__(self, apiserver: ApiServerProcess, client: ApiClient, node: KubeletNode) -> None:
        self.apiserver = apiserver
        self.client = client
        self.node = node
        self.namespace = "default"

    async def prepare(self, namespace: str) -> None:
        """A namespace with the account and the certificate bundle that the controllers would put there."""
        await self._create(kinds.NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": namespace},
        }
        await self._create(kinds.SERVICE_ACCOUNT, account, namespace)
        bundle = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "kube-root-ca.crt", "namespace": namespace},
            "data": {"ca.crt": self.apiserver.pki.ca_file.read_text()},
        }
        await self._create(kinds.CONFIG_MAP, bundle, namespace)

    async def _create(self, kind: kinds.Kind, obj: Json, namespace: str = "") -> None:
        try:
            await self.client.create(kind, obj, namespace)
        except errors.AlreadyExists:
            return

    async def ready_node(self, timeout: float = 15.0) -> Any:
        """Wait until the node is Ready and untainted."""

        def is_ready(node: Any) -> bool:
            conditions = node.status.conditions or [] if node.status else []
            return any(c.type == "Ready" and c.status == "True" for c in conditions)

        return await self.wait(kinds.NODE, self.node.name, "", is_ready, timeout)

    async def wait(
        self, kind: kinds.Kind, name: str, namespace: str, test: Callable[[Any], bool], timeout: float = 30.0
    ) -> Any:
        """The object as soon as it passes the test, by a watch.

        On time-out fails with its last state and the kubelet's log.
        """
        last: Any = None
        try:
            async with asyncio.timeout(timeout):
                selector = f"metadata.name={name}"
                async for batch in self.client.watch(kind, namespace, field_selector=selector):
                    for event, obj in batch.events:
                        last = None if event == "DELETED" else obj
                        if last is not None and test(last):
                            return last
        except TimeoutError:
            shown = "absent" if last is None else json.dumps(_plain(getattr(last, "status", last)), indent=1)
            raise AssertionError(f"{kind.kind} {name} did not get there: {shown}\n{self.node.log[-4000:]}") from None
        raise AssertionError("the watch ended")

    async def pod(self, name: str, namespace: str, spec: Json, **metadata: Any) -> Any:
        """Create a pod on the node."""
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, **metadata},
            "spec": {"nodeName": self.node.name, "terminationGracePeriodSeconds": 1, **spec},
        }
        return await self.client.create(kinds.POD, pod, namespace)

    async def until_ready(self, name: str, namespace: str, timeout: float = 30.0) -> Any:
        return await self.wait(kinds.POD, name, namespace, is_ready, timeout)

    async def told(self, namespace: str, words: str, timeout: float = 15.0) -> None:
        """Wait for an event with these words: events follow what they tell of."""
        try:
            async with asyncio.timeout(timeout):
                async for batch in self.client.watch(kinds.EVENT, namespace):
                    if any(words in (event.message or "") for _, event in batch.events):
                        return
        except TimeoutError:
            raise AssertionError(f"no event says {words!r}\n{self.node.log[-4000:]}") from None

    async def gone(self, name: str, namespace: str, timeout: float = 30.0, kind: kinds.Kind = kinds.POD) -> None:
        """Wait until the object (a pod, unless told otherwise) is deleted at the apiserver."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                await self.client.get(kind, name, namespace)
            except errors.NotFound:
                return
            assert time.monotonic() < deadline, self.node.log[-4000:]
            await asyncio.sleep(0.02)

    def kubectl(self, *arguments: str, input: str | None = None, check: bool = True, timeout: float = 30) -> str:
        """kubectl's output."""
        command = ["kubectl", "--kubeconfig", str(self.apiserver.kubeconfig()), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, input=input, timeout=timeout, check=False)
        assert not check or done.returncode == 0, f"{arguments}: {done.stderr}\n{self.node.log[-2000:]}"
        return done.stdout if check else done.stdout + done.stderr


def _plain(value: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(value)


def is_ready(pod: Any) -> bool:
    """Whether the pod's Ready condition is true."""
    return any(c.type == "Ready" and c.status == "True" for c in (pod.status.conditions or []) if pod.status)


def busybox(name: str = "c", script: str = "", **more: Any) -> Json:
    """A container of the test image: a shell script, or one that sleeps and ends at once when told."""
    script = script or "trap 'exit 0' TERM; while true; do sleep 0.05; done"
    return {"name": name, "image": BUSYBOX_IMAGE, "command": ["sh", "-c", script], **more}


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
