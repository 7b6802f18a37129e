"""`cutaway node`: add, remove, stop, start, cut off, heal."""

from __future__ import annotations

from pathlib import Path

import typer

from lab import cluster as clusters
from lab.commands.context import Home, progress
from lab.commands.running import up
from lab.errors import LabError

node_app = typer.Typer(help="Add, remove, stop, start, cut off and heal nodes.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Enter the commands into the `cutaway` command."""
    app.add_typer(node_app, name="node")


@node_app.command("add")
def node_add(home: Home) -> None:
    """Add a node."""
    from lab import turns

    clusters.require(home)
    with turns.of_cluster(home, progress()):
        cluster = clusters.require(home)
        before = {node.name for node in cluster.nodes}
        up(home=home, nodes=len(cluster.nodes) + 1, masters=None, hollow=cluster.hollow, demo=False)
        for node in clusters.require(home).nodes:
            if node.name not in before:
                print(f"cutaway: {node.name} joined")


@node_app.command("remove")
def node_remove(name: str, home: Home) -> None:
    """Remove a node: its pods end, and it leaves the cluster."""
    from lab import kubectl as real
    from lab import turns
    from lab import up as upping

    cluster = clusters.require(home)
    cluster.node(name)
    real.run(cluster, "delete", "node", name, "--ignore-not-found")
    with turns.of_cluster(home, progress()):
        upping.remove_node(clusters.require(home), name)
    real.run(cluster, "delete", "node", name, "--ignore-not-found")
    print(f"cutaway: {name} removed")


@node_app.command("cut")
def node_cut(name: str, home: Home) -> None:
    """Cut a node off the network, as a pulled cable would."""
    _set_cable(home, name, connected=False)


@node_app.command("heal")
def node_heal(name: str, home: Home) -> None:
    """Connect a node again."""
    _set_cable(home, name, connected=True)


def _set_cable(home: Path, name: str, *, connected: bool) -> None:
    from lab import network

    cluster = clusters.require(home)
    if cluster.hollow:
        raise LabError("hollow nodes have no network", "`cutaway up` with real nodes")
    network.cut_node(cluster.addresses, cluster.node(name).index, connected=connected)
    print(f"cutaway: {name} is {'connected' if connected else 'cut off'}")


@node_app.command("stop")
def node_stop(name: str, home: Home) -> None:
    """Stop a node's components; its containers go on, as when they all crash at once."""
    _each_component(home, name, "stop")


@node_app.command("start")
def node_start(name: str, home: Home) -> None:
    """Start a stopped node's components."""
    _each_component(home, name, "start")


def _each_component(home: Path, name: str, verb: str) -> None:
    from lab import health, process_spec, supervisor_client

    cluster = clusters.require(home)
    cluster.node(name)
    specs = sorted(
        (s for s in process_spec.read_specs(cluster.components).values() if s.node == name), key=health.start_order
    )
    for spec in specs if verb == "start" else reversed(specs):
        supervisor_client.call(home, verb, spec.name)
    print(f"cutaway: {name}: {verb} done")
