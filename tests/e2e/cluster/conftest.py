import pytest

from tests.support import lab_cluster

# One of the ten slots of a machine, far from the first ones that people use.
SLOT = 7


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Two real nodes with the example's image."""
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
