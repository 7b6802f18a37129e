"""How fast the apiserver is from outside: a process of its own, TLS and RBAC on, SQLite with FULL sync, load by wrk.

    python benchmarks/apiserver.py [--pods 3000] [--seconds 5] [--watchers 50]

Each row prints what was reached, and the CPU that the apiserver spent on one operation: on a machine that others use
too that is the figure to compare. Needs the program wrk (Debian's package of that name).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import aiohttp
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.apiserver_process import ApiServerProcess

NAMESPACE = "bench"
SEND = """local ffi = require("ffi")
ffi.cdef[[typedef struct {{ long s; long ns; }} ts; int clock_gettime(int, ts*);]]
local function now() local t = ffi.new("ts"); ffi.C.clock_gettime(1, t); return tonumber(t.s) + tonumber(t.ns) / 1e9 end
local i, ended, bad, began = -1, 0, 0, nil
local headers = {{["Content-Type"] = "{content_type}", ["Authorization"] = "Bearer {token}"}}
function request()
  i = i + 1; if i == 1 then began = now() end
  if i > {count} then return wrk.format("GET", "/version", headers) end
  local k = tostring(i)
  return wrk.format("{method}", (([==[{path}]==]):gsub("@N@", k)), headers, (([==[{body}]==]):gsub("@N@", k)))
end
function response(status)
  ended = ended + 1; if status >= 300 then bad = bad + 1 end
  if ended >= {count} then
    io.stderr:write(string.format("RESULT %.6f %d\\n", now() - began, bad)); io.stderr:flush(); os.exit(0)
  end
end
"""


MARK = b'"t":"'
PROBES = 20


class WatchClient(asyncio.Protocol):
    """One watch that counts events, and tells how old each probe (an event with a clock in it) is when it comes. It
    looks for marks instead of parsing HTTP, so that the server is what is measured."""

    def __init__(self, head: bytes, lags: list[float], expected: int) -> None:
        self.head, self.lags, self.expected = head, lags, expected
        self.done = asyncio.Event()
        self.events = 0
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self.head)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        data = self.rest + data
        # A mark may be cut by the end of what has come; what is kept is too short to hold a whole one.
        cut = data.rfind(b"\n") + 1
        self.rest, data = data[cut:], data[:cut]
        self.events += data.count(MARK)
        self.lags += [time.time() - sent for sent in map(float, re.findall(rb'"t":"([\d.]+)"', data)) if sent]
        if self.events >= self.expected:
            self.done.set()


def _given(client: WatchClient) -> WatchClient:
    return client


def _config_map(name: str, text: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"t": text}}


class Bench:
    """One server and the loads on it."""

    def __init__(self, server: ApiServerProcess, wrk: str) -> None:
        self.server, self.wrk = server, wrk
        manifest = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: default, namespace: {NAMESPACE}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: bench}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}}
subjects: [{{kind: ServiceAccount, name: default, namespace: {NAMESPACE}}}]
"""
        server.kubectl("apply", "-f", "-", stdin=manifest)
        self.token = server.kubectl("create", "token", "default", "-n", NAMESPACE).stdout.strip()

    def cpu_seconds(self) -> float:
        """What the apiserver has spent so far, all threads."""
        assert self.server.process is not None
        fields = Path(f"/proc/{self.server.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mb(self) -> float:
        """Resident memory."""
        assert self.server.process is not None
        text = Path(f"/proc/{self.server.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1024

    def send(
        self, row: str, method: str, path: str, body: object, count: int, content_type: str = "application/json"
    ) -> None:
        """`count` requests, 16 at a time; @N@ is the number of each."""
        before = self.cpu_seconds()
        seconds, bad = self._load(method, path, body, count, content_type)
        self.say(row, f"{count / seconds:8.0f} /s", (self.cpu_seconds() - before) / count, f"failed {bad}")

    def _load(
        self, method: str, path: str, body: object, count: int, content_type: str, connections: int = 16
    ) -> tuple[float, int]:
        """The load of `send`: how many seconds it took, and how many requests failed."""
        script = SEND.format(
            method=method, path=path, body=json.dumps(body), count=count, content_type=content_type, token=self.token
        )
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
            file.write(script)
            file.flush()
            arguments = [self.wrk, "-t1", f"-c{connections}", "-d300s", "-s", file.name, self.server.url]
            done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        seconds, bad = re.findall(r"RESULT ([\d.]+) (\d+)", done.stderr)[0]
        return float(seconds), int(bad)

    def read(self, row: str, path: str, connections: int, seconds: int) -> None:
        """GET as fast as it goes."""
        before = self.cpu_seconds()
        arguments = [self.wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
        arguments += ["-H", f"Authorization: Bearer {self.token}", self.server.url + path]
        out = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
        rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", out)[0])
        p50, p99 = (re.findall(rf"{percent}%\s+(\S+)", out)[0] for percent in (50, 99))
        self.say(row, f"{rate:8.1f} /s", (self.cpu_seconds() - before) / (rate * seconds), f"p50 {p50} p99 {p99}")

    def watch(self, row: str, path: str, watchers: int, count: int) -> None:
        """`count` objects are created, 8 at a time, while `watchers` watch them come."""
        uvloop.run(self._watch(row, path, watchers, count))

    async def _watch(self, row: str, path: str, watchers: int, count: int) -> None:
        context = ssl.create_default_context(cafile=str(self.server.admin.ca_file))
        context.load_cert_chain(self.server.admin.cert_file, self.server.admin.key_file)
        revision = json.loads(self.server.kubectl("get", "--raw", f"{path}?limit=1").stdout)["metadata"][
            "resourceVersion"
        ]
        head = f"GET {path}?watch=1&resourceVersion={revision} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
        lags: list[float] = []
        clients = [WatchClient(head, lags, count + PROBES) for _ in range(watchers)]
        for client in clients:
            loop = asyncio.get_running_loop()
            await loop.create_connection(
                partial(_given, client), "127.0.0.1", self.server.rest_port, ssl=context, server_hostname="localhost"
            )
        await asyncio.sleep(0.5)
        before, started = self.cpu_seconds(), time.perf_counter()
        body = _config_map(f"w{revision}-@N@", "0")
        task = asyncio.create_task(
            asyncio.to_thread(self._load, "POST", path, body, count, "application/json", connections=8)
        )
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            for probe in range(PROBES):
                await asyncio.sleep(0.03)
                name = f"p{revision}-{probe}"
                async with session.post(self.server.url + path, json=_config_map(name, str(time.time()))) as response:
                    assert response.status == 201
        await task
        async with asyncio.timeout(120):
            for client in clients:
                await client.done.wait()
        seconds = time.perf_counter() - started
        events = sum(client.events for client in clients)
        lags.sort()
        lag = f"lag p50 {lags[len(lags) // 2] * 1e3:.1f} ms, max {lags[-1] * 1e3:.1f} ms"
        self.say(row, f"{events / seconds:8.0f} /s", (self.cpu_seconds() - before) / events, lag)

    def say(self, row: str, rate: str, cpu: float, more: str) -> None:
        """One line."""
        print(f"{row:22} {rate}   {cpu * 1e3:6.3f} ms CPU each   {self.resident_mb():6.1f} MB   {more}", flush=True)


def main() -> None:
    """Run every row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=3000)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--watchers", type=int, default=50)
    options = parser.parse_args()
    wrk = shutil.which("wrk")
    if wrk is None:
        sys.exit("benchmarks/apiserver.py: the program wrk is needed (apt-get install wrk)")
    with tempfile.TemporaryDirectory(prefix="cutaway-bench-") as directory:
        server = ApiServerProcess(Path(directory), log_format="json").start()
        try:
            bench = Bench(server, wrk)
            print(f"{'after start':22} {'':11}   {bench.cpu_seconds():6.2f} s CPU        {bench.resident_mb():6.1f} MB")
            pods, maps = (f"/api/v1/namespaces/{NAMESPACE}/{plural}" for plural in ("pods", "configmaps"))
            resources = {"requests": {"cpu": "10m", "memory": "16Mi"}}
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "p@N@", "labels": {"app": "bench"}},
                "spec": {
                    "schedulerName": "nobody",
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "c", "image": "registry.example/pause:1", "resources": resources}],
                },
            }
            config_map = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "c@N@"},
                "data": {"k": "v" * 100},
            }
            bench.send("create pods", "POST", pods, pod, options.pods)
            bench.send("create configmaps", "POST", maps, config_map, 5000)
            merge = "application/merge-patch+json"
            bench.send(
                "patch pod status", "PATCH", f"{pods}/p@N@/status", {"status": {"message": "m@N@"}}, options.pods, merge
            )
            bench.read("GET a pod", f"{pods}/p1", 16, options.seconds)
            bench.read(f"LIST {options.pods} pods", pods, 2, options.seconds)
            bench.watch(f"watch, {options.watchers} watchers", maps, options.watchers, 2000)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
