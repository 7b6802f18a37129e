"""kopf's and kr8s's own tests, out of their source distributions, against a cluster of ours.

What is left out is named with why. `CUTAWAY_TEST_THOROUGH=1` runs the parts that take minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab import kubectl
from lab.testing import RunningCluster
from tests.support import sdists

KR8S, KOPF = "0.20.15", "1.45.2"
THOROUGH = bool(os.environ.get("CUTAWAY_TEST_THOROUGH"))
STAND_IN = Path(__file__).parent / "kind_stand_in"

KR8S_LEFT_OUT = {
    "exec": "simulated nodes run no commands",
    "port_forward": "simulated pods have no network",
    "adoption": "its pod is an nginx from the Internet that it executes in",
    "test_api_resources": "wants one resource called pods; metrics.k8s.io has another, as where a metrics server runs",
    "test_pod_list": "counts pods while other tests, which run beside it here, make and delete theirs",
    "test_list_and_ensure": "the same",
    "cast_to_from_kubernetes": "is for a kubernetes client of an earlier layout",
}
KR8S_FILES = ("test_objects.py", "test_io.py", "test_gen.py", *(("test_api.py",) if THOROUGH else ()))
# The last one makes certificates by a library that does not know the libcrypto of today.
KOPF_EXAMPLES = "not 17-admission" if THOROUGH else "02-children or 05-handlers"


def run(cluster: RunningCluster, folder: Path, *arguments: str, seconds: float, path: str = "") -> str:
    """Run pytest in a source distribution; its output. Its own settings of coverage and time are not ours."""
    environment = cluster.environment | {
        "PATH": f"{Path(kubectl.program()).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, (path, str(folder)))),
        "TEST_KUBECONFIG": str(cluster.kubeconfig),
        "TEST_KUBECTL": str(kubectl.program()),
        "HOME": str(folder),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=seconds)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.timeout(700)
def test_kr8s(cutaway_cluster: RunningCluster, tmp_path: Path) -> None:
    folder = sdists.unpacked("kr8s", KR8S, tmp_path)
    # kind has pods of its own there, which the tests list.
    thing = [kubectl.program(), "run", "thing", "-n", "kube-system", "--image=any"]
    subprocess.run(thing, check=True, env=cutaway_cluster.environment, timeout=30)
    chosen = " and ".join(f"not {word}" for word in KR8S_LEFT_OUT)
    files = [f"kr8s/tests/{name}" for name in KR8S_FILES]
    plugin = ("-p", "pytest_kind.plugin", "--keep-cluster", "--timeout=60", "-n", "2")
    out = run(cutaway_cluster, folder, *plugin, *files, "-k", chosen, seconds=600, path=str(STAND_IN))
    assert " passed" in out
    assert "skipped" not in out


@pytest.mark.timeout(700)
def test_kopf(cutaway_cluster: RunningCluster, tmp_path: Path) -> None:
    folder = sdists.unpacked("kopf", KOPF, tmp_path)
    # One after another: each has its operator and its objects, all of one name.
    arguments = ("--only-e2e", "--timeout=120", "tests/e2e", "-k", KOPF_EXAMPLES)
    out = run(cutaway_cluster, folder, *arguments, seconds=500)
    assert " passed" in out
    assert "skipped" not in out
