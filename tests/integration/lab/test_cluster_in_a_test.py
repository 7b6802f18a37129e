"""A cluster as a test fixture: real controllers and garbage collection, without root."""

import json
import os
import subprocess

from lab import kubectl
from lab.testing import cluster
from machinery.api import kinds
from tests.support.lab_cluster import eventually


def _kubectl(running, *arguments):
    done = subprocess.run(
        [kubectl.program(), *arguments], capture_output=True, text=True, env=running.environment, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_deployment_rolls_out_on_hollow_nodes_and_its_parts_go_with_it(cutaway_cluster, cutaway_namespace):
    inside = ["-n", cutaway_namespace]
    _kubectl(cutaway_cluster, "create", "deployment", "web", "--image=any", "--replicas=2", *inside)
    _kubectl(cutaway_cluster, "rollout", "status", "deployment/web", "--timeout=30s", *inside)
    _kubectl(cutaway_cluster, "delete", "deployment", "web", *inside)
    eventually(
        lambda: not json.loads(_kubectl(cutaway_cluster, "get", "rs,pods", "-o", "json", *inside))["items"], seconds=30
    )


async def test_the_grpc_client_sees_the_same_cluster(cutaway_cluster):
    client = await cutaway_cluster.client()
    try:
        names = {node.metadata.name for node in await client.list(kinds.NODE)}
    finally:
        await client.close()
    assert names == {"node1"}


def test_two_clusters_know_nothing_of_each_other_and_leave_nothing(cutaway_cluster):
    with cluster(nodes=0, scheduler=False) as other:
        _kubectl(other, "create", "namespace", "only-here")
        assert "only-here" not in _kubectl(cutaway_cluster, "get", "namespaces")
    assert not other.home.exists()
    assert not os.path.exists(f"/proc/{other.pid}")
