"""The `cutaway` command: the table of its commands, and what an error looks like."""

from __future__ import annotations

import errno
import gc
import sys

import typer

from lab.commands import images, joining, looking, nodes, running, state, watching
from lab.errors import LabError
from machinery.component import logs as component_logs

app = typer.Typer(
    help="Kubernetes in Python with every part visible and replaceable: a cluster on this machine.",
    no_args_is_help=True,
    # A wide terminal shows what each command does in full.
    context_settings={"max_content_width": 120},
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for commands in (running, looking, watching, state, joining, nodes, images):
    commands.add_to(app)


_NOT_OURS = "give another folder with CUTAWAY_HOME or --home, or be the user whose it is"
_NO_ROOM = "make room on that disk, then try again"
# What any command can meet in the cluster's folder, wherever it is.
WAYS_OUT = {
    errno.EACCES: _NOT_OURS,
    errno.EPERM: _NOT_OURS,
    errno.EROFS: _NOT_OURS,
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
}


def main() -> None:
    """Entry point: a LabError is one line on stderr and its exit code."""
    # The parts of machinery used here would tell of every retry; here only the outcome counts.
    component_logs.setup("cutaway", "error", "console")
    try:
        app()
    except LabError as error:
        print(f"cutaway: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        way_out = WAYS_OUT.get(error.errno or 0)
        if way_out is None:
            raise
        print(f"cutaway: {error.filename or 'the disk'}: {error.strerror}: {way_out}", file=sys.stderr)
        sys.exit(1)
    finally:
        # Or the interpreter looks through all of it once more before it ends.
        gc.freeze()


if __name__ == "__main__":
    main()
