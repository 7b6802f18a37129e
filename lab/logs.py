"""Shows a component's log file."""

from __future__ import annotations

import os
from pathlib import Path

from lab import process_spec
from lab.cluster import Cluster
from lab.errors import LabError


def find(cluster: Cluster, wanted: str) -> Path:
    """The log of the process of this name, or of the only process of this component. Raises LabError with the
    choices."""
    specs = process_spec.read_specs(cluster.components)
    names = [name for name, spec in specs.items() if wanted in (name, spec.component)]
    if wanted in specs:
        names = [wanted]
    if len(names) == 1:
        return Path(specs[names[0]].log)
    raise LabError(
        f"{len(names) or 'no'} components are called {wanted!r}", f"choose one of {', '.join(names or specs)}"
    )


def show(cluster: Cluster, wanted: str, *, follow: bool, lines: int) -> None:
    """Print the end of a log; with `follow` go on (it does not return then)."""
    path = find(cluster, wanted)
    if not path.exists():
        raise LabError(f"{path} does not exist yet", f"has {wanted} ever started?")
    arguments = ["tail", "-n", str(lines), *(["-F"] if follow else []), str(path)]
    os.execvp("tail", arguments)  # noqa: S606
