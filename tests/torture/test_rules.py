"""12. The proxy: rules change as a whole, no connection fails, and they outlive its death."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.support.torture import figure, times

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("nft") is None, reason="needs root and nft")
CHANGES = times(1000)


def test_no_connection_fails_in_many_changes_of_endpoints_and_the_death_of_the_proxy() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture.rules_scenario", "--changes", str(CHANGES)],
        capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout)
    connections = sum(seen["answers"].values())
    figure(
        12,
        f"{len(seen['failures'])} of {connections:,} connections failed in {CHANGES} changes of endpoints and one "
        f"SIGKILL of the proxy; a change in the rules p50 {seen['p50_ms']} ms, p99 {seen['p99_ms']} ms under that load",
    )
    assert seen["failures"] == []
    # Every endpoint took its turn, and there was a connection for every change at least.
    assert len(seen["answers"]) == 4
    assert connections > CHANGES
