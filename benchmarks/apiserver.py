"""How fast the apiserver is from outside: a process of its own, TLS and RBAC on, SQLite with FULL sync, load by wrk.

    python benchmarks/apiserver.py [--pods 3000] [--seconds 5]

Each row prints what was reached, and the CPU that the apiserver spent on one operation: on a machine that others use
too that is the figure to compare. Needs the program wrk (Debian's package of that name).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

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
        script = SEND.format(
            method=method, path=path, body=json.dumps(body), count=count, content_type=content_type, token=self.token
        )
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
            file.write(script)
            file.flush()
            before = self.cpu_seconds()
            arguments = [self.wrk, "-t1", "-c16", "-d300s", "-s", file.name, self.server.url]
            done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        seconds, bad = re.findall(r"RESULT ([\d.]+) (\d+)", done.stderr)[0]
        self.say(row, f"{count / float(seconds):8.0f} /s", (self.cpu_seconds() - before) / count, f"failed {bad}")

    def read(self, row: str, path: str, connections: int, seconds: int) -> None:
        """GET as fast as it goes."""
        before = self.cpu_seconds()
        arguments = [self.wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
        arguments += ["-H", f"Authorization: Bearer {self.token}", self.server.url + path]
        out = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
        rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", out)[0])
        p50, p99 = (re.findall(rf"{percent}%\s+(\S+)", out)[0] for percent in (50, 99))
        self.say(row, f"{rate:8.1f} /s", (self.cpu_seconds() - before) / (rate * seconds), f"p50 {p50} p99 {p99}")

    def say(self, row: str, rate: str, cpu: float, more: str) -> None:
        """One line."""
        print(f"{row:22} {rate}   {cpu * 1e3:6.3f} ms CPU each   {self.resident_mb():6.1f} MB   {more}", flush=True)


def main() -> None:
    """Run every row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=3000)
    parser.add_argument("--seconds", type=int, default=5)
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
        finally:
            server.stop()


if __name__ == "__main__":
    main()
