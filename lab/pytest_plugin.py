"""Fixtures for pytest: `cutaway_cluster` (one a session) and `cutaway_namespace` (one a test, in it).

The plugin is found by itself once Cutaway is installed. `--cutaway-nodes N` sets the number of hollow nodes.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

# What a cluster needs is imported where one is made: a test session without one must not pay for it.
if TYPE_CHECKING:
    from lab.testing import RunningCluster

KUBECTL_SECONDS = 30


def pytest_addoption(parser: Any) -> None:
    """The plugin's options."""
    parser.getgroup("cutaway").addoption("--cutaway-nodes", type=int, default=1, help="hollow nodes of cutaway_cluster")


@pytest.fixture(scope="session")
def cutaway_cluster(request: pytest.FixtureRequest) -> Iterator[RunningCluster]:
    """A cluster of this test session's own."""
    from lab.testing import cluster

    with cluster(nodes=request.config.getoption("--cutaway-nodes")) as running:
        yield running


@pytest.fixture
def cutaway_namespace(cutaway_cluster: RunningCluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace named after the test; it and all in it are deleted afterwards."""
    from lab import kubectl

    def run(*arguments: str, check: bool) -> None:
        command = [kubectl.program(), *arguments]
        subprocess.run(command, check=check, env=cutaway_cluster.environment, timeout=KUBECTL_SECONDS)

    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:50].strip("-") or "test"
    run("create", "namespace", name, check=True)
    yield name
    run("delete", "namespace", name, "--wait=false", check=False)
