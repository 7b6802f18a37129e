"""A component is taken out and another program put in its place, while the cluster goes on."""

import sys

import pytest

from tests.support.lab_cluster import ROOT, eventually

pytestmark = pytest.mark.root


def _phase(cluster, namespace, name):
    return cluster.get("pod", name, "-n", namespace)["status"].get("phase")


def test_the_example_scheduler_schedules_in_the_place_of_ours(cluster, namespace):
    command = [sys.executable, str(ROOT / "examples/scheduler_whole.py"), "--config", "{config}"]
    cluster.cutaway("swap", "scheduler", "--", *command, "--pods-of", "default-scheduler")
    try:
        cluster.kubectl("run", "web", "-n", namespace, "--image=nginx:1.14.2")
        eventually(lambda: _phase(cluster, namespace, "web") == "Running", seconds=30)
        # It fills the nodes in the order of their names; ours would have said so in an event.
        assert cluster.get("pod", "web", "-n", namespace)["spec"]["nodeName"] == "node1"
        events = cluster.get("events", "-n", namespace)["items"]
        assert not [event for event in events if event["reason"] == "Scheduled"]
    finally:
        cluster.cutaway("swap", "scheduler", "--undo")
    eventually(lambda: cluster.status()["scheduler"]["health"] == "ok", seconds=20)


def test_a_program_that_dies_at_once_is_taken_out_again(cluster):
    refused = cluster.run_cutaway("swap", "scheduler", "--", sys.executable, "-c", "raise SystemExit('no licence')")
    assert refused.returncode == 1
    assert "no licence" in refused.stderr
    assert "scheduler runs as before" in refused.stderr
    eventually(lambda: cluster.status()["scheduler"]["health"] == "ok", seconds=20)
