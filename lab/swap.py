"""Puts another program in a component's place, with that component's own credentials, and takes it out again."""

from __future__ import annotations

import asyncio
import contextlib
import select
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from lab import cluster as clusters
from lab import components, process_spec, supervisor_client, turns
from lab import up as upping
from lab.cluster import Cluster
from lab.errors import LabError
from lab.pki import Pki

# Tables of rules that a kube-proxy leaves in the kernel when it ends: this project's, and upstream's.
OURS = ("ip cutaway-proxy", "ip cutaway-policy")
UPSTREAMS = ("ip kube-proxy", "ip6 kube-proxy")
# A program that can't run with what it is given says so within this time.
PROOF_SECONDS = 3.0


def swap(home: Path, target: str, command: list[str]) -> list[str]:
    """Run `command` instead of a component (or of one process of it); the names of the processes that changed.

    `{config}`, `{kubeconfig}` and `{pki}` in its words become that process's files and the cluster's certificates,
    `{node_ip}`, `{tls.cert_file}` and the like the values of its configuration; `$CUTAWAY_CONFIG` and `$KUBECONFIG`
    name the files too. If the command ends at once, the component is put back and LabError says how it ended.
    """
    clusters.require(home)
    with turns.of_cluster(home, print):
        return _swap(clusters.require(home), target, command)


def _swap(cluster: Cluster, target: str, command: list[str]) -> list[str]:
    names = _names(cluster, target)
    logs = {name: Path(process_spec.read_specs(cluster.components)[name].log) for name in names}
    said_before = {name: log.stat().st_size if log.exists() else 0 for name, log in logs.items()}
    changed = replace(cluster, swaps={**cluster.swaps, target: command})
    try:
        _bring_in_line(changed, without_rules_of=(names, OURS))
    except (OSError, LabError):
        # A full disk, say. What is written is put back as far as can be; the first error is the one to tell.
        with contextlib.suppress(OSError, LabError):
            _bring_in_line(cluster, without_rules_of=(names, UPSTREAMS))
        raise
    ended = _first_ended(changed, names)
    if ended is None:
        changed.save()
        return names
    last_words = _tail(logs[ended], said_before[ended])
    _bring_in_line(cluster, without_rules_of=(names, UPSTREAMS))
    raise LabError(f"{command[0]} ended at once: {last_words}", f"{target} runs as before")


def undo(home: Path, target: str) -> list[str]:
    """Put the project's own component back; the names of the processes that changed."""
    clusters.require(home)
    with turns.of_cluster(home, print):
        return _undo(clusters.require(home), target)


def _undo(cluster: Cluster, target: str) -> list[str]:
    if target not in cluster.swaps:
        raise LabError(f"{target} is not swapped", f"swapped are: {', '.join(cluster.swaps) or 'none'}")
    restored = replace(cluster, swaps={name: command for name, command in cluster.swaps.items() if name != target})
    names = _names(cluster, target)
    _bring_in_line(restored, without_rules_of=(names, UPSTREAMS))
    restored.save()
    asyncio.run(upping.wait_healthy(restored, lambda _: None, names))
    return names


def _names(cluster: Cluster, target: str) -> list[str]:
    specs = process_spec.read_specs(cluster.components)
    names = [name for name, spec in specs.items() if target in (name, spec.component)]
    if not names:
        raise LabError(f"no component {target!r}", f"there are {', '.join(specs)}")
    return names


def _bring_in_line(cluster: Cluster, without_rules_of: tuple[list[str], tuple[str, ...]]) -> None:
    """Have what runs be as the cluster says. A proxy that goes leaves its rules, which would stay in the way of the
    next one's: these tables go with it."""
    names, tables = without_rules_of
    specs = process_spec.read_specs(cluster.components)
    proxies = [specs[name] for name in names if specs[name].component == "kube-proxy" and not cluster.hollow]
    for spec in proxies:
        supervisor_client.call(cluster.home, "stop", spec.name)
        enter = ["nsenter", f"--net={spec.network_namespace}", "--"] if spec.network_namespace else []
        for table in tables:
            subprocess.run([*enter, "nft", "delete", "table", *table.split()], capture_output=True, timeout=10)
    try:
        _apply(cluster)
    finally:
        for spec in proxies:
            supervisor_client.call(cluster.home, "start", spec.name)


def _apply(cluster: Cluster) -> None:
    pki = Pki(cluster.pki)
    upping.write(cluster, components.control_plane(cluster, pki))
    upping.arrange_nodes(cluster, pki)
    upping.arrange_ingress(cluster, pki)
    supervisor_client.call(cluster.home, "apply")


def _first_ended(cluster: Cluster, names: list[str]) -> str | None:
    """The first of these processes that ends within the time of proof; None if all go on."""
    deadline = time.monotonic() + PROOF_SECONDS
    before = {name: process_spec.read_state(cluster.components, name) for name in names}
    while time.monotonic() < deadline:
        for name in names:
            state = process_spec.read_state(cluster.components, name)
            if state.restarts > before[name].restarts or not process_spec.is_alive(state):
                return name
        select.select([], [], [], 0.1)
    return None


def _tail(log: Path, after: int) -> str:
    """The last line of what was written to a log after this many bytes, other than the old process's farewell."""
    if not log.exists():
        return "it said nothing"
    with log.open("rb") as file:
        file.seek(after)
        lines = [line for line in file.read().decode(errors="replace").splitlines() if '"level":"info"' not in line]
    return lines[-1][:300] if lines else "it said nothing"
