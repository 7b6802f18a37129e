"""What the ingress controller's HAProxy costs beside others: `python -m benchmarks.ingress [--seconds N] [--bytes N]`.

The same backend (one more HAProxy that answers `--bytes`) and the same load (wrk), in turns through three proxies.
`bare` has nothing but a frontend and a server; `by hand` also routes by host and path, tells the backend who asks, and
tries again, for a single route, as somebody would write it; `ingress` is what the controller makes of a hundred
Ingresses of ten paths. `--log` gives all an access log; `--no-resend` gives them `proxy-next-upstream: off`, by
which the proxy keeps no copy of what it sends. Throughput, on a machine whose cores the load, the proxies and
the backend share, is what a client sees; processor time a request is what the proxy costs.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from machinery.api.service_views import Service
from services.ingress import certificates, changes, haproxy, render, routes
from services.ingress.api import Ingress
from services.ingress.table import Endpoint

HOSTS, PATHS, CONNECTIONS = 100, 10, 32
ORIGIN, BARE, OURS, HAND = 28080, 28081, 28082, 28083
DEFAULTS = "defaults\n    mode http\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n"
ORIGIN_CONFIG = f"""global
    nbthread 1
{DEFAULTS}
frontend origin
    bind 127.0.0.1:{ORIGIN}
    http-request return status 200 content-type text/plain string BODY
"""
BARE_CONFIG = f"""global
    nbthread 1
{DEFAULTS}
frontend bare
    bind 127.0.0.1:{BARE}
    LOG
    default_backend origin
backend origin
    server s1 127.0.0.1:{ORIGIN}
"""
HAND_CONFIG = f"""global
    nbthread 1
{DEFAULTS}
    retries 3
    option redispatch 1
    retry-on conn-failure empty-response
frontend hand
    bind 127.0.0.1:{HAND}
    LOG
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Real-IP %[src]
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Port %[dst_port]
    http-request set-header X-Forwarded-Proto http
    use_backend origin if {{ hdr(host) -i h{HOSTS - 1}.example.test }} {{ path_beg /p{PATHS - 1}/ }}
    http-request disable-l7-retry unless {{ method GET HEAD OPTIONS PUT DELETE TRACE }}
backend origin
    server s1 127.0.0.1:{ORIGIN}
"""


def table(*, resend: bool = True) -> tuple[changes.Running, render.Settings]:
    """A hundred Ingresses; all lead to the origin."""
    import msgspec

    def ingress(number: int) -> Ingress:
        paths = [
            {
                "path": f"/p{n}",
                "pathType": "Prefix",
                "backend": {"service": {"name": f"s{number}", "port": {"number": 80}}},
            }
            for n in range(PATHS)
        ]
        created = f"2026-01-01T00:00:{number:03}Z"
        off = {} if resend else {"nginx.ingress.kubernetes.io/proxy-next-upstream": "off"}
        body = {
            "metadata": {"name": f"i{number}", "namespace": "d", "creationTimestamp": created, "annotations": off},
            "spec": {"rules": [{"host": f"h{number}.example.test", "http": {"paths": paths}}]},
        }
        return msgspec.convert(body, Ingress)

    service = msgspec.convert({"spec": {"ports": [{"port": 80}]}}, Service)
    built = routes.build([ingress(n) for n in range(HOSTS)], lambda _: service, lambda _: None, time.time())
    assert not built.problems
    run = Path(tempfile.mkdtemp(prefix="ing-"))
    settings = render.Settings(run, (f"127.0.0.1:{OURS}",), (), access_log=False, threads=1)
    pem = certificates.self_signed(datetime.datetime.now(datetime.UTC)).pem
    wanted = render.render(built, dict.fromkeys(built.backends, (Endpoint("127.0.0.1", ORIGIN),)), settings, pem)
    return changes.fresh(wanted), settings


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(port: int, seconds: int, pid: int) -> tuple[float, float]:
    """(requests a second, proxy's microseconds a request) under wrk."""
    before = cpu_seconds(pid)
    url = f"http://127.0.0.1:{port}/p{PATHS - 1}/index.html"
    argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-H", f"Host: h{HOSTS - 1}.example.test", url]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in said, said
    count = int(re.search(r"(\d+) requests in", said)[1])  # type: ignore[index]
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])  # type: ignore[index]
    return rate, (cpu_seconds(pid) - before) / count * 1e6


def start(program: str, folder: Path, name: str, text: str, output: int) -> subprocess.Popen[bytes]:
    """A bare HAProxy in the foreground."""
    (folder / f"{name}.cfg").write_text(text)
    # As the controller's: the kernel shares processors between sessions first (autogroup), and then within them.
    return subprocess.Popen(
        [program, "-db", "-q", "-f", str(folder / f"{name}.cfg")], stdout=output, start_new_session=True
    )


async def measure(seconds: int, rounds: int, log: bool, size: int, resend: bool) -> None:
    """Measure and print."""
    program = haproxy.find_program()
    if program is None or shutil.which("wrk") is None:
        raise SystemExit("needs haproxy and wrk: apt-get install haproxy wrk")
    running, settings = table(resend=resend)
    folder = settings.run
    if log:
        with_log = render.frame(render.Settings(**{**_fields(settings), "access_log": True}), 60)
        running = changes.Running(changes.replace(running.wanted, frame=with_log), running.servers)
    with (folder / "log").open("ab") as output:
        proxy = haproxy.Haproxy(settings, program)
        lines = "log stdout format raw local0\n    option httplog" if log else ""
        origin = start(program, folder, "origin", ORIGIN_CONFIG.replace("BODY", "x" * size), output.fileno())
        bare = start(program, folder, "bare", BARE_CONFIG.replace("LOG", lines), output.fileno())
        hand = start(program, folder, "hand", HAND_CONFIG.replace("LOG", lines), output.fileno())
        await asyncio.sleep(0.5)
        stdout = os.dup(1)
        os.dup2(output.fileno(), 1)  # the access log goes where our output goes
        await proxy.load(running)
        os.dup2(stdout, 1)
        try:
            from services.ingress import runtime

            pids = {
                "bare": (BARE, bare.pid),
                "by hand": (HAND, hand.pid),
                "ingress": (OURS, await runtime.worker_pid(folder)),
            }
            best: dict[str, list[tuple[float, float]]] = {name: [] for name in pids}
            for _ in range(rounds):
                for name, (port, pid) in pids.items():
                    best[name].append(await asyncio.to_thread(load, port, seconds, pid))
            for name, found in best.items():
                rate, cost = (sorted(column)[rounds // 2] for column in zip(*found, strict=True))
                print(f"{name:8} {rate:9,.0f} requests/s   {cost:5.1f} µs/request")
            for name in ("bare", "by hand"):
                pairs = sorted(ours[0] / other[0] for other, ours in zip(best[name], best["ingress"], strict=True))
                print(f"ingress / {name}, median of {rounds} pairs: {pairs[rounds // 2]:.1%}")
        finally:
            await proxy.stop()
            for process in (bare, hand, origin):
                process.terminate()
                process.wait(5)
    shutil.rmtree(folder, ignore_errors=True)


def _fields(settings: render.Settings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    # wrk takes whole seconds.
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--log", action="store_true")
    parser.add_argument("--no-resend", action="store_true")
    # What HAProxy returns of its own accord must fit its buffer.
    parser.add_argument("--bytes", type=int, default=1024, help="of an answer, at most 14,000")
    options = parser.parse_args()
    asyncio.run(measure(options.seconds, options.rounds, options.log, options.bytes, not options.no_resend))


if __name__ == "__main__":
    main()
