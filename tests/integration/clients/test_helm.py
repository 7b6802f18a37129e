"""helm 4, unmodified: a chart with a hook and a CRD goes through its whole life."""

import json
import subprocess
import textwrap

import pytest

from tests.support import helm as helm_program

CHART = {
    "Chart.yaml": "apiVersion: v2\nname: app\nversion: 0.1.0\n",
    "values.yaml": "replicas: 1\n",
    "crds/shirts.yaml": """
        apiVersion: apiextensions.k8s.io/v1
        kind: CustomResourceDefinition
        metadata: {name: shirts.helm.example.com}
        spec:
          group: helm.example.com
          scope: Namespaced
          names: {plural: shirts, singular: shirt, kind: Shirt}
          versions:
            - name: v1
              served: true
              storage: true
              schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
        """,
    "templates/all.yaml": """
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: "{{ .Release.Name }}"}
        spec:
          replicas: {{ .Values.replicas }}
          selector: {matchLabels: {app: "{{ .Release.Name }}"}}
          template:
            metadata: {labels: {app: "{{ .Release.Name }}"}}
            spec: {containers: [{name: c, image: any}]}
        ---
        apiVersion: v1
        kind: Service
        metadata: {name: "{{ .Release.Name }}"}
        spec: {selector: {app: "{{ .Release.Name }}"}, ports: [{port: 80}]}
        ---
        apiVersion: helm.example.com/v1
        kind: Shirt
        metadata: {name: blue}
        spec: {color: blue}
        """,
    "templates/hook.yaml": """
        apiVersion: batch/v1
        kind: Job
        metadata:
          name: "{{ .Release.Name }}-before"
          annotations: {helm.sh/hook: pre-install, helm.sh/hook-delete-policy: hook-succeeded}
        spec:
          template:
            metadata: {annotations: {hollow.cutaway.dev/run-seconds: "0.2"}}
            spec: {restartPolicy: Never, containers: [{name: c, image: any}]}
        """,
}


@pytest.fixture(scope="module")
def helm(tmp_path_factory):
    return helm_program.unpack(tmp_path_factory.mktemp("helm"))


@pytest.fixture
def chart(tmp_path):
    for name, text in CHART.items():
        path = tmp_path / "app" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return tmp_path / "app"


def test_install_upgrade_rollback_uninstall(cutaway_cluster, cutaway_namespace, helm, chart, tmp_path):
    environment = cutaway_cluster.environment | {"HOME": str(tmp_path)}

    def run(program, *arguments):
        command = [str(program), *arguments, "-n", cutaway_namespace]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=90)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def replicas():
        from lab import kubectl

        return json.loads(run(kubectl.program(), "get", "deployment", "web", "-o", "json"))["status"].get(
            "readyReplicas"
        )

    waiting = ["--wait", "--timeout", "60s"]
    run(helm, "install", "web", str(chart), *waiting)
    assert replicas() == 1
    run(helm, "upgrade", "web", str(chart), "--set", "replicas=3", *waiting)
    assert replicas() == 3
    run(helm, "rollback", "web", "1", *waiting)
    assert replicas() == 1
    history = json.loads(run(helm, "history", "web", "-o", "json"))
    assert [entry["revision"] for entry in history] == [1, 2, 3]
    run(helm, "uninstall", "web", *waiting)
    assert json.loads(run(helm, "list", "-o", "json")) == []
