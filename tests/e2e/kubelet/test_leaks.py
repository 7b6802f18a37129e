"""Pods of every kind come and go, and the machine is as it was: issue 5's 200 pods, a tenth of them in CI."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from machinery.api import kinds
from tests.support import cgroups
from tests.support.kubelet_node import Cluster, busybox
from tests.support.private_containerd import PrivateContainerd
from tests.support.torture import figure, times

pytestmark = [pytest.mark.root, pytest.mark.torture]

PODS = times(200, 20)
AT_ONCE = 20


def _run(*command: str) -> list[str]:
    return sorted(subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines())


def state(cluster: Cluster, containerd: PrivateContainerd) -> dict[str, list[str]]:
    """All that a pod may leave on this machine, as far as it is this test's."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    places = (str(containerd.dir), str(cluster.node.directory), "/run/cutaway-userns/")
    root = cluster.node.settings["cgroup_root"]
    pods = rf"{root}/kubepods/(.*/)?pod[^/]*$"
    ctr = ("ctr", "--address", str(containerd.socket), "--namespace", "k8s.io")
    links = _run("ip", "-o", "link")
    rules = [line for line in _run("nft", "list", "ruleset") if re.search(r"CNI-(DN|HOSTPORT).*(dport|jump)", line)]
    return {
        "mounts": sorted(f"{m[4]} {m[3]}" for m in mounts if m[4].startswith(places)),
        "cgroups": sorted(str(path) for path in cgroups.below(cgroups.ROOT) if re.search(pods, str(path))),
        "links": [re.sub(r"^\d+: ", "", line) for line in links if f"master {containerd.bridge}" in line],
        "files": sorted(
            str(path)
            for top in (cluster.node.root / "pods", cluster.node.root / "logs", *_runtime_files(containerd))
            for path in top.rglob("*")
            if path.name not in ("last_reserved_ip.0", "lock")
        ),
        "containers": _run(*ctr, "containers", "ls", "-q"),
        "tasks": _run(*ctr, "tasks", "ls", "-q"),
        "snapshots": _run(*ctr, "snapshots", "ls"),
        "host ports": rules,
        "shims": [line for line in _run("ps", "-eo", "args") if "shim" in line and str(containerd.socket) in line],
    }


def _runtime_files(containerd: PrivateContainerd) -> list[Path]:
    return [containerd.dir / name for name in ("ipam", "shim-root", "shim-state")]


def spec(number: int, can_map_users: bool) -> dict[str, Any]:
    """One of several kinds of pods."""
    container = busybox(
        volumeMounts=[{"name": "e", "mountPath": "/e"}, {"name": "e", "mountPath": "/s", "subPath": "s"}]
    )
    out: dict[str, Any] = {
        "containers": [container],
        "volumes": [{"name": "e", "emptyDir": {"medium": "Memory"} if number % 2 else {}}],
    }
    match number % 5:
        case 1:
            out["shareProcessNamespace"] = True
        case 2:
            container["ports"] = [{"containerPort": 80, "hostPort": 21700 + number % AT_ONCE}]
        case 3:
            container["command"] = ["sh", "-c", "exit 3"]  # it crashes until it is deleted
        case 4 if can_map_users:
            out["hostUsers"] = False
    return out


async def test_pods_leave_nothing_behind(cluster: Cluster, containerd: PrivateContainerd) -> None:
    ns = cluster.namespace
    node = await cluster.ready_node()
    can_map = any(h.features.userNamespaces for h in node.status.runtimeHandlers or () if h.features)
    # Everything that is made once, by the first pod that needs it, is there before.
    for number in range(5):
        await cluster.pod(f"first{number}", ns, spec(number, can_map))
    await _end(cluster, [f"first{number}" for number in range(5)])
    before = await asyncio.to_thread(state, cluster, containerd)
    for first in range(0, PODS, AT_ONCE):
        numbers = range(first, min(PODS, first + AT_ONCE))
        for number in numbers:
            await cluster.pod(f"p{number}", ns, spec(number, can_map))
        await _end(cluster, [f"p{number}" for number in numbers])
    left: dict[str, list[str]] = {}
    for _ in range(100):
        now = await asyncio.to_thread(state, cluster, containerd)
        left = {what: sorted(set(found) ^ set(before[what])) for what, found in now.items()}
        if not any(left.values()):
            break
        await asyncio.sleep(0.2)
    assert not any(left.values()), left
    figure(
        8, f"{PODS} pods of five kinds: mounts, cgroups, links, files, leases of addresses, rules, snapshots as before"
    )


async def _end(cluster: Cluster, names: list[str]) -> None:
    """Delete pods as soon as they run (or have crashed), and wait until they are gone."""

    def has_run(pod: Any) -> bool:
        found = pod.status.containerStatuses if pod.status else None
        state = found[0].state if found else None
        return state is not None and (state.running or state.terminated or (found[0].restartCount or 0) > 0)

    for name in names:
        await cluster.wait(kinds.POD, name, cluster.namespace, has_run, 90)
    for name in names:
        await cluster.client.delete(kinds.POD, name, cluster.namespace, grace_period_seconds=1)
    for name in names:
        await cluster.gone(name, cluster.namespace, 90)
