"""Becomes one process of a joined host: `python -m lab.join.run_process HOME NAME`, for systemd's units.

The state is written as the supervisor would, so that `cutaway status` knows the process; systemd watches it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from lab import process_spec
from lab.process_spec import ProcessState


def main() -> None:
    """Entry point; does not return."""
    components, name = Path(sys.argv[1]) / "components", sys.argv[2]
    spec = process_spec.read_specs(components).get(name)
    if spec is None:
        sys.exit(f"{components} has no {name}.json")
    before = process_spec.read_state(components, name)
    # The pid and its start time stay the same through exec.
    ticks = process_spec.start_ticks(os.getpid())
    restarts = before.restarts + 1 if before.pid else 0
    process_spec.write_state(
        components, name, ProcessState(os.getpid(), ticks, restarts=restarts, started_at=time.time())
    )
    os.execvpe(spec.argv[0], spec.argv, os.environ | spec.environment)  # noqa: S606


if __name__ == "__main__":
    main()
