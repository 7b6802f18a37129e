"""The `cutaway` command: the table of its commands, and what an error looks like."""

from __future__ import annotations

import sys

import typer

from lab.commands import images, joining, looking, nodes, running, state, watching
from lab.errors import LabError
from machinery.component import logs as component_logs

app = typer.Typer(
    help="Kubernetes in Python with every part visible and replaceable: a cluster on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for commands in (running, looking, watching, state, joining, nodes, images):
    commands.add_to(app)


def main() -> None:
    """Entry point: a LabError is one line on stderr and its exit code."""
    # The parts of machinery used here would tell of every retry; here only the outcome counts.
    component_logs.setup("cutaway", "error", "console")
    try:
        app()
    except LabError as error:
        print(f"cutaway: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
