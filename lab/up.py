"""Brings a cluster up and down. Every step makes what is missing and leaves what is there alone, so `up` can be
repeated."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import shutil
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from lab import (
    admin,
    components,
    doctor,
    health,
    hollow,
    kubeconfig,
    machine,
    network,
    nodes,
    process_spec,
    secret_keys,
    supervisor_client,
    turns,
)
from lab import cluster as clusters
from lab import masters as several_masters
from lab.cluster import PROJECT_ROOT, Cluster
from lab.components import Component
from lab.errors import LabError
from lab.nodes import Node
from lab.pki import Identity, Pki
from lab.progress import Say
from machinery.component import yaml_text

HEALTHY_SECONDS = 60.0
EXIT_FATAL = 2
"""With which a component ends that says why it can't work: as in machinery.component.process."""
# Processes answer within milliseconds of being ready; asking costs one TLS handshake each.
ASK_PAUSE_SECONDS = 0.05


def up(
    home: Path, *, node_count: int | None, hollow_nodes: bool, say: Say, masters: int | None = None
) -> tuple[Cluster, bool]:
    """Bring the cluster of this folder up; it, and whether anything had to be changed.

    Raises LabError with the way out if this machine can't run it; then nothing was started.
    """
    known = clusters.load(home)
    if not (known.hollow if known else hollow_nodes):
        _refuse_unfit_machine(home)
    else:
        _refuse(doctor.disk(home, bytes_min=doctor.HOLLOW_DISK_BYTES_MIN))
    with turns.of_cluster(home, say), contextlib.ExitStack() as choosing:
        known = clusters.load(home)  # another command may have made it meanwhile
        if known is None:
            choosing.enter_context(turns.of_choosing())
        cluster = known or clusters.create(home, nodes=0, hollow=hollow_nodes, masters=masters or 1)
        if masters is not None and masters != cluster.masters:
            cluster = several_masters.change(cluster, masters, say)
        cluster = cluster.with_nodes(node_count if node_count is not None else len(cluster.nodes) or 1)
        if known is not None and not supervisor_client.is_running(home):
            _refuse_taken_ports(known)
        cluster.save()
        changed = _arrange(cluster, say)
        if not cluster.hollow:
            # Others see its bridge; of a hollow one they see only that somebody listens, once it is up.
            choosing.close()
        asyncio.run(_settle(cluster, say))
        changed = arrange_ingress(cluster, Pki(cluster.pki)) or changed
        return cluster, changed or known is None


async def _settle(cluster: Cluster, say: Say) -> None:
    """Wait for every process and node; meanwhile the add-ons are applied, because some processes need what they
    grant."""
    # Loaded here: by now the processes start, and this machine's cores are free for it.
    from lab import addons, nodes_ready

    client = await admin.client(cluster)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(wait_healthy(cluster, say), name="processes")
            tasks.create_task(addons.apply(client, cluster, say), name="add-ons")
            tasks.create_task(nodes_ready.wait(client, cluster, say), name="nodes")
    except* LabError as group:
        raise _first(group) from None
    finally:
        await client.close()


def _first(group: BaseExceptionGroup[LabError]) -> LabError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _refuse_unfit_machine(home: Path) -> None:
    obstacle = doctor.first_obstacle(home)
    if obstacle is not None:
        hint = "" if "hollow" in obstacle.way_out else " (or `cutaway up --hollow` for simulated nodes)"
        raise LabError(obstacle.message, obstacle.way_out + hint)


def _refuse(finding: doctor.Finding) -> None:
    if not finding.ok:
        raise LabError(finding.message, finding.way_out)


def _refuse_taken_ports(cluster: Cluster) -> None:
    states = [process_spec.read_state(cluster.components, name) for name in process_spec.read_specs(cluster.components)]
    busy = None if any(process_spec.is_alive(state) for state in states) else clusters.first_busy_port(cluster)
    if busy is not None:
        port, owner = busy
        raise LabError(
            f"port {port} is taken by {owner}", "end that program, or remove this cluster with `cutaway down --purge`"
        )


def _arrange(cluster: Cluster, say: Say) -> bool:
    pki = Pki(cluster.pki)
    fresh = not (cluster.pki / "ca.crt").exists()
    pki.ensure(cluster.name)
    if fresh:
        say("certificates made")
    # Apiservers that run side by side are given their first key by `cutaway secrets rotate-key`, one after the other.
    if cluster.masters == 1 or not supervisor_client.is_running(cluster.home):
        secret_keys.ensure(cluster.pki / components.ENCRYPTION_KEYS)
    for folder in ("components", "config", "logs", "run"):
        (cluster.home / folder).mkdir(parents=True, exist_ok=True)
    # A running cluster's are renewed by its supervisor, which starts anew who has them.
    if not fresh and not supervisor_client.is_running(cluster.home):
        for name in pki.renew_due(datetime.datetime.now(datetime.UTC)):
            say(f"certificate {name} is renewed")
    _write_admin_kubeconfig(cluster)
    if not cluster.hollow:
        network.ensure_bridge(cluster.addresses)
    arrange_foundation(cluster, pki, say)
    # The control plane starts first: while Python imports, the nodes' networks are made.
    changed = several_masters.forget_removed(cluster)
    changed = write(cluster, components.control_plane(cluster, pki)) or changed
    was_running = supervisor_client.is_running(cluster.home)
    supervisor_client.ensure_running(cluster.home, PROJECT_ROOT)
    if was_running and changed:
        supervisor_client.call(cluster.home, "apply")
    node_changed = arrange_nodes(cluster, pki)
    if node_changed:
        supervisor_client.call(cluster.home, "apply")
    _revive(cluster)
    return changed or node_changed or not was_running


def _write_admin_kubeconfig(cluster: Cluster) -> None:
    kubeconfig.write(
        cluster.admin_kubeconfig,
        cluster=cluster.name,
        server=cluster.server,
        user="kubernetes-admin",
        identity=admin.identity(cluster),
    )


def write_kubeconfigs(cluster: Cluster, pki: Pki) -> None:
    """Those that hold certificates: the administrator's, and one for each component that could be another program."""
    _write_admin_kubeconfig(cluster)
    parts = components.control_plane(cluster, pki)
    if cluster.hollow:
        parts += hollow.nodes(cluster, pki)
    else:
        for node in cluster.nodes:
            namespace = network.ensure_node(cluster.addresses, node.name, node.index)
            parts += components.node(cluster, node, pki, str(namespace))
    write(cluster, parts)


def arrange_foundation(cluster: Cluster, pki: Pki, say: Say) -> None:
    """The database and the balancer of several masters: they run before the first apiserver looks for them."""
    parts = several_masters.foundation(cluster, pki)
    if not parts:
        return
    from lab import postgres  # its driver is needed only here

    private = any(part.spec.name == postgres.NAME for part in parts)
    if private and postgres.prepare(cluster):
        say("database made")
    changed = write(cluster, parts)
    was_running = supervisor_client.is_running(cluster.home)
    supervisor_client.ensure_running(cluster.home, PROJECT_ROOT)
    if was_running and changed:
        supervisor_client.call(cluster.home, "apply")
    if private:
        postgres.wait_ready(cluster)


def _revive(cluster: Cluster) -> bool:
    """Start what somebody stopped; whether there was any."""
    stopped = [
        name
        for name in process_spec.read_specs(cluster.components)
        if process_spec.read_state(cluster.components, name).stopped
    ]
    for name in stopped:
        process_spec.write_state(
            cluster.components, name, replace(process_spec.read_state(cluster.components, name), stopped=False)
        )
        supervisor_client.call(cluster.home, "start", name)
    return bool(stopped)


def arrange_nodes(cluster: Cluster, pki: Pki) -> bool:
    """Networks, folders and specs of every node; whether anything changed."""
    if cluster.hollow:
        return write(cluster, hollow.nodes(cluster, pki))
    with ThreadPoolExecutor(max_workers=4) as pool:
        per_node = list(pool.map(lambda node: _arrange_node(cluster, node, pki), cluster.nodes))
    if cluster.nodes:
        network.route_host_through(cluster.addresses, cluster.nodes[0].index)
    return write(cluster, [component for parts in per_node for component in parts])


def _arrange_node(cluster: Cluster, node: Node, pki: Pki) -> list[Component]:
    namespace = network.ensure_node(cluster.addresses, node.name, node.index)
    nodes.prepare(cluster.node_paths(node))
    return components.node(cluster, node, pki, str(namespace))


def arrange_ingress(cluster: Cluster, pki: Pki) -> bool:
    """Start what only begins when the nodes are Ready, and is not waited for; whether anything changed."""
    if cluster.hollow:
        return False
    found = [
        components.ingress(cluster, node, pki, str(network.pin_path(cluster.addresses.slot, node.name)))
        for node in cluster.nodes
    ]
    changed = write(cluster, [part for part in found if part is not None])
    if changed:
        supervisor_client.call(cluster.home, "apply")
    return changed


def write(cluster: Cluster, parts: list[Component]) -> bool:
    """Write configurations and specs; whether any is new or different."""
    changed = False
    for part in parts:
        spec = part.spec
        if part.config is not None:
            text = yaml_text.dump(part.config)
            spec = replace(spec, config_digest=hashlib.sha256(text.encode()).hexdigest()[:16])
            process_spec.write_text(cluster.home / "config" / f"{spec.name}.yaml", text)
        for name, text in part.files.items():
            spec = replace(spec, config_digest=hashlib.sha256(text.encode()).hexdigest()[:16])
            process_spec.write_text(cluster.home / "config" / name, text)
        if part.identity is not None:
            kubeconfig.write(
                cluster.home / "config" / f"{spec.name}.kubeconfig",
                cluster=cluster.name,
                server=f"https://{cluster.host_ip}:{cluster.port(6443)}",
                user=spec.name,
                identity=part.identity,
            )
        changed = process_spec.write_spec(cluster.components, spec) or changed
    return changed


async def wait_healthy(
    cluster: Cluster, say: Say, names: Collection[str] | None = None, identity: Identity | None = None
) -> None:
    """Wait until these processes (all, if none are named) are healthy, telling of each when it is; asked as the
    administrator, or as `identity`.

    Raises LabError naming what is not after HEALTHY_SECONDS, or exits again and again.
    """
    began = time.monotonic()
    context = health.client_context(identity or admin.identity(cluster))
    every = process_spec.read_specs(cluster.components)
    specs = [spec for name, spec in every.items() if names is None or name in names]
    # They are asked first: before one answers the others aren't ready, and would lose time to start by being asked.
    apiservers = {spec.name for spec in specs if spec.component == "apiserver"}
    answering = asyncio.Event()
    if not apiservers:
        answering.set()

    async def wait_one(spec: process_spec.ProcessSpec) -> str:
        answer = "not asked yet"
        restarts = process_spec.read_state(cluster.components, spec.name).restarts
        while time.monotonic() - began < HEALTHY_SECONDS:
            if answering.is_set() or spec.name in apiservers or spec.component in health.ALONE:
                answer = await health.ask(spec, context)
            if answer == "ok":
                say(f"{spec.name} is ready ({time.monotonic() - began:.1f} s)")
                if spec.name in apiservers:
                    answering.set()
                return ""
            state = process_spec.read_state(cluster.components, spec.name)
            failures = 1 if state.last_exit == EXIT_FATAL else 3
            if state.restarts >= restarts + failures and not process_spec.is_alive(state):
                # It won't get better by waiting, and the others wait for it.
                why = _why_it_ended(spec, state)
                raise LabError(why, _way_out(spec.name, why))
            await asyncio.sleep(ASK_PAUSE_SECONDS)
        return f"{spec.name}: {answer}"

    try:
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(wait_one(spec), name=f"wait for {spec.name}") for spec in specs]
    except* LabError as group:
        raise _first(group) from None
    unhealthy = [problem for task in waiting if (problem := task.result())]
    if unhealthy:
        raise LabError("; ".join(unhealthy), "`cutaway logs NAME` shows its log")


def _why_it_ended(spec: process_spec.ProcessSpec, state: process_spec.ProcessState) -> str:
    """In one line. A component that can't work with what it was told says so itself, as its last word."""
    line = last_line(Path(spec.log))
    if state.last_exit == EXIT_FATAL:
        return line if line.startswith(spec.component) else f"{spec.name}: {line}"
    return f"{spec.name} exits with code {state.last_exit}: {line}"


def _way_out(name: str, why: str) -> str:
    if " is damaged" in why:
        return "`cutaway restore FILE` puts a back-up in its place"
    return f"the whole log: `cutaway logs {name}`"


def last_line(log: Path) -> str:
    """The last line of a log, for an error message."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1][:300] if lines else "its log is empty"


def down(home: Path, *, purge: bool, say: Say) -> bool:
    """Stop everything and take away what is outside the folder; with `purge` the folder too. Whether there was
    anything."""
    if clusters.load(home) is None:
        return False
    with turns.of_cluster(home, say):
        cluster = clusters.load(home)
        if cluster is not None:
            _take_away(cluster, purge=purge, say=say)
    return cluster is not None


def _take_away(cluster: Cluster, *, purge: bool, say: Say) -> None:
    home = cluster.home
    if not cluster.hollow:
        for name in process_spec.read_specs(cluster.components):
            if name.startswith("kubelet-") and supervisor_client.is_running(home):
                # First, or it would start again what is removed next.
                supervisor_client.call(home, "stop", name)
        asyncio.run(_remove_all_sandboxes(cluster))
        say("pods removed")
    stop_processes(cluster)
    say("components stopped")
    machine.sweep(cluster)
    if not cluster.hollow:
        for node in cluster.nodes:
            network.remove_node(cluster.addresses, node.name, node.index)
        network.remove_bridge(cluster.addresses)
        say("networks removed")
    shutil.rmtree(cluster.components, ignore_errors=True)
    if purge:
        shutil.rmtree(home, ignore_errors=True)
        say(f"{home} removed")


async def _remove_all_sandboxes(cluster: Cluster) -> None:
    sockets = [cluster.node_paths(node).cri_socket for node in cluster.nodes]
    await asyncio.gather(*(machine.remove_sandboxes(socket) for socket in sockets if socket.exists()))


def stop_processes(cluster: Cluster) -> None:
    """End every process: through the supervisor, or by pid if it is gone."""
    if supervisor_client.is_running(cluster.home):
        supervisor_client.call(cluster.home, "shutdown")
        return
    for name in process_spec.read_specs(cluster.components):
        machine.end_process(process_spec.read_state(cluster.components, name))


def remove_node(cluster: Cluster, name: str) -> Cluster:
    """Take a node's processes, pods and network away; the cluster without it."""
    node = cluster.node(name)
    remaining = replace(cluster, nodes=tuple(n for n in cluster.nodes if n.name != name))
    specs = [spec for spec in process_spec.read_specs(cluster.components).values() if spec.node == name]
    for spec in specs:
        if spec.component == "kubelet":
            supervisor_client.call(cluster.home, "stop", spec.name)
    if not cluster.hollow:
        asyncio.run(machine.remove_sandboxes(cluster.node_paths(node).cri_socket))
    for spec in reversed(specs):
        supervisor_client.call(cluster.home, "remove", spec.name)
        for suffix in (process_spec.SPEC_SUFFIX, process_spec.STATE_SUFFIX):
            (cluster.components / f"{spec.name}{suffix}").unlink(missing_ok=True)
    if not cluster.hollow:
        machine.kill_leftovers(cluster.node_paths(node).root)
        machine.unmount_below(cluster.node_paths(node).root)
        network.remove_node(cluster.addresses, node.name, node.index)
    shutil.rmtree(cluster.node_paths(node).root, ignore_errors=True)
    remaining.save()
    return remaining
