"""The running lab, with the example's image on every node. `make lab-test` starts it before."""

import os
import tempfile
from pathlib import Path

import pytest

from tests.support import compose_lab
from tests.support.compose_lab import NODES, Lab


@pytest.fixture(scope="session")
def lab():
    reason = compose_lab.why_not()
    if reason:
        pytest.skip(reason)
    running = Lab(os.environ["LAB_COMPOSE"])
    _load_image(running)
    return running


def _load_image(lab):
    from lab import images
    from lab.cluster import Cluster

    with tempfile.TemporaryDirectory(prefix="cutaway-web-") as folder:
        archive = images.build_example(Cluster(Path(folder), 0, ()), "nginx:1.14.2").read_bytes()
    for node in NODES:
        lab.inside(node, "sh", "-c", "cat > /tmp/web.tar", stdin=archive)
        socket = f"/var/lib/cutaway/nodes/{node}/run/containerd.sock"
        lab.inside(node, "python", "-m", "cri.images.load", "--socket", socket, "/tmp/web.tar")
