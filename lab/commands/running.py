"""The cluster as a whole and its components: up, down, status, logs, stop, start, swap, doctor."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from lab import cluster as clusters
from lab.commands.context import Home, here, progress
from lab.errors import LabError


def add_to(app: typer.Typer) -> None:
    """Enter the commands into the `cutaway` command."""
    for command in (up, down, status):
        app.command()(command)
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})(
        kubectl
    )
    for command in (logs, stop, start, restart):
        app.command()(command)
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(swap)
    for command in (doctor, demo):
        app.command()(command)


def up(
    home: Home,
    nodes: Annotated[
        int | None, typer.Option(min=0, max=100, help="How many nodes; default: as many as there are, or 1.")
    ] = None,
    masters: Annotated[
        int | None,
        typer.Option(min=1, max=clusters.MASTERS_MAX, help="How many apiservers, schedulers and controller-managers."),
    ] = None,
    hollow: Annotated[
        bool, typer.Option("--hollow", help="Simulated nodes: no root, no containerd, no containers.")
    ] = False,
    demo: Annotated[bool, typer.Option("--demo", help="Also run the example and show its answers.")] = False,
) -> None:
    """Bring the cluster up; again: bring it in line. Leaves admin.kubeconfig in the cluster's folder."""
    from lab import up as upping

    print(f"cutaway: bringing the cluster in {home} up", flush=True)
    cluster, changed = upping.up(home, node_count=nodes, hollow_nodes=hollow, masters=masters, say=progress())
    print("cutaway: the cluster is up" if changed else "cutaway: nothing to do, everything already runs", flush=True)
    if demo:
        _demo(cluster)
    elif changed:
        ours = _command_name()
        print(f"cutaway: see it at work: `{ours} watch`; use it: `{ours} kubectl get nodes`", flush=True)


def _command_name() -> str:
    """As whoever typed this one would type another: `cutaway`, or where it lies if that is not on the PATH."""
    called = Path(sys.argv[0])
    if called.name != "cutaway":
        return f"{Path(sys.executable).name} -m lab.cli"
    if shutil.which("cutaway") == str(called):
        return "cutaway"
    return str(called.relative_to(Path.cwd()) if called.is_relative_to(Path.cwd()) else called)


def _demo(cluster: clusters.Cluster) -> None:
    from lab import demo, kubectl

    answers = demo.run(cluster, progress())
    for what in (["nodes", "-o", "wide"], ["pods", "-o", "wide"], ["service"]):
        print(f"\n$ kubectl get {' '.join(what)}")
        print(kubectl.run(cluster, "get", *what).rstrip())
    if answers:
        print("\nThrough the Service, from each pod:")
        for answer in answers:
            print(f"  {answer}")
    print("\n" + demo.next_steps(cluster))


def down(
    home: Home,
    purge: Annotated[
        bool, typer.Option("--purge", help="Also delete the cluster's folder: its state, images and certificates.")
    ] = False,
) -> None:
    """Stop everything. No process, mount, namespace, link, rule or container is left; the state is, unless purged."""
    from lab import up as upping

    existed = upping.down(home, purge=purge, say=progress())
    print("cutaway: the cluster is down" if existed else f"cutaway: there is no cluster in {home}")


def status(
    home: Home,
    output: Annotated[str, typer.Option("--output", "-o", help="table or json")] = "table",
) -> None:
    """Every component with its node, process, address and health. Exit code 1 if one is ill."""
    from lab import health

    cluster, identity = here(home)
    reports = asyncio.run(health.report(cluster, identity))
    if output == "json":
        print(json.dumps([asdict(report) for report in reports], indent=2))
    elif output == "table":
        rows = [("NAME", "NODE", "PID", "RESTARTS", "HEALTH", "ADDRESS")]
        rows += [(r.name, r.node or "-", str(r.pid or "-"), str(r.restarts), r.health, r.address) for r in reports]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    else:
        raise LabError(f"--output {output}: unknown", "table or json")
    if not all(report.ok for report in reports):
        raise typer.Exit(1)


def kubectl(context: typer.Context) -> NoReturn:
    """The real kubectl on this cluster: every argument is passed on."""
    from lab import kubectl as real

    cluster = clusters.require(clusters.default_home())
    os.execve(real.program(), ["kubectl", *context.args], real.environment(cluster))  # noqa: S606


def logs(
    component: Annotated[str, typer.Argument(help="A name of `cutaway status`, or a component: apiserver, kubelet …")],
    home: Home,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as more is written.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many lines from the end.")] = 200,
) -> None:
    """The log of a component."""
    from lab import logs as log_files

    log_files.show(here(home)[0], component, follow=follow, lines=lines)


def stop(name: Annotated[str, typer.Argument(help="A name of `cutaway status`.")], home: Home) -> None:
    """Stop one component and leave it stopped."""
    _command(home, "stop", name)


def start(name: Annotated[str, typer.Argument(help="A name of `cutaway status`.")], home: Home) -> None:
    """Start a component that was stopped, and wait until it is ready."""
    _command(home, "start", name)


def restart(name: Annotated[str, typer.Argument(help="A name of `cutaway status`.")], home: Home) -> None:
    """Stop a component, start it again, and wait until it is ready."""
    _command(home, "restart", name)


def _command(home: Path, verb: str, name: str) -> None:
    from lab import supervisor_client

    cluster, identity = here(home)
    supervisor_client.call(home, verb, name)
    if verb != "stop":
        from lab import up as upping

        asyncio.run(upping.wait_healthy(cluster, progress(), [name], identity))
    print(f"cutaway: {name}: {verb} done")


def swap(
    context: typer.Context,
    component: Annotated[str, typer.Argument(help="scheduler, kubelet … or one process: kubelet-node1.")],
    home: Home,
    undo: Annotated[bool, typer.Option("--undo", help="Put Cutaway's own component back.")] = False,
) -> None:
    """Run another program in a component's place: `cutaway swap scheduler -- my-scheduler --kubeconfig
    {kubeconfig}`."""
    from lab import swap as swapping

    command = list(context.args)
    if undo == bool(command):
        raise LabError("give a command after --, or --undo", "cutaway swap scheduler -- my-scheduler --config {config}")
    names = swapping.undo(home, component) if undo else swapping.swap(home, component, command)
    print(f"cutaway: {', '.join(names)}: {'ours again' if undo else 'swapped'}")


def doctor(home: Home) -> None:
    """Look whether this machine can run real nodes; exit code 1 if it can't."""
    from lab import doctor as examination

    findings = examination.examine(home)
    for finding in findings:
        mark = "ok  " if finding.ok else "MISS"
        print(f"{mark} {finding.subject}: {finding.message}" + (f" -> {finding.way_out}" if finding.way_out else ""))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def demo(home: Home) -> None:
    """Run the example and show an answer from each of its pods."""
    _demo(clusters.require(home))
