"""Questions to a cluster: explain, simulate, trace."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from lab import cluster as clusters
from lab.commands.context import Home
from lab.errors import LabError


def add_to(app: typer.Typer) -> None:
    """Enter the commands into the `cutaway` command."""
    for command in (explain, simulate, trace):
        app.command()(command)


def explain(
    target: Annotated[
        str, typer.Argument(metavar="KIND/NAME", help="deployment/web, pod/web-0, service/web, pvc/data …")
    ],
    home: Home,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where it is.")] = "default",
    output: Annotated[str, typer.Option("--output", "-o", help="text or json")] = "text",
) -> None:
    """Why is it not as desired: the chain of causes, and what would fix it. Exit code 1 if something is wrong."""
    from lab import explain as explaining

    kind, slash, name = target.partition("/")
    if not slash or not name:
        raise LabError(f"{target!r} names no object", "KIND/NAME, as in deployment/web")
    findings = asyncio.run(explaining.explain(clusters.require(home), kind, namespace, name))
    if output == "json":
        print(json.dumps([explaining.to_dict(finding) for finding in findings], indent=2))
    else:
        print("\n".join(explaining.render(findings)) or f"{target} is as desired")
    if findings:
        raise typer.Exit(1)


def simulate(
    target: Annotated[str, typer.Argument(metavar="FILE|KIND/NAME", help="A manifest, or a workload that there is.")],
    home: Home,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where it is or would be.")] = "default",
    replicas: Annotated[int | None, typer.Option(min=0, help="Instead of the number in the manifest.")] = None,
    more: Annotated[int, typer.Option(min=0, max=5000, help="Up to how many more to try.")] = 1000,
    output: Annotated[str, typer.Option("--output", "-o", help="text or json")] = "text",
) -> None:
    """Where would its pods go, and how many more would fit. Creates nothing. Exit code 1 if a pod fits nowhere."""
    from lab import simulate as simulation

    cluster = clusters.require(home)
    kind, slash, name = target.partition("/")
    if Path(target).exists() or not slash:
        workloads = simulation.read(Path(target), namespace)
    else:
        workloads = [asyncio.run(simulation.existing(cluster, kind, namespace, name))]
        replicas = replicas or 0
    answer = asyncio.run(simulation.simulate(cluster, workloads, replicas, more))
    print(json.dumps(answer.to_dict(), indent=2) if output == "json" else "\n".join(answer.lines()))
    if any(each.refused for each in answer.workloads):
        raise typer.Exit(1)


def trace(
    pod: Annotated[str, typer.Argument(help="A pod: NAME or NAMESPACE/NAME.")],
    address: Annotated[str, typer.Argument(help="Where to: NAME[:PORT], IP[:PORT] or a URL.")],
    home: Home,
    protocol: Annotated[str, typer.Option(help="TCP, UDP or SCTP.")] = "TCP",
) -> None:
    """A packet's way from a pod: DNS answer, Service, rules, endpoints, nodes, policy verdicts, from the live rules."""
    from lab import trace as tracing

    cluster = clusters.require(home)
    if cluster.hollow:
        raise LabError("hollow nodes have no network", "`cutaway up` with real nodes")
    namespace, _, name = pod.rpartition("/")
    target = tracing.parse(address)
    for line in asyncio.run(tracing.run(cluster, name, namespace or "default", target, protocol.upper())):
        print(line)
