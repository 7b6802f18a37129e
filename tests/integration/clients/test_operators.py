"""Operators that nobody here wrote the framework of drive a custom resource end to end."""

import json
import subprocess
import sys
import textwrap

import pytest

from lab import kubectl
from tests.support.lab_cluster import eventually

CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boxes.operator.example.com}
spec:
  group: operator.example.com
  scope: Namespaced
  names: {plural: boxes, singular: box, kind: Box}
  versions:
    - name: v1
      served: true
      storage: true
      subresources: {status: {}}
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec: {type: object, properties: {content: {type: string}}}
            status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"""
KOPF_OPERATOR = """
    import kopf
    import kubernetes

    @kopf.on.create("operator.example.com", "v1", "boxes")
    @kopf.on.update("operator.example.com", "v1", "boxes")
    def fill(spec, name, namespace, patch, **_):
        body = {"metadata": {"name": name}, "data": {"content": spec["content"]}}
        kopf.adopt(body)
        api = kubernetes.client.CoreV1Api()
        try:
            api.create_namespaced_config_map(namespace, body)
        except kubernetes.client.ApiException as error:
            if error.status != 409:
                raise
            api.patch_namespaced_config_map(name, namespace, body)
        patch.status["content"] = spec["content"]

    @kopf.on.startup()
    def login(**_):
        kubernetes.config.load_kube_config()
"""


def run(cluster, *arguments, stdin=None):
    done = subprocess.run(
        [kubectl.program(), *arguments],
        capture_output=True,
        text=True,
        input=stdin,
        env=cluster.environment,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def boxes(cutaway_cluster):
    run(cutaway_cluster, "apply", "-f", "-", stdin=CRD)
    run(cutaway_cluster, "wait", "--for=condition=Established", "crd/boxes.operator.example.com", "--timeout=20s")
    yield
    run(cutaway_cluster, "delete", "crd", "boxes.operator.example.com", "--wait=false")


def test_a_kopf_operator_creates_updates_and_its_children_go_with_the_resource(
    cutaway_cluster, cutaway_namespace, boxes, tmp_path
):
    program = tmp_path / "operator.py"
    program.write_text(textwrap.dedent(KOPF_OPERATOR))
    log = tmp_path / "log"
    with log.open("wb") as output:
        operator = subprocess.Popen(
            [sys.executable, "-m", "kopf", "run", "--standalone", "-n", cutaway_namespace, str(program)],
            stdout=output, stderr=output, env=cutaway_cluster.environment,
        )  # fmt: skip
    inside = ["-n", cutaway_namespace]

    def box(content):
        body = {
            "apiVersion": "operator.example.com/v1",
            "kind": "Box",
            "metadata": {"name": "one"},
            "spec": {"content": content},
        }
        run(cutaway_cluster, "apply", *inside, "-f", "-", stdin=json.dumps(body))

    def content():
        maps = json.loads(run(cutaway_cluster, "get", "configmaps", "-o", "json", *inside))["items"]
        return {item["metadata"]["name"]: item.get("data", {}).get("content") for item in maps}.get("one")

    try:
        box("apples")
        eventually(lambda: content() == "apples", seconds=30, what="the operator makes a ConfigMap")
        box("pears")
        eventually(lambda: content() == "pears", seconds=30, what="the operator changes it")
        run(cutaway_cluster, "delete", "box", "one", *inside)
        eventually(lambda: content() is None, seconds=30, what="the garbage collector removes it")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{log.read_text()[-3000:]}") from None
    finally:
        operator.terminate()
        operator.wait(timeout=20)
