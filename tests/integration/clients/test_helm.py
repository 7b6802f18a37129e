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
    "templates/tests/ready.yaml": """
        apiVersion: v1
        kind: Pod
        metadata:
          name: "{{ .Release.Name }}-test"
          annotations:
            helm.sh/hook: test
            helm.sh/hook-delete-policy: before-hook-creation
            hollow.cutaway.dev/run-seconds: "0.2"
            hollow.cutaway.dev/exit-code: "{{ .Values.testFails | default 0 }}"
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


class Release:
    """helm and kubectl in one namespace."""

    def __init__(self, cluster, namespace, helm, home):
        self._environment = cluster.environment | {"HOME": str(home)}
        self._namespace = namespace
        self._helm = helm

    def run(self, *arguments, program=None, fails=False):
        command = [str(program or self._helm), *arguments, "-n", self._namespace]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment, timeout=90)
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stdout + done.stderr if fails else done.stdout

    def get(self, *what):
        from lab import kubectl

        return json.loads(self.run("get", *what, "-o", "json", program=kubectl.program()))

    def replicas(self):
        return self.get("deployment", "web")["status"].get("readyReplicas")


@pytest.fixture
def release(cutaway_cluster, cutaway_namespace, helm, tmp_path):
    return Release(cutaway_cluster, cutaway_namespace, helm, tmp_path)


WAITING = ["--wait", "--timeout", "60s"]


def test_install_upgrade_rollback_test_uninstall(release, chart):
    release.run("install", "web", str(chart), *WAITING)
    assert release.replicas() == 1
    assert [job["metadata"]["name"] for job in release.get("jobs")["items"]] == []
    assert release.get("shirts", "blue")["spec"] == {"color": "blue"}
    release.run("upgrade", "web", str(chart), "--set", "replicas=3", *WAITING)
    assert release.replicas() == 3
    release.run("rollback", "web", "1", *WAITING)
    assert release.replicas() == 1
    history = json.loads(release.run("history", "web", "-o", "json"))
    assert [entry["revision"] for entry in history] == [1, 2, 3]
    assert "Phase:" in release.run("test", "web", "--timeout", "60s")
    release.run("uninstall", "web", *WAITING)
    assert json.loads(release.run("list", "-o", "json")) == []
    assert release.get("deployments,services,shirts")["items"] == []


def test_a_failed_test_and_a_failed_upgrade_are_told_and_taken_back(release, chart):
    release.run("install", "web", str(chart), "--set", "testFails=3", *WAITING)
    assert "failed" in release.run("test", "web", "--timeout", "60s", fails=True).lower()
    broken = ["--set", "image=broken", "--set", "replicas=-1", "--rollback-on-failure", *WAITING]
    assert "must be greater than or equal to 0" in release.run("upgrade", "web", str(chart), *broken, fails=True)
    assert release.replicas() == 1
    statuses = [entry["status"] for entry in json.loads(release.run("history", "web", "-o", "json"))]
    assert statuses == ["superseded", "failed", "deployed"]
    release.run("uninstall", "web", *WAITING)
