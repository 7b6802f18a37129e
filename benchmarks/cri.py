"""How long a pod takes through the shim and through containerd's own CRI plugin in one run; what the shim costs idle.

    python benchmarks/cri.py [--rounds 20] [--idle-pods 30] [--idle-seconds 10]

Each round runs a sandbox, creates and starts a container, and takes all of it down again, alternating between the two
runtimes so that the machine's other load falls on both. Figures are medians in milliseconds.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.containerd import Containerd, Shim, available
from tests.support.cri_client import CriClient
from tests.support.images import busybox_archive

STEPS = ("sandbox", "create", "start", "total", "kill", "stop", "remove")


def one_round(client: CriClient, number: int) -> dict[str, float]:
    marks = [time.perf_counter()]

    def mark() -> None:
        marks.append(time.perf_counter())

    pod = client.run_pod(client.pod_config(f"bench{number}"))
    mark()
    container = pod.create("sleep", "1000")
    mark()
    container.start()
    mark()
    container.stop(0)
    mark()
    pod.stop()
    mark()
    pod.remove()
    mark()
    milliseconds = [1000 * (after - before) for before, after in itertools.pairwise(marks)]
    return {
        "sandbox": milliseconds[0],
        "create": milliseconds[1],
        "start": milliseconds[2],
        "total": sum(milliseconds[:3]),
        "kill": milliseconds[3],
        "stop": milliseconds[4],
        "remove": milliseconds[5],
    }


def at_once(client: CriClient, count: int) -> float:
    def start(number: int) -> None:
        client.run_pod(client.pod_config(f"burst{number}")).run("sleep", "1000")

    began = time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(start, range(count)))
    elapsed = time.perf_counter() - began
    client.remove_everything()
    return elapsed


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def idle(client: CriClient, shim: Shim, pods: int, seconds: float) -> tuple[float, float]:
    """(CPU in per cent of a core, memory in MiB) of the shim with so many pods that do nothing."""
    assert shim.process
    for number in range(pods):
        client.run_pod(client.pod_config(f"idle{number}")).run("sleep", "1000")
    before = cpu_seconds(shim.process.pid)
    time.sleep(seconds)
    used = cpu_seconds(shim.process.pid) - before
    memory = memory_mib(shim.process.pid)
    client.remove_everything()
    return 100 * used / seconds, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--burst", type=int, default=20)
    parser.add_argument("--idle-pods", type=int, default=30)
    parser.add_argument("--idle-seconds", type=float, default=10.0)
    args = parser.parse_args()
    reason = available()
    if reason:
        raise SystemExit(f"benchmarks/cri.py: {reason}")
    with tempfile.TemporaryDirectory(prefix="cri-bench-") as name:
        directory = Path(name)
        own, other = Containerd(directory / "own"), Containerd(directory / "plugin", cri_plugin=True)
        shim = Shim(own, directory / "shim")
        try:
            own.start()
            other.start()
            archive = str(busybox_archive(directory / "image"))
            load = [sys.executable, "-m", "cri.images.load", "--socket", str(own.socket), archive]
            subprocess.run(load, check=True, stdout=subprocess.DEVNULL)
            ctr = ["ctr", "-a", str(other.socket), "-n", "k8s.io", "images", "import", archive]
            subprocess.run(ctr, check=True, stdout=subprocess.DEVNULL)
            shim.start()
            clients = {
                "shim": CriClient(shim.socket, directory / "logs-shim", "cutaway"),
                "plugin": CriClient(other.socket, directory / "logs-plugin", "containerd"),
            }
            results: dict[str, list[dict[str, float]]] = {name: [] for name in clients}
            for number in range(args.rounds + 2):
                for name, client in clients.items():
                    figures = one_round(client, number)
                    if number >= 2:  # the first ones fill caches
                        results[name].append(figures)
            print(f"{'median ms':12}" + "".join(f"{step:>11}" for step in STEPS))
            for name, rounds in results.items():
                medians = [statistics.median(figures[step] for figures in rounds) for step in STEPS]
                print(f"{name:12}" + "".join(f"{value:11.1f}" for value in medians))
            for name, client in clients.items():
                print(f"{args.burst} pods at once, {name}: {at_once(client, args.burst):.2f} s")
            assert shim.process
            print(f"shim's memory after that: {memory_mib(shim.process.pid):.1f} MiB")
            cpu, memory = idle(clients["shim"], shim, args.idle_pods, args.idle_seconds)
            print(f"shim with {args.idle_pods} idle pods: {cpu:.2f} % of a core, {memory:.1f} MiB")
        finally:
            shim.stop()
            own.stop()
            other.stop()


if __name__ == "__main__":
    main()
