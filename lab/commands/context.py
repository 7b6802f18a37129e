"""What every command of `cutaway` begins with: which cluster, who we are, and how a step is told."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lab import cluster as clusters
from lab.pki import Identity
from lab.progress import Say

Home = Annotated[
    Path, typer.Option(envvar="CUTAWAY_HOME", help="The cluster's folder.", default_factory=clusters.default_home)
]


def here(home: Path) -> tuple[clusters.Cluster, Identity]:
    """The cluster in a folder, or the host that joined one elsewhere, and who we are to its processes."""
    from lab import admin
    from lab.join import host as hosts

    joined = hosts.load(home)
    if joined is not None:
        return joined, hosts.HeldPki(joined.pki).file("kubelet")
    cluster = clusters.require(home)
    return cluster, admin.identity(cluster)


def progress() -> Say:
    """Says a step on a line of its own, as it happens."""

    def say(message: str) -> None:
        print(f"  {message}", flush=True)

    return say


def aside() -> Say:
    """The same on stderr, beside an answer that may be piped on."""

    def say(message: str) -> None:
        print(f"  {message}", file=sys.stderr, flush=True)

    return say
