"""`cutaway explain`: the controller-manager answers over gRPC, and asks the scheduler for its part."""

import json

import pytest

pytestmark = pytest.mark.root


def test_a_deployment_that_fits_nowhere_is_explained_down_to_what_would_fit(cluster, namespace):
    container = {"name": "c", "image": "x", "resources": {"requests": {"cpu": "1000"}}}
    labels = {"app": "huge"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    huge = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "huge"}, "spec": spec}
    cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(huge))
    # kubectl waits for no pods that are not there yet.
    cluster.kubectl("wait", "deploy/huge", "-n", namespace, "--for=jsonpath={.status.replicas}=1")
    cluster.kubectl("wait", "pod", "-l", "app=huge", "-n", namespace, "--for=condition=PodScheduled=false")
    done = cluster.run_cutaway("explain", "deploy/huge", "-n", namespace, "-o", "json")
    assert done.returncode == 1, done.stderr
    (top,) = json.loads(done.stdout)
    assert top["subject"] == "deployment/huge"
    (pod,) = top["because"]
    assert "Insufficient cpu" in pod["problem"]
    # What only the scheduler knows.
    assert "if the cpu request is ≤" in pod["remedy"]


def test_what_does_not_exist_or_nobody_explains(cluster):
    assert "pod default/nope does not exist" in cluster.run_cutaway("explain", "pod/nope").stderr
    assert "'widget' can't be explained; these can: pod" in cluster.run_cutaway("explain", "widget/x").stderr
