"""`cutaway watch`: the cluster at work, live."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from lab import cluster as clusters
from lab.commands.context import Home
from lab.errors import LabError


def add_to(app: typer.Typer) -> None:
    """Enter the command into the `cutaway` command."""
    app.command()(watch)


def watch(
    home: Home,
    target: Annotated[
        str, typer.Argument(metavar="[KIND/NAME]", help="Print what concerns this object; without it: serve the page.")
    ] = "",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where it is.")] = "default",
    everything: Annotated[bool, typer.Option("--all", help="Print what concerns anything, and serve no page.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The page's port on 127.0.0.1; 0: a free one.")] = 0,
    output: Annotated[str, typer.Option("--output", "-o", help="text or json (a line each)")] = "text",
) -> None:
    """Watch it work, live: who wrote what, because of what, from `kubectl apply` to the nft rule."""
    from lab.watching import run

    if output not in ("text", "json"):
        raise LabError(f"--output {output!r}: unknown", "text or json")
    cluster = clusters.require(home)

    def say(line: str) -> None:
        print(line, flush=True)

    if target or everything:
        work = run.lines(cluster, target, namespace, say, as_json=output == "json")
    else:
        work = run.page(cluster, port, say)
    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        print()
