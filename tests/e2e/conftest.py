"""One cluster of two real nodes for every folder that asks for it."""

import os
from pathlib import Path

import pytest

from tests.support import lab_cluster

# One of the ten slots of a machine, far from the first ones that people use.
SLOT = 7


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Two real nodes with the example's image."""
    running_already = os.environ.get("CUTAWAY_TEST_CLUSTER")
    if running_already:
        # For work on one component: tests against a cluster that is up, which they leave up.
        yield lab_cluster.LabCluster(Path(running_already), int(os.environ.get("CUTAWAY_SLOT", "0")))
        return
    reason = lab_cluster.why_not()
    if reason:
        pytest.skip(f"no real nodes on this machine: {reason}")
    with lab_cluster.running(tmp_path_factory.mktemp("c"), nodes=2, slot=SLOT) as running:
        lab_cluster.load_web_image(running)
        yield running


@pytest.fixture
def namespace(cluster, request):
    """A namespace for one test, deleted with all in it."""
    name = request.node.name.replace("_", "-").replace("[", "-").replace("]", "").lower()[:50].strip("-")
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=true", "--timeout=60s", check=False)
