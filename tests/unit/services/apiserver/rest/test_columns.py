"""What kubectl prints: columns, words and ages are upstream's."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from services.apiserver.registry import builtin
from services.apiserver.rest.columns import columns_of, formats
from services.apiserver.rest.columns.custom import _build

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "now", lambda: NOW)


def row(resource: str, obj: dict[str, Any]) -> dict[str, Any]:
    columns = columns_of(resource)
    assert columns is not None
    obj.setdefault("metadata", {}).setdefault("name", "x")
    cells = columns.cells(obj)
    assert len(cells) == len(columns.definitions)
    return {definition["name"]: cell for definition, cell in zip(columns.definitions, cells, strict=True)}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"), (0, "0s"), (119, "119s"), (120, "2m"), (125, "2m5s"), (600, "10m"), (10799, "179m"),
        (3 * 3600, "3h"), (3 * 3600 + 300, "3h5m"), (8 * 3600, "8h"), (47 * 3600, "47h"), (48 * 3600, "2d"),
        (50 * 3600, "2d2h"), (8 * 86400, "8d"), (729 * 86400, "729d"), (730 * 86400, "2y"), (800 * 86400, "2y70d"),
        (3000 * 86400, "8y"),
    ],
)  # fmt: skip
def test_durations(seconds: int, text: str) -> None:
    assert formats.human_duration(seconds) == text


def pod(**status: Any) -> dict[str, Any]:
    spec = status.pop("spec", {"containers": [{"name": "a"}, {"name": "b"}]})
    return {"metadata": {"name": "x"}, "spec": spec, "status": {"phase": "Running", **status}}


RUNNING = {"ready": True, "restartCount": 0, "state": {"running": {}}}
CRASHED = {
    "name": "b", "ready": False, "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
    "lastState": {"terminated": {"finishedAt": "2026-01-01T23:57:00Z", "exitCode": 1}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("obj", "ready", "status", "restarts"),
    [
        (pod(containerStatuses=[RUNNING, RUNNING]), "2/2", "Running", "0"),
        (pod(containerStatuses=[RUNNING, CRASHED]), "1/2", "CrashLoopBackOff", "4 (3m ago)"),
        (pod(phase="Pending"), "0/2", "Pending", "0"),
        (pod(phase="Failed", reason="Evicted"), "0/2", "Evicted", "0"),
        (pod(containerStatuses=[{"state": {"terminated": {"exitCode": 3}}}]), "0/2", "ExitCode:3", "0"),
        (pod(containerStatuses=[{"state": {"terminated": {"signal": 9}}}]), "0/2", "Signal:9", "0"),
        (
            pod(
                phase="Succeeded",
                containerStatuses=[{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}] * 2,
            ),
            "0/2", "Completed", "0",
        ),
        (
            pod(
                phase="Pending",
                spec={"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]},
                initContainerStatuses=[
                    {"name": "i", "state": {"terminated": {"exitCode": 0}}},
                    {"name": "j", "state": {"running": {}}},
                ],
            ),
            "0/1", "Init:1/2", "0",
        ),
        (
            pod(
                phase="Pending",
                spec={"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]},
                initContainerStatuses=[{"name": "i", "restartCount": 2, "state": {"terminated": {"exitCode": 1}}}],
            ),
            "0/1", "Init:ExitCode:1", "2",
        ),
        (
            pod(
                spec={
                    "initContainers": [{"name": "side", "restartPolicy": "Always"}],
                    "containers": [{"name": "a"}],
                },
                initContainerStatuses=[{"name": "side", "started": True, "ready": True, "state": {"running": {}}}],
                containerStatuses=[RUNNING],
            ),
            "2/2", "Running", "0",
        ),
        (
            pod(phase="Pending", conditions=[{"type": "PodScheduled", "reason": "SchedulingGated"}]),
            "0/2", "SchedulingGated", "0",
        ),
    ],
)  # fmt: skip
def test_pods(obj: dict[str, Any], ready: str, status: str, restarts: str) -> None:
    got = row("pods", obj)
    assert (got["Ready"], got["Status"], got["Restarts"]) == (ready, status, restarts)


def test_a_pod_that_is_being_deleted() -> None:
    obj = pod(containerStatuses=[RUNNING, RUNNING])
    obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert row("pods", obj)["Status"] == "Terminating"


def test_deployments() -> None:
    obj = {
        "metadata": {"creationTimestamp": "2026-01-01T23:59:00Z"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"b": "2", "a": "1"}},
            "template": {"spec": {"containers": [{"name": "c", "image": "i:1"}]}},
        },
        "status": {"readyReplicas": 2, "updatedReplicas": 3},
    }
    assert row("deployments.apps", obj) == {
        "Name": "x", "Ready": "2/3", "Up-to-date": 3, "Available": 0, "Age": "60s", "Containers": "c", "Images": "i:1",
        "Selector": "a=1,b=2",
    }  # fmt: skip


def test_services() -> None:
    spec = {"type": "NodePort", "clusterIP": "10.0.0.1", "ports": [{"port": 80, "nodePort": 30000, "protocol": "TCP"}]}
    got = row("services", {"spec": spec})
    assert (got["Cluster-IP"], got["External-IP"], got["Port(s)"]) == ("10.0.0.1", "<none>", "80:30000/TCP")
    assert row("services", {"spec": {"type": "LoadBalancer"}})["External-IP"] == "<pending>"
    assert row("services", {"spec": {"type": "ExternalName", "externalName": "a.b"}})["External-IP"] == "a.b"


def test_nodes() -> None:
    obj = {
        "metadata": {"name": "n1", "labels": {"node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": True},
        "status": {"conditions": [{"type": "Ready", "status": "False"}], "nodeInfo": {"kubeletVersion": "v1.37.1"}},
    }
    got = row("nodes", obj)
    assert (got["Status"], got["Roles"], got["Version"]) == ("NotReady,SchedulingDisabled", "control-plane", "v1.37.1")


def test_every_kind_survives_an_empty_object() -> None:
    for resource in builtin.rows():
        if columns_of(resource.kind.resource) is not None:
            row(resource.kind.resource, {"metadata": {"name": "x"}})


def test_custom_columns_follow_json_paths() -> None:
    columns = _build(
        [
            {"name": "Spec", "type": "string", "jsonPath": ".spec.cron\\.spec"},
            {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
            {"name": "First", "type": "string", "jsonPath": ".spec.items[0].name"},
            {"name": "All", "type": "string", "jsonPath": ".spec.items[*].name"},
            {"name": "N", "type": "integer", "jsonPath": ".spec.n"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            {"name": "Gone", "type": "string", "jsonPath": ".nowhere"},
        ]
    )
    obj = {
        "metadata": {"name": "x", "creationTimestamp": "2026-01-01T23:59:00Z"},
        "spec": {"cron.spec": "* *", "n": 3, "items": [{"name": "p"}, {"name": "q"}]},
        "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]},
    }
    assert columns.cells(obj) == ["x", "* *", "True", "p", "p,q", 3, "60s", None]


@pytest.mark.parametrize(
    ("resource", "obj", "shown"),
    [
        ("nodes", {"status": {"nodeInfo": {"kernelVersion": "6.1", "architecture": "arm64"}}},
         {"Kernel-Version": "6.1 (arm64)"}),
        ("csistoragecapacities.storage.k8s.io", {"storageClassName": "fast", "capacity": "1Gi"},
         {"StorageClassName": "fast", "Capacity": "1Gi"}),
        ("csistoragecapacities.storage.k8s.io", {"storageClassName": "fast"}, {"Capacity": "<unset>"}),
        ("csidrivers.storage.k8s.io", {"spec": {"tokenRequests": []}}, {"TokenRequests": ""}),
        ("jobs.batch", {"spec": {"suspend": True}}, {"Status": "Running"}),
        ("jobs.batch", {"status": {"conditions": [{"type": "Suspended", "status": "True"}]}}, {"Status": "Suspended"}),
        ("networkpolicies.networking.k8s.io",
         {"spec": {"podSelector": {
             "matchLabels": {"b": "1"}, "matchExpressions": [{"key": "a", "operator": "Exists"}]}}},
         {"Pod-Selector": "a,b=1"}),
        ("ingresses.networking.k8s.io",
         {"status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.2"}, {"ip": "10.0.0.1"}]}}},
         {"Address": "10.0.0.1,10.0.0.2", "Class": "<none>"}),
        ("ipaddresses.networking.k8s.io",
         {"spec": {"parentRef": {"resource": "services", "namespace": "n", "name": "s"}}},
         {"ParentRef": "services/n/s"}),
        ("validatingadmissionpolicybindings.admissionregistration.k8s.io",
         {"spec": {"paramRef": {"selector": {"matchLabels": {"a": "b"}}}}},
         {"ParamRef": "&LabelSelector{MatchLabels:map[string]string{a: b,},"
                      "MatchExpressions:[]LabelSelectorRequirement{},}"}),
        ("validatingadmissionpolicybindings.admissionregistration.k8s.io",
         {"spec": {"paramRef": {"name": "p"}}}, {"ParamRef": "*/p"}),
        ("devicetaintrules.resource.k8s.io",
         {"spec": {"taint": {"key": "bad", "effect": "NoExecute", "timeAdded": "2026-01-01T23:00:00Z"}}},
         {"Key": "bad", "Value": "", "Effect": "NoExecute", "TimeAdded": "60m"}),
        ("resourceclaims.resource.k8s.io", {"status": {"reservedFor": [{}]}}, {"State": "pending"}),
        ("events", {"involvedObject": {"kind": "Pod"}, "reportingComponent": "kubelet", "reportingInstance": "n1",
                    "firstTimestamp": "2026-01-01T23:00:00Z", "series": {"count": 4}},
         {"Object": "pod", "Source": "kubelet, n1", "Count": 4, "First Seen": "60m", "Last Seen": "<unknown>"}),
        ("endpoints", {"subsets": [{"addresses": [{"ip": "fd00::1"}]}]}, {"Endpoints": "fd00::1"}),
    ],
)  # fmt: skip
def test_cells_are_upstreams(resource: str, obj: dict[str, Any], shown: dict[str, Any]) -> None:
    cells = row(resource, obj)
    assert {name: cells[name] for name in shown} == shown


def test_service_accounts_show_no_secrets() -> None:
    assert list(row("serviceaccounts", {"secrets": [{"name": "s"}]})) == ["Name", "Age"]
