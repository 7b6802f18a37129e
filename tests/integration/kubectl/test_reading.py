"""kubectl's reading commands and output formats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.support.kubectl import Kubectl


def test_every_output_format(kubectl: Kubectl, manifest: Path) -> None:
    kubectl("apply", "-f", str(manifest))
    table = kubectl("get", "deployment").splitlines()
    assert table[0].split() == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert table[1].split()[:4] == ["web", "0/3", "0", "0"]
    wide = kubectl("get", "deployment", "-o", "wide")
    assert "nginx:1.25" in wide
    assert "app=web" in wide
    assert yaml.safe_load(kubectl("get", "deployment", "web", "-o", "yaml"))["kind"] == "Deployment"
    assert json.loads(kubectl("get", "deployment", "-o", "json"))["kind"] == "List"
    assert kubectl("get", "deployment", "web", "-o", "name") == "deployment.apps/web\n"
    assert kubectl("get", "deployment", "web", "-o", "jsonpath={.spec.replicas}") == "3"
    assert kubectl("get", "deployment", "web", "-o", "go-template={{.metadata.name}}") == "web"
    columns = kubectl("get", "deployment", "-o", "custom-columns=N:.metadata.name,R:.spec.replicas")
    assert columns.split() == ["N", "R", "web", "3"]
    assert kubectl("get", "deployment", "--no-headers").startswith("web ")
    assert "app=web" in kubectl("get", "deployment", "--show-labels")
    assert kubectl("get", "deployment", "-L", "app").split()[5] == "APP"


def test_selectors_sorting_and_all_namespaces(kubectl: Kubectl) -> None:
    for name in ("b", "a", "c"):
        kubectl("create", "configmap", name)
    kubectl("label", "configmap", "a", "c", "x=1")
    assert kubectl("get", "cm", "-l", "x=1", "-o", "name").split() == ["configmap/a", "configmap/c"]
    assert kubectl("get", "cm", "-l", "x notin (1)", "-o", "name").split() == ["configmap/b"]
    assert kubectl("get", "cm", "--field-selector=metadata.name=b", "-o", "name").split() == ["configmap/b"]
    assert kubectl("get", "cm", "--sort-by=.metadata.name", "-o", "name").split()[0] == "configmap/a"
    assert kubectl.namespace in kubectl("get", "cm", "-A")
    assert kubectl("get", "cm", "--chunk-size=1", "-o", "name").split() == ["configmap/a", "configmap/b", "configmap/c"]


@pytest.mark.parametrize("kind", ["deployment", "service", "configmap", "secret", "sa", "namespace", "pod"])
def test_describe(kubectl: Kubectl, manifest: Path, kind: str) -> None:
    kubectl("apply", "-f", str(manifest))
    kubectl("create", "configmap", "web", "--from-literal=a=b")
    kubectl("create", "secret", "generic", "web", "--from-literal=password=canary")
    kubectl("create", "sa", "web")
    kubectl("run", "web", "--image=nginx")
    name = kubectl.namespace if kind == "namespace" else "web"
    out = kubectl("describe", kind, name)
    assert "Name:  " in out
    assert "canary" not in out


def test_watch_sees_a_change(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "w")
    out = kubectl("get", "configmap", "w", "-w", "-o", "name", "--request-timeout=1s")
    assert "configmap/w" in out


def test_wait(kubectl: Kubectl, manifest: Path) -> None:
    kubectl("apply", "-f", str(manifest))
    assert "condition met" in kubectl("wait", "--for=jsonpath={.spec.replicas}=3", "deploy/web", "--timeout=5s")
    assert "timed out" in kubectl.fails("wait", "--for=condition=Available", "deploy/web", "--timeout=1s")
    kubectl("create", "configmap", "gone")
    kubectl("delete", "configmap", "gone")
    kubectl("wait", "--for=delete", "configmap/gone", "--timeout=5s")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("pods.spec.containers.resources", "limits"),
        ("deployments.spec.strategy.rollingUpdate.maxSurge", "IntOrString"),
        ("crd", "CustomResourceDefinition"),
        ("ingress.spec.rules.http.paths", "pathType"),
        ("netpol.spec.ingress", "from"),
    ],
)
def test_explain(kubectl: Kubectl, path: str, words: str) -> None:
    assert words in kubectl("explain", path)


def test_explain_recursively_and_in_another_version(kubectl: Kubectl) -> None:
    out = kubectl("explain", "pod.spec", "--recursive")
    assert "readinessProbe" in out
    assert "targetCPUUtilizationPercentage" in kubectl("explain", "hpa.spec", "--api-version=autoscaling/v1")
    assert "metrics" in kubectl("explain", "hpa.spec")


def test_discovery(kubectl: Kubectl) -> None:
    rows = [line.split() for line in kubectl("api-resources", "--no-headers").splitlines()]
    assert ["pods", "po", "v1", "true", "Pod"] in rows
    assert ["deployments", "deploy", "apps/v1", "true", "Deployment"] in rows
    assert "apps/v1" in kubectl("api-versions").split()
    assert "running at" in kubectl("cluster-info")
    assert "Server Version: v1.37" in kubectl("version")
    names = kubectl("api-resources", "--verbs=list", "--namespaced", "-o", "name").split()
    # Every kind can be listed as a table without an error, and as JSON.
    assert kubectl.run("get", ",".join(names)).returncode == 0


def test_raw_paths(kubectl: Kubectl) -> None:
    assert kubectl("get", "--raw", "/livez") == "ok"
    ready = kubectl("get", "--raw", "/readyz?verbose")
    for check in (
        "ping", "etcd", "informer-sync", "poststarthook/rbac/bootstrap-roles",
        "poststarthook/crd-informer-synced", "poststarthook/priority-and-fairness-config-producer",
        "autoregister-completion", "shutdown",
    ):  # fmt: skip
        assert f"[+]{check} ok" in ready
        assert kubectl("get", "--raw", f"/readyz/{check}") == "ok"
    assert "[+]etcd excluded: ok" in kubectl("get", "--raw", "/livez?verbose&exclude=etcd")
    assert json.loads(kubectl("get", "--raw", "/version"))["major"] == "1"
    assert "NotFound" in kubectl.fails("get", "--raw", "/nowhere")


def test_events(kubectl: Kubectl) -> None:
    event = f"""
apiVersion: v1
kind: Event
metadata: {{name: e1, namespace: {kubectl.namespace}}}
involvedObject: {{apiVersion: v1, kind: Pod, name: web, namespace: {kubectl.namespace}}}
reason: Started
message: it started
type: Normal
firstTimestamp: "2026-01-01T00:00:00Z"
lastTimestamp: "2026-01-01T00:00:00Z"
count: 1
"""
    kubectl("create", "-f", "-", stdin=event)
    assert "it started" in kubectl("get", "events")
    assert "it started" in kubectl("events")


def test_config_view_and_dump(kubectl: Kubectl, tmp_path: Path) -> None:
    assert "current-context" in kubectl("config", "view")
    kubectl("cluster-info", "dump", f"--output-directory={tmp_path}", "--namespaces", kubectl.namespace)
    assert (tmp_path / "nodes.json").exists()


def test_deprecated_kinds_warn_whoever_asks_for_them(kubectl: Kubectl) -> None:
    endpoints = "Warning: v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
    assert endpoints in kubectl.run("get", "endpoints").stderr
    assert endpoints in kubectl.run("get", "endpoints", "none").stderr
    assert endpoints in kubectl.run("get", "endpoints", "-o", "json").stderr
    assert endpoints in kubectl.run("delete", "endpoints", "none").stderr
    assert "Warning" not in kubectl.run("get", "endpointslices").stderr


def test_component_statuses_tell_who_leads(kubectl: Kubectl) -> None:
    done = kubectl.run("get", "componentstatuses")
    assert "Warning: v1 ComponentStatus is deprecated in v1.19+" in done.stderr
    rows = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines()[1:]}
    # No scheduler and no controller-manager are running here.
    assert rows == {"controller-manager": "Unhealthy", "etcd-0": "Healthy", "scheduler": "Unhealthy"}
    assert "nobody leads" in kubectl("get", "cs", "scheduler", "-o", "yaml")
    assert "NotFound" in kubectl.run("get", "cs", "none").stderr


def test_a_scale_has_a_table_of_its_own(kubectl: Kubectl, manifest: Path) -> None:
    kubectl("apply", "-f", str(manifest))
    header, row = kubectl("get", "deployment", "web", "--subresource=scale").splitlines()
    assert header.split() == ["NAME", "DESIRED", "AVAILABLE", "AGE"]
    assert row.split()[:3] == ["web", "3", "0"]
