"""How fast the apiserver is from outside: a process of its own, TLS and RBAC on, SQLite with FULL sync, load by wrk.

    python benchmarks/apiserver.py [--pods 3000] [--seconds 5] [--watchers 50]
    python benchmarks/apiserver.py --against DIRECTORY [--rounds 10] [--only configmaps,get]

Each row prints what was reached, and the CPU that the apiserver spent on one operation: on a machine that others use
too that is the figure to compare. Even that grows by half when others empty the caches; so to judge a change, compare
with another checkout: both servers run, and take turns at short loads. Needs the program wrk (Debian's package of that
name).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import aiohttp
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.apiserver_process import ROOT, ApiServerProcess

NAMESPACE = "bench"
PODS, MAPS = (f"/api/v1/namespaces/{NAMESPACE}/{plural}" for plural in ("pods", "configmaps"))
SEND = """local ffi = require("ffi")
ffi.cdef[[typedef struct {{ long s; long ns; }} ts; int clock_gettime(int, ts*);]]
local function now() local t = ffi.new("ts"); ffi.C.clock_gettime(1, t); return tonumber(t.s) + tonumber(t.ns) / 1e9 end
local i, ended, bad, began = -1, 0, 0, nil
local headers = {{["Content-Type"] = "{content_type}", ["Authorization"] = "Bearer {token}"}}
function request()
  i = i + 1; if i == 1 then began = now() end
  if i > {count} then return wrk.format("GET", "/version", headers) end
  local k = tostring(i + {start})
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
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
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


def _config_map(name: str, data: dict[str, str]) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


class Row(NamedTuple):
    """What one load came to."""

    rate: float
    # Of the apiserver, for one operation.
    cpu_seconds: float
    more: str


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
        """What the apiserver has spent so far, all threads that it has now."""
        assert self.server.process is not None
        threads = Path(f"/proc/{self.server.process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    def resident_mb(self) -> float:
        """Resident memory."""
        assert self.server.process is not None
        text = Path(f"/proc/{self.server.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1024

    def create_pods(self, count: int, start: int = 0) -> Row:
        """Pods that no scheduler takes."""
        resources = {"requests": {"cpu": "10m", "memory": "16Mi"}}
        spec = {
            "schedulerName": "nobody",
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "registry.example/pause:1", "resources": resources}],
        }
        metadata = {"name": "p@N@", "labels": {"app": "bench"}}
        return self._send(
            "POST", PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, count, start
        )

    def create_config_maps(self, count: int, start: int = 0) -> Row:
        """Small objects that nobody judges much."""
        return self._send("POST", MAPS, _config_map("c@N@", {"k": "v" * 100}), count, start)

    def patch_status(self, count: int, start: int = 0) -> Row:
        """A merge patch of each pod's status."""
        body = {"status": {"message": f"m@N@-{time.time()}"}}
        return self._send("PATCH", f"{PODS}/p@N@/status", body, count, start, "application/merge-patch+json")

    def _send(
        self, method: str, path: str, body: object, count: int, start: int, content_type: str = "application/json"
    ) -> Row:
        """`count` requests, 16 at a time; @N@ is the number of each, from `start` + 1."""
        before = self.cpu_seconds()
        seconds, bad = self._load(method, path, body, count, content_type, start=start)
        return Row(count / seconds, (self.cpu_seconds() - before) / count, f"failed {bad}")

    def _load(
        self,
        method: str,
        path: str,
        body: object,
        count: int,
        content_type: str,
        connections: int = 16,
        start: int = 0,
    ) -> tuple[float, int]:
        """The load of `send`: how many seconds it took, and how many requests failed."""
        script = SEND.format(
            method=method,
            path=path,
            body=json.dumps(body),
            count=count,
            start=start,
            content_type=content_type,
            token=self.token,
        )
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
            file.write(script)
            file.flush()
            arguments = [self.wrk, "-t1", f"-c{connections}", "-d300s", "-s", file.name, self.server.url]
            done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        seconds, bad = re.findall(r"RESULT ([\d.]+) (\d+)", done.stderr)[0]
        return float(seconds), int(bad)

    def read(self, path: str, connections: int, seconds: int) -> Row:
        """GET as fast as it goes."""
        before = self.cpu_seconds()
        arguments = [self.wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
        arguments += ["-H", f"Authorization: Bearer {self.token}", self.server.url + path]
        out = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
        count = int(re.findall(r"(\d+) requests in", out)[0])
        rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", out)[0])
        p50, p99 = (re.findall(rf"{percent}%\s+(\S+)", out)[0] for percent in (50, 99))
        return Row(rate, (self.cpu_seconds() - before) / count, f"p50 {p50} p99 {p99}")

    def watch(self, watchers: int, count: int) -> Row:
        """`count` objects are created, 8 at a time, while `watchers` watch them come."""
        return uvloop.run(self._watch(MAPS, watchers, count))

    async def _watch(self, path: str, watchers: int, count: int) -> Row:
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
        body = _config_map(f"w{revision}-@N@", {"t": "0"})
        task = asyncio.create_task(
            asyncio.to_thread(self._load, "POST", path, body, count, "application/json", connections=8)
        )
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            for probe in range(PROBES):
                await asyncio.sleep(0.03)
                name = f"p{revision}-{probe}"
                async with session.post(
                    self.server.url + path, json=_config_map(name, {"t": str(time.time())})
                ) as response:
                    assert response.status == 201
        await task
        async with asyncio.timeout(120):
            for client in clients:
                await client.done.wait()
        seconds = time.perf_counter() - started
        events = sum(client.events for client in clients)
        lags.sort()
        lag = f"lag p50 {lags[len(lags) // 2] * 1e3:.1f} ms, max {lags[-1] * 1e3:.1f} ms"
        cpu = (self.cpu_seconds() - before) / events
        for client in clients:
            assert client.transport is not None
            client.transport.close()
        return Row(events / seconds, cpu, lag)

    def say(self, name: str, row: Row) -> None:
        """One line."""
        cpu, resident = row.cpu_seconds * 1e3, self.resident_mb()
        print(f"{name:22} {row.rate:8.0f} /s   {cpu:6.3f} ms CPU each   {resident:6.1f} MB   {row.more}", flush=True)


def run_rows(bench: Bench, options: argparse.Namespace) -> None:
    """Every row once, on one server."""
    print(f"{'after start':22} {'':11}   {bench.cpu_seconds():6.2f} s CPU        {bench.resident_mb():6.1f} MB")
    bench.say("create pods", bench.create_pods(options.pods))
    bench.say("create configmaps", bench.create_config_maps(5000))
    bench.say("patch pod status", bench.patch_status(options.pods))
    bench.say("GET a pod", bench.read(f"{PODS}/p1", 16, options.seconds))
    bench.say(f"LIST {options.pods} pods", bench.read(PODS, 2, options.seconds))
    bench.say(f"watch, {options.watchers} watchers", bench.watch(options.watchers, 2000))


TURN = 400
"""Operations of one turn: about a tenth of a second when the machine is idle."""


def compare(ours: Bench, theirs: Bench, options: argparse.Namespace) -> None:
    """Both servers take turns at every row; what one spends and reaches as a multiple of the other, as medians."""
    rows: dict[str, Callable[[Bench, int], Row]] = {
        "pods": lambda bench, turn: bench.create_pods(TURN, turn * TURN),
        "configmaps": lambda bench, turn: bench.create_config_maps(2 * TURN, turn * 2 * TURN),
        "patch": lambda bench, turn: bench.patch_status(TURN, turn % max(options.rounds, 1) * TURN),
        "get": lambda bench, _: bench.read(f"{PODS}/p1", 16, 1),
        "list": lambda bench, _: bench.read(PODS, 2, 1),
        "watch": lambda bench, _: bench.watch(options.watchers, TURN),
    }
    wanted = options.only.split(",") if options.only else list(rows)
    for name, row in rows.items():
        if name not in wanted and not (name == "pods" and {"patch", "get", "list"} & set(wanted)):
            continue
        done: dict[Bench, list[Row]] = {ours: [], theirs: []}
        for turn in range(options.rounds):
            for bench in (ours, theirs) if turn % 2 else (theirs, ours):
                done[bench].append(row(bench, turn))
        cpu = [statistics.median(row.cpu_seconds for row in done[bench]) for bench in (ours, theirs)]
        rate = [statistics.median(row.rate for row in done[bench]) for bench in (ours, theirs)]
        print(
            f"{name:12} CPU {cpu[0] * 1e3:7.4f} / {cpu[1] * 1e3:7.4f} ms = {cpu[0] / cpu[1]:5.3f}"
            f"   rate {rate[0]:8.0f} / {rate[1]:8.0f} /s = {rate[0] / rate[1]:5.3f}   {done[ours][-1].more}",
            flush=True,
        )


def main() -> None:
    """Run every row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=3000)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--watchers", type=int, default=50)
    parser.add_argument("--against", type=Path, help="another checkout, to compare with")
    parser.add_argument("--rounds", type=int, default=10, help="how many turns each takes")
    parser.add_argument("--only", default="", help="rows to compare: pods,configmaps,patch,get,list,watch")
    options = parser.parse_args()
    wrk = shutil.which("wrk")
    if wrk is None:
        sys.exit("benchmarks/apiserver.py: the program wrk is needed (apt-get install wrk)")
    checkouts = [ROOT, options.against.absolute()] if options.against else [ROOT]
    with contextlib.ExitStack() as stack:
        benches: list[Bench] = []
        for checkout in checkouts:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cutaway-bench-")))
            server = ApiServerProcess(directory, root=checkout, log_format="json")
            stack.callback(server.stop)
            benches.append(Bench(server.start(), wrk))
        if options.against:
            compare(*benches, options)
        else:
            run_rows(*benches, options)


if __name__ == "__main__":
    main()
