"""Static pods run from files, and their mirrors show them."""

from __future__ import annotations

import asyncio

import pytest
import yaml

from machinery.api import errors, kinds
from tests.support.kubelet_node import Cluster, busybox, is_ready

pytestmark = pytest.mark.root


async def test_a_manifest_runs_shows_a_mirror_and_goes_with_its_file(cluster: Cluster) -> None:
    ns = cluster.namespace
    file = cluster.node.manifests / "web.yaml"
    spec = {"terminationGracePeriodSeconds": 1, "containers": [busybox()]}
    file.write_text(yaml.safe_dump({"kind": "Pod", "metadata": {"name": "web", "namespace": ns}, "spec": spec}))
    try:
        mirror = await cluster.wait(kinds.POD, "web-n1", ns, is_ready)
        assert mirror.metadata.annotations["kubernetes.io/config.mirror"]
        assert mirror.metadata.ownerReferences[0].kind == "Node"
        container = mirror.status.containerStatuses[0].containerID
        # Deleting the mirror changes nothing on the node, and the mirror comes back.
        await cluster.client.delete(kinds.POD, "web-n1", ns)

        def is_back(pod: object) -> bool:
            return pod.metadata.uid != mirror.metadata.uid and is_ready(pod)

        back = await cluster.wait(kinds.POD, "web-n1", ns, is_back)
        assert back.status.containerStatuses[0].containerID == container
    finally:
        file.unlink()
    for _ in range(200):
        try:
            await cluster.client.get(kinds.POD, "web-n1", ns)
        except errors.NotFound:
            if not list((cluster.node.root / "pods").iterdir()):
                return
        await asyncio.sleep(0.05)
    raise AssertionError("the mirror or the pod stayed")
