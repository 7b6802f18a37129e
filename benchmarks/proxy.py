"""Rules of 10,000 Services in a real kernel: a full write, and changes of one: `python -m benchmarks.proxy`.

Needs root and nft. It runs in a network namespace of its own, so nothing of this machine's rules is touched. What is
measured is everything between a slice that changed and the rule in the kernel, but for the way through the apiserver.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sys
import time

import msgspec

INSIDE = "CUTAWAY_BENCHMARK_NAMESPACE"


def objects(number: int, endpoints: list[str]) -> tuple[object, list[object]]:
    """A Service and its slice, decoded as the proxy decodes them."""
    from machinery.api.service_views import EndpointSlice, Service

    ip = f"10.{100 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"
    service = {
        "metadata": {"name": f"web-{number}", "namespace": "d"},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
    }
    piece = {
        "metadata": {"name": f"web-{number}-x", "namespace": "d"},
        "endpoints": [{"addresses": [e], "nodeName": f"n{i}"} for i, e in enumerate(endpoints)],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }
    return msgspec.convert(service, Service), [msgspec.convert(piece, EndpointSlice)]


async def measure(services: int, changes: int) -> None:
    """Print a line a figure."""
    from services.kube_proxy.nft_library import open_nft
    from services.kube_proxy.render import TABLE
    from services.kube_proxy.ruleset import Settings, service_ports
    from services.kube_proxy.table import Table

    settings, nft, table = Settings("n0", "10.244.0.0/16"), open_nft(), Table(Settings("n0", "10.244.0.0/16"))
    every = [objects(n, [f"10.244.{(n + k) // 250 % 250}.{n % 250 + 1}" for k in range(3)]) for n in range(services)]
    for name in ("full write", "adoption after a restart"):
        table, began = Table(settings), time.perf_counter()
        ports = [port for service, slices in every for port in service_ports(service, slices, settings)]  # type: ignore[arg-type]
        transaction = table.adopt(ports, await nft.names(TABLE))
        planned = time.perf_counter() - began
        await nft.apply(transaction)
        print(f"{name} of {services:,} Services: {time.perf_counter() - began:.2f} s, {planned:.2f} s of it planning")
    took = []
    for turn in range(changes):
        service, slices = objects(turn, [f"10.244.200.{turn % 250 + 1}", f"10.244.201.{turn % 250 + 1}"])
        began = time.perf_counter()
        ports = service_ports(service, slices, settings)  # type: ignore[arg-type]
        await nft.apply(table.change({port.key: port for port in ports}))
        took.append(time.perf_counter() - began)
    took.sort()
    print(f"one change: p50 {took[len(took) // 2] * 1000:.1f} ms, p99 {took[int(len(took) * 0.99)] * 1000:.1f} ms")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


def main() -> None:
    """Enter a namespace and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--changes", type=int, default=200)
    options = parser.parse_args()
    if INSIDE not in os.environ:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.executable, "-m", "benchmarks.proxy", *sys.argv[1:]])
    asyncio.run(measure(options.services, options.changes))


if __name__ == "__main__":
    main()
