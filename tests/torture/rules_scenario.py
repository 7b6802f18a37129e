"""One node with a real apiserver and a real proxy in a network namespace of their own: clients connect to a Service
all the time while its endpoints change, the proxy is killed, and started again.

    python -m tests.torture.rules_scenario --changes 1000 --services 1

Prints one JSON object. `tests/torture/test_rules.py` judges it, and `--idle` (no connections, no kill) is how
the time from a slice's change to the rules is measured.

    client 192.0.2.2 ── node 192.0.2.1 (apiserver and proxy on its loopback) 10.244.0.1 ── pods 10.244.0.2 to .5
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import yaml

from machinery.api import kinds
from machinery.client.api_client import ApiClient, Mutation
from machinery.component.tls import channel_credentials
from protos.cutaway.v1 import kube_proxy_pb2, kube_proxy_pb2_grpc
from tests.support.apiserver_process import ROOT, ApiServerProcess, files, free_port
from tests.support.netns import Namespace, namespace
from tests.support.torture import percentile

INSIDE = "CUTAWAY_RULES_SCENARIO"
PODS = [f"10.244.0.{n}" for n in range(2, 6)]
SERVICE, NODE = "10.96.0.5", "192.0.2.1"
PROXY_PORT = 10349
WAIT_SECONDS = 30.0
# Every pod answers with its address; one that is no endpoint any more goes on, as a pod does while it ends.
SERVER = """
import asyncio, sys
async def main():
    for address in sys.argv[1:]:
        async def answer(reader, writer, address=address):
            writer.write(address.encode())
            writer.close()
        await asyncio.start_server(answer, address, 8080, backlog=512)
    print("ready", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
# Connections one after the other, three at a time to each address, until stdin ends.
LOAD = """
import collections, json, socket, sys, threading
targets = [("10.96.0.5", 80), ("192.0.2.1", int(sys.argv[1]))]
stop, counts, failures = threading.Event(), collections.Counter(), []
def load(target):
    while not stop.is_set():
        try:
            with socket.create_connection(target, 5) as one:
                one.settimeout(5)
                counts[one.recv(64).decode()] += 1
        except OSError as error:
            failures.append(f"{target}: {error!r}")
threads = [threading.Thread(target=load, args=(t,)) for t in targets * 3]
for thread in threads: thread.start()
print("ready", flush=True)
sys.stdin.read()
stop.set()
for thread in threads: thread.join()
print(json.dumps({"answers": counts, "failures": failures}))
"""


class Proxy:
    """A kube-proxy process, and what it says that the kernel holds."""

    def __init__(self, server: ApiServerProcess, directory: Path) -> None:
        self.identity = server.pki.client("kube-proxy", "system:kube-proxy")
        serving = server.pki.server("kube-proxy-n1", "system:kube-proxy", ["localhost", "127.0.0.1"])
        self.config = directory / "kube-proxy.yaml"
        self.log = directory / "kube-proxy.log"
        self.config.write_text(
            yaml.safe_dump(
                {
                    "apiserver": [server.grpc],
                    "tls": _paths(self.identity),
                    "serving": _paths(serving),
                    "grpc_address": f"127.0.0.1:{PROXY_PORT}",
                    "http_address": f"127.0.0.1:{free_port()}",
                    "node_name": "n1",
                    "cluster_cidr": "10.244.0.0/16",
                    "pod_network": False,
                    "announce": False,
                    "network_policy": False,
                }
            )
        )
        admin = files(server.admin)
        self.channel = grpc.aio.secure_channel(f"127.0.0.1:{PROXY_PORT}", channel_credentials(admin))
        self.stub = kube_proxy_pb2_grpc.KubeProxyStub(self.channel)  # type: ignore[no-untyped-call]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        arguments = [sys.executable, "-m", "services.kube_proxy", "--config", str(self.config)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(arguments, cwd=ROOT, stdout=log, stderr=log)

    def end(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)

    async def holds(self, endpoints: set[str], pause: float = 0.001) -> None:
        """Wait until the rules have just these."""
        wanted = kube_proxy_pb2.GetRulesetRequest(namespace="default", service="web")
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                try:
                    ruleset = await self.stub.GetRuleset(wanted, timeout=5)
                    if [{e.ip for e in s.endpoints} for s in ruleset.services] == [endpoints]:
                        return
                except grpc.aio.AioRpcError:
                    assert self.process is not None
                    assert self.process.poll() is None, self.log.read_text()[-2000:]
                    await asyncio.sleep(0.05)
                await asyncio.sleep(pause)

    def resident_mb(self, kind: str = "VmRSS") -> float:
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split(f"{kind}:")[1].split()[0]) / 1024


def _paths(identity: Any) -> dict[str, str]:
    return {
        "ca_file": str(identity.ca_file), "cert_file": str(identity.cert_file), "key_file": str(identity.key_file),
    }  # fmt: skip


def _service(name: str, ip: str) -> dict[str, Any]:
    port = {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": {"type": "NodePort", "clusterIP": ip, "ports": [port]}}  # fmt: skip


def _slice(name: str, addresses: list[str]) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [_endpoint(address) for address in addresses],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }


def _endpoint(address: str) -> dict[str, Any]:
    return {"addresses": [address], "nodeName": "n1", "conditions": {"ready": True}}


def subset(turn: int) -> list[str]:
    """Two or three of the pods, other ones each turn: one comes and one goes, or just one of both."""
    first = turn % len(PODS)
    return [PODS[(first + n) % len(PODS)] for n in range(2 + turn // len(PODS) % 2)]


async def add_others(client: ApiClient, number: int) -> None:
    """More Services, each with three endpoints on three of a hundred nodes, which nobody asks."""
    objects = []
    for n in range(number):
        name, ip = f"other-{n}", f"10.96.{1 + n // 250}.{1 + n % 250}"
        body = _service(name, ip)
        body["spec"]["type"] = "ClusterIP"
        objects += [
            (kinds.SERVICE, body),
            (kinds.ENDPOINT_SLICE, _slice(name, [f"10.244.{(n + k) % 100}.{2 + n // 100}" for k in range(3)])),
        ]
        for k, endpoint in enumerate(objects[-1][1]["endpoints"]):
            endpoint["nodeName"] = f"n{(n + k) % 100 + 1}"
    for start in range(0, len(objects), 500):
        results = await client.batch([Mutation.create(kind, body) for kind, body in objects[start : start + 500]])
        assert all(result.error is None for result in results), results[0]


def wire(node: Namespace, name: str, address: str, gateway: str) -> None:
    """A namespace on a wire of its own to this one."""
    node.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", name, "netns", str(os.getpid()))
    node.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
    node.run("ip", "link", "set", "eth0", "up")
    node.run("ip", "route", "add", "default", "via", gateway)
    subprocess.run(["ip", "address", "add", f"{gateway}/24", "dev", name], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)


@contextlib.contextmanager
def inside(place: Namespace, program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program in a namespace, once it says that it is ready."""
    process = subprocess.Popen(
        ["nsenter", f"--net=/proc/{place.pid}/ns/net", "--", sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        yield process
    finally:
        process.kill()
        process.wait()


async def scenario(changes: int, services: int, directory: Path, *, idle: bool = False) -> dict[str, Any]:
    """See the module; what happened."""
    server = ApiServerProcess(directory)
    await asyncio.to_thread(server.start)
    proxy = Proxy(server, directory)
    client = await ApiClient.connect(server.grpc, files(server.admin), user_agent="scenario")
    try:
        made = await client.create(kinds.SERVICE, _service("web", SERVICE))
        await client.create(kinds.ENDPOINT_SLICE, _slice("web", PODS))
        await add_others(client, services - 1)
        proxy.start()
        await proxy.holds(set(PODS))
        if idle:
            took = await change(client, proxy, changes, kill_at=changes)
            return figures(took, proxy, changes, services)
        with namespace() as pods, namespace() as outside:
            wire(pods, "to-pods", PODS[0], "10.244.0.1")
            for address in PODS[1:]:
                pods.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
            wire(outside, "to-client", "192.0.2.2", NODE)
            node_port = str(made.spec.ports[0].nodePort)
            with inside(pods, SERVER, *PODS), inside(outside, LOAD, node_port) as load:
                took = await change(client, proxy, changes, kill_at=changes // 2)
                assert load.stdin is not None
                assert load.stdout is not None
                load.stdin.close()
                return json.loads(load.stdout.readline()) | figures(took, proxy, changes, services)
    finally:
        await client.close()
        await proxy.channel.close()
        proxy.end(signal.SIGTERM)
        server.stop()


def figures(took: list[float], proxy: Proxy, changes: int, services: int) -> dict[str, Any]:
    """What was measured, by name."""
    return {
        "changes": changes,
        "services": services,
        "p50_ms": round(1000 * percentile(took, 0.5), 1),
        "p99_ms": round(1000 * percentile(took, 0.99), 1),
        "proxy_mb": round(proxy.resident_mb()),
        # Without the programs and libraries, which it shares with every other component of the machine.
        "proxy_own_mb": round(proxy.resident_mb("RssAnon")),
    }


async def change(client: ApiClient, proxy: Proxy, changes: int, *, kill_at: int) -> list[float]:
    """Change the endpoints and wait for the rules, again and again; seconds from the answer to each write."""
    took: list[float] = []
    for turn in range(changes):
        if turn == kill_at:
            # Rules outlive the proxy, and the next one adopts them: connections go on throughout.
            proxy.end(signal.SIGKILL)
            await asyncio.sleep(0.5)
            proxy.start()
            await proxy.holds(set(subset(turn - 1)))
        endpoints = [_endpoint(address) for address in subset(turn)]
        await client.patch(kinds.ENDPOINT_SLICE, "web", "default", {"endpoints": endpoints})
        began = time.perf_counter()
        await proxy.holds(set(subset(turn)))
        took.append(time.perf_counter() - began)
    return took


def main() -> None:
    """Enter a namespace, and play."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--services", type=int, default=1)
    parser.add_argument("--idle", action="store_true", help="only change, with nobody connecting")
    options = parser.parse_args()
    if INSIDE not in os.environ:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.executable, "-m", "tests.torture.rules_scenario", *sys.argv[1:]])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    with tempfile.TemporaryDirectory() as directory:
        happened = scenario(options.changes, options.services, Path(directory), idle=options.idle)
        print(json.dumps(asyncio.run(happened)))


if __name__ == "__main__":
    main()
