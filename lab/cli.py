"""The `cutaway` command."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from lab import cluster as clusters
from lab.errors import LabError
from lab.join import cli as join_cli
from lab.pki import Identity
from machinery.component import logs as component_logs

app = typer.Typer(
    help="Kubernetes in Python with every part visible and replaceable: a cluster on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)
node_app = typer.Typer(help="Add, remove, stop, start, cut off and heal nodes.", no_args_is_help=True)
image_app = typer.Typer(help="Images on the nodes.", no_args_is_help=True)
app.add_typer(node_app, name="node")
app.add_typer(image_app, name="image")
join_cli.add_to(app)

Home = Annotated[
    Path, typer.Option(envvar="CUTAWAY_HOME", help="The cluster's folder.", default_factory=clusters.default_home)
]


def main() -> None:
    """Entry point: a LabError is one line on stderr and exit code 1."""
    # The parts of machinery used here would tell of every retry; here only the outcome counts.
    component_logs.setup("cutaway", "error", "console")
    try:
        app()
    except LabError as error:
        print(f"cutaway: {error}", file=sys.stderr)
        sys.exit(1)


def _here(home: Path) -> tuple[clusters.Cluster, Identity]:
    """The cluster in a folder, or the host that joined one elsewhere, and who we are to its processes."""
    from lab import admin
    from lab.join import host as hosts

    joined = hosts.load(home)
    if joined is not None:
        return joined, hosts.HeldPki(joined.pki).file("kubelet")
    cluster = clusters.require(home)
    return cluster, admin.identity(cluster)


def _progress() -> Callable[[str], None]:
    """Says a step on a line of its own, as it happens."""

    def say(message: str) -> None:
        print(f"  {message}", flush=True)

    return say


@app.command()
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
    cluster, changed = upping.up(home, node_count=nodes, hollow_nodes=hollow, masters=masters, say=_progress())
    print("cutaway: the cluster is up" if changed else "cutaway: nothing to do, everything already runs", flush=True)
    if demo:
        _demo(cluster)


def _demo(cluster: clusters.Cluster) -> None:
    from lab import demo, kubectl

    answers = demo.run(cluster, _progress())
    for what in (["nodes", "-o", "wide"], ["pods", "-o", "wide"], ["service"]):
        print(f"\n$ kubectl get {' '.join(what)}")
        print(kubectl.run(cluster, "get", *what).rstrip())
    if answers:
        print("\nThrough the Service, from each pod:")
        for answer in answers:
            print(f"  {answer}")
    print("\n" + demo.next_steps(cluster))


@app.command()
def down(
    home: Home,
    purge: Annotated[
        bool, typer.Option("--purge", help="Also delete the cluster's folder: its state, images and certificates.")
    ] = False,
) -> None:
    """Stop everything. No process, mount, namespace, link, rule or container is left; the state is, unless purged."""
    from lab import up as upping

    existed = upping.down(home, purge=purge, say=_progress())
    print("cutaway: the cluster is down" if existed else f"cutaway: there is no cluster in {home}")


@app.command()
def status(
    home: Home,
    output: Annotated[str, typer.Option("--output", "-o", help="table or json")] = "table",
) -> None:
    """Every component with its node, process, address and health. Exit code 1 if one is ill."""
    from lab import health

    cluster, identity = _here(home)
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


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def kubectl(context: typer.Context) -> NoReturn:
    """The real kubectl on this cluster: every argument is passed on."""
    from lab import kubectl as real

    cluster = clusters.require(clusters.default_home())
    os.execve(real.program(), ["kubectl", *context.args], real.environment(cluster))  # noqa: S606


@app.command()
def logs(
    component: Annotated[str, typer.Argument(help="A name of `cutaway status`, or a component: apiserver, kubelet …")],
    home: Home,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as more is written.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many lines from the end.")] = 200,
) -> None:
    """The log of a component."""
    from lab import logs as log_files

    log_files.show(_here(home)[0], component, follow=follow, lines=lines)


@app.command()
def stop(name: Annotated[str, typer.Argument(help="A name of `cutaway status`.")], home: Home) -> None:
    """Stop one component and leave it stopped."""
    _command(home, "stop", name)


@app.command()
def start(name: Annotated[str, typer.Argument(help="A name of `cutaway status`.")], home: Home) -> None:
    """Start a component that was stopped, and wait until it is ready."""
    _command(home, "start", name)


@app.command()
def restart(name: Annotated[str, typer.Argument(help="A name of `cutaway status`.")], home: Home) -> None:
    """Stop a component, start it again, and wait until it is ready."""
    _command(home, "restart", name)


def _command(home: Path, verb: str, name: str) -> None:
    from lab import supervisor_client

    cluster, identity = _here(home)
    supervisor_client.call(home, verb, name)
    if verb != "stop":
        from lab import up as upping

        asyncio.run(upping.wait_healthy(cluster, _progress(), [name], identity))
    print(f"cutaway: {name}: {verb} done")


@app.command()
def explain(
    target: Annotated[
        str, typer.Argument(metavar="KIND/NAME", help="deployment/web, pod/web-0, service/web, pvc/data …")
    ],
    home: Home,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where it is.")] = "default",
    output: Annotated[str, typer.Option("--output", "-o", help="text or json")] = "text",
) -> None:
    """Why is it not as desired: the chain of causes, and what would fix it. Exit code 1 if something is wrong."""
    from lab.explain import ask
    from lab.explain.finding import render

    kind, slash, name = target.partition("/")
    if not slash or not name:
        raise LabError(f"{target!r} names no object", "KIND/NAME, as in deployment/web")
    findings = asyncio.run(ask.explain(clusters.require(home), ask.kind_of(kind), namespace, name))
    if output == "json":
        print(json.dumps([finding.to_dict() for finding in findings], indent=2))
    else:
        print("\n".join(render(findings)) or f"{target} is as desired")
    if findings:
        raise typer.Exit(1)


@app.command()
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


@app.command()
def history(
    target: Annotated[str, typer.Argument(metavar="KIND/NAME", help="deployment/web, node/node1, any kind served.")],
    home: Home,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where it is.")] = "default",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many versions at most.")] = 20,
    before: Annotated[int, typer.Option("--before", min=0, help="Look at what there was at this revision.")] = 0,
) -> None:
    """Each retained version of an object, newest first: revision, when, by whom, and which fields changed."""
    from lab import history as past

    found = asyncio.run(past.history(clusters.require(home), target, namespace, limit=limit, before=before))
    print("\n".join(past.rendered(found)))


@app.command()
def diff(
    what: Annotated[
        list[str],
        typer.Argument(metavar="[KIND/NAME] REVISION REVISION", help="One object or all; the second may be 0: now."),
    ],
    home: Home,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where the object is.")] = "default",
) -> None:
    """What differs between two revisions, in an object or in the whole cluster. Exit code 1 if anything does."""
    from lab import history as past

    *target, older, newer = what if len(what) > 1 else ["", *what]
    if len(target) > 1 or not (older.isdigit() and newer.isdigit()):
        raise LabError(f"{' '.join(what)!r} names no two revisions", "cutaway diff [KIND/NAME] 120 140")
    cluster = clusters.require(home)
    if target:
        changes: Sequence[object] = asyncio.run(past.diff(cluster, target[0], namespace, int(older), int(newer)))
    else:
        changes = asyncio.run(past.diff_all(cluster, int(older), int(newer)))
    for change in changes:
        print(change)
    if changes:
        raise typer.Exit(1)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The file to write; it holds every Secret.")],
    home: Home,
    at: Annotated[int, typer.Option("--at", metavar="REVISION", min=0, help="As it was then; 0: as it is.")] = 0,
) -> None:
    """Copy the cluster's whole state to a file, while it runs."""
    from lab import backup as copies

    print(f"cutaway: {copies.backup(clusters.require(home), file, at)} is in {file}")


@app.command()
def fork(
    revision: Annotated[int, typer.Argument(min=1, help="As `cutaway history` lists it.")],
    folder: Annotated[Path, typer.Argument(help="The new cluster's folder.")],
    home: Home,
) -> None:
    """Another cluster beside this one, with its state as of a revision. This one goes on."""
    from lab import backup as copies

    forked = copies.fork(clusters.require(home), revision, folder.absolute(), _progress())
    print(f"cutaway: {forked.name} is up, as of revision {revision}: `cutaway --help`, with CUTAWAY_HOME={forked.home}")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A file that `cutaway backup` has written, here or elsewhere.")],
    home: Home,
    ahead: Annotated[
        int | None,
        typer.Option("--ahead", min=1, help="How far the revision goes on beyond any that is known, at least."),
    ] = None,
) -> None:
    """Put a backed up state in place of the cluster's; the present one is kept beside it."""
    from lab import backup as copies

    revision, kept = copies.restore(clusters.require(home), file, _progress(), ahead=ahead)
    print(f"cutaway: {revision} is restored; what was there before is {kept}")


@app.command()
def compact(
    home: Home,
    before: Annotated[int, typer.Option("--before", min=0, help="Forget what was before this revision; 0: all.")] = 0,
) -> None:
    """Forget history now, and not when its time is over. Current objects stay."""
    from lab import history as past

    begins, removed = asyncio.run(past.compact(clusters.require(home), before))
    print(f"cutaway: history begins at revision {begins}; {removed} log entries removed")


@app.command()
def certs(
    home: Home,
    renew: Annotated[bool, typer.Option("--renew", help="New ones; whoever has one is started anew.")] = False,
    due: Annotated[
        bool, typer.Option("--due", help="With --renew: only what is in the last third of its life.")
    ] = False,
) -> None:
    """The cluster's certificates and when they end."""
    from lab import certs as certificates

    cluster = clusters.require(home)
    if due and not renew:
        raise LabError("--due says which ones to renew", "cutaway certs --renew --due")
    if renew:
        renewed = certificates.renew(cluster, _progress(), due_only=due)
        print(f"cutaway: {len(renewed)} certificates renewed")
    else:
        now = datetime.datetime.now(datetime.UTC)
        for found in certificates.listed(cluster, now):
            note = "  due" if found.due else ""
            left = f"{found.days_left(now):>5} days"
            print(f"{left}  {found.ends:%Y-%m-%d}  {found.name:<32}  {found.subject}{note}")
    certificates.ending_authority(cluster)


@app.command()
def verify(home: Home) -> None:
    """Read the whole state and check that it is sound. Exit code 1 if it isn't."""
    from lab import backup as copies

    print(f"cutaway: {copies.verify(clusters.require(home))}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
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


@app.command()
def doctor(home: Home) -> None:
    """Look whether this machine can run real nodes; exit code 1 if it can't."""
    from lab import doctor as examination

    findings = examination.examine(home)
    for finding in findings:
        mark = "ok  " if finding.ok else "MISS"
        print(f"{mark} {finding.subject}: {finding.message}" + (f" -> {finding.way_out}" if finding.way_out else ""))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command()
def trace(
    pod: Annotated[str, typer.Argument(help="A pod: NAME or NAMESPACE/NAME.")],
    address: Annotated[str, typer.Argument(help="Where to: NAME[:PORT] or IP[:PORT].")],
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


@app.command()
def demo(home: Home) -> None:
    """Run the example and show an answer from each of its pods."""
    _demo(clusters.require(home))


@node_app.command("add")
def node_add(home: Home) -> None:
    """Add a node."""
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
    from lab import up as upping

    cluster = clusters.require(home)
    cluster.node(name)
    real.run(cluster, "delete", "node", name, "--ignore-not-found")
    upping.remove_node(cluster, name)
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


@image_app.command("load")
def image_load(
    archive: Annotated[Path, typer.Argument(help="An OCI or docker archive.")],
    home: Home,
    node: Annotated[list[str] | None, typer.Option(help="Only into this node; may be given several times.")] = None,
) -> None:
    """Load an archive into the nodes."""
    from lab import images

    for name in images.load(_here(home)[0], archive, node or ()):
        print(f"cutaway: loaded {name}")


@image_app.command("pull")
def image_pull(
    name: Annotated[str, typer.Argument(help="An image, such as registry.example.org/app:1.")],
    home: Home,
    node: Annotated[list[str] | None, typer.Option(help="Only to this node; may be given several times.")] = None,
) -> None:
    """Have the nodes pull an image from its registry, showing how far it is."""
    from lab import images

    cluster, _ = _here(home)
    for one in images.chosen(cluster, node or ()):
        images.pull(cluster, one, name, _progress())
        print(f"cutaway: {one.name}: pulled {name}")


@image_app.command("build")
def image_build(
    directory: Annotated[Path, typer.Argument(help="A root file system.")],
    name: Annotated[str, typer.Option(help="The image's name, such as example.org/app:1.")],
    output: Annotated[Path, typer.Option(help="The OCI archive to write.")],
    config: Annotated[
        str, typer.Option(help='Image configuration as JSON: {"Cmd": ["/bin/app"], "Env": ["A=1"]}.')
    ] = "{}",
) -> None:
    """Make an OCI archive out of a root file system."""
    from lab import images

    try:
        parsed = json.loads(config)
    except ValueError as error:
        raise LabError(f"--config is not JSON ({error})") from error
    images.build(directory, name, output, config=parsed)
    print(f"cutaway: wrote {output}")


@image_app.command("list")
def image_list(home: Home) -> None:
    """The images on each node."""
    from lab import images

    cluster, _ = _here(home)
    for node in cluster.nodes:
        for name in images.names(cluster, node):
            print(f"{node.name}  {name}")


if __name__ == "__main__":
    main()
