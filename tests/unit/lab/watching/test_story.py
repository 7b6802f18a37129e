"""The chain from `kubectl apply` to the rule: each write linked to the one that caused it."""

from __future__ import annotations

from typing import Any

from lab.watching.story import Name, Step, Story, Write
from lab.watching.terminal import Lines

ADMIN, MANAGER = "kubernetes-admin", "system:kube-controller-manager"
SCHEDULER, KUBELET = "system:kube-scheduler", "system:node:node1"


class Log:
    """Writes in the order of revisions."""

    def __init__(self) -> None:
        self.story = Story()
        self.revision = 0

    def write(self, user: str, kind: str, name: str, new: dict[str, Any] | None, resource: str = "") -> Step | None:
        self.revision += 1
        about = Name(kind, "default", name)
        resource = resource or kind.lower() + "s"
        return self.story.told(Write(resource, self.revision, float(self.revision), user, about, new))


def made(kind: str, name: str, owner: tuple[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": "default", "generation": 1, **fields.pop("metadata", {})}
    if owner:
        metadata["ownerReferences"] = [{"kind": owner[0], "name": owner[1], "controller": True}]
    return {"kind": kind, "metadata": metadata, **fields}


def pod(name: str = "web-1-x", *, node: str = "", ready: bool = False, ends: bool = False) -> dict[str, Any]:
    status: dict[str, Any] = {"phase": "Running" if ready else "Pending"}
    status["conditions"] = [{"type": "Ready", "status": "True" if ready else "False"}]
    if ready:
        status |= {"podIP": "10.1.0.2"}
        status["containerStatuses"] = [{"name": "web", "restartCount": 0, "state": {"running": {}}}]
    more: dict[str, Any] = {"metadata": {"deletionTimestamp": "now", "deletionGracePeriodSeconds": 30}} if ends else {}
    return made("Pod", name, ("ReplicaSet", "web-1"), spec={"nodeName": node} if node else {}, status=status, **more)


def piece(*ready: str) -> dict[str, Any]:
    ends = [
        {"addresses": [f"10.1.0.{number + 2}"], "conditions": {"ready": True},
         "targetRef": {"kind": "Pod", "namespace": "default", "name": name}}
        for number, name in enumerate(ready)
    ]  # fmt: skip
    labels = {"kubernetes.io/service-name": "web"}
    return made("EndpointSlice", "web-a", ("Service", "web"), endpoints=ends, metadata={"labels": labels})


def told_from_apply_to_rule() -> tuple[Log, list[Step]]:
    log = Log()
    managed = [{"manager": "kubectl-client-side-apply", "time": "1"}]
    spec = {"replicas": 1, "template": {}}
    service = made("Service", "web", spec={"clusterIP": "10.96.0.9", "ports": [{"port": 80}]})
    told = [
        log.write(ADMIN, "Service", "web", service | {"metadata": {**service["metadata"], "managedFields": managed}}),
        log.write(ADMIN, "Deployment", "web",
                  made("Deployment", "web", spec=spec, metadata={"managedFields": managed})),
        log.write(MANAGER, "EndpointSlice", "web-a", piece()),
        log.write(MANAGER, "ReplicaSet", "web-1", made("ReplicaSet", "web-1", ("Deployment", "web"), spec=spec)),
        log.write(MANAGER, "Pod", "web-1-x", pod()),
        log.write(SCHEDULER, "Pod", "web-1-x", pod(node="node1")),
        log.write(KUBELET, "Pod", "web-1-x", pod(node="node1", ready=True)),
        log.write(MANAGER, "EndpointSlice", "web-a", piece("web-1-x")),
    ]  # fmt: skip
    rules = log.story.rules(
        "node1", 9.0, log.revision, {("default", "web"): "10.96.0.9:80 → 10.1.0.2:80"}, ["add rule"]
    )
    steps = [step for step in (*told, *rules) if step is not None]
    assert len(steps) == 9
    return log, steps


def test_every_step_from_apply_to_the_rule_names_its_cause() -> None:
    _, steps = told_from_apply_to_rule()
    service, deployment, empty, replicas, created, bound, ready, endpoint, rule = steps
    assert (service.because, deployment.because) == (0, 0)
    assert empty.because == service.number
    because = [(step.because, step.root) for step in (replicas, created, bound, ready, endpoint, rule)]
    before = [deployment, replicas, created, bound, ready, endpoint]
    assert because == [(cause.number, deployment.number) for cause in before]


def test_who_did_it_and_what_is_said() -> None:
    _, steps = told_from_apply_to_rule()
    said = [(step.component, step.node, step.subject, step.says) for step in steps]
    assert said == [
        ("kubectl", "", "service/web", "created: ClusterIP 10.96.0.9, port 80"),
        ("kubectl", "", "deployment/web", "created: 1 wanted"),
        ("controller-manager", "", "endpointslice/web-a", "created"),
        ("controller-manager", "", "replicaset/web-1", "created: 1 wanted"),
        ("controller-manager", "", "pod/web-1-x", "created"),
        ("scheduler", "", "pod/web-1-x", "bound to node1"),
        ("kubelet", "node1", "pod/web-1-x", "Pending → Running; address 10.1.0.2; container web runs; Ready"),
        ("controller-manager", "", "endpointslice/web-a", "+ 10.1.0.2 (web-1-x)"),
        ("kube-proxy", "node1", "rules/web on node1", "10.96.0.9:80 → 10.1.0.2:80"),
    ]
    assert steps[-1].commands == ("add rule",)


def test_a_replacement_is_because_of_the_pod_that_went() -> None:
    log, _ = told_from_apply_to_rule()
    ends = log.write(ADMIN, "Pod", "web-1-x", pod(node="node1", ready=True, ends=True))
    fresh = log.write(MANAGER, "Pod", "web-1-y", pod("web-1-y"))
    another = log.write(MANAGER, "Pod", "web-1-z", pod("web-1-z"))
    assert ends is not None
    assert fresh is not None
    assert another is not None
    assert (ends.because, ends.says) == (0, "is to end within 30 s")
    # Both are made by one look at the pod that went, not one by the other.
    assert (fresh.because, another.because) == (ends.number, ends.number)


def test_a_status_is_because_of_what_the_object_is_made_of() -> None:
    log, steps = told_from_apply_to_rule()
    ready = steps[6]
    spec = {"replicas": 1, "template": {}}
    status = {"readyReplicas": 1, "observedGeneration": 1}
    step = log.write(
        MANAGER, "ReplicaSet", "web-1", made("ReplicaSet", "web-1", ("Deployment", "web"), spec=spec, status=status)
    )
    assert step is not None
    assert (step.because, step.says) == (ready.number, "0 → 1 ready")


def test_what_idles_is_not_told() -> None:
    log = Log()
    assert log.write("system:node:node1", "Lease", "node1", made("Lease", "node1"), "leases") is None
    conditions = [{"type": "Ready", "status": "True", "lastHeartbeatTime": "1"}]
    log.write("system:node:node1", "Node", "node1", made("Node", "node1", status={"conditions": conditions}))
    later = [{**conditions[0], "lastHeartbeatTime": "2"}]
    assert log.write("system:node:node1", "Node", "node1", made("Node", "node1", status={"conditions": later})) is None
    lost = [{"type": "Ready", "status": "Unknown"}]
    step = log.write(MANAGER, "Node", "node1", made("Node", "node1", status={"conditions": lost}))
    assert step is not None
    assert step.says == "not Ready any more (Unknown)"


def test_an_event_is_told_of_its_object_by_who_reported_it() -> None:
    log, steps = told_from_apply_to_rule()
    event = made(
        "Event", "e", reason="Pulled", message="there", source={"component": "kubelet", "host": "node1"},
        involvedObject={"kind": "Pod", "namespace": "default", "name": "web-1-x"},
    )  # fmt: skip
    step = log.write(KUBELET, "Event", "e", event)
    assert step is not None
    assert (step.component, step.node, step.subject, step.says) == ("kubelet", "node1", "pod/web-1-x", "Pulled: there")
    assert step.because == steps[6].number


def test_lines_of_one_deployment_hold_its_service_only_from_where_they_meet() -> None:
    log, steps = told_from_apply_to_rule()
    lines = Lines(log.story.family(Name("Deployment", "default", "web")))
    told = [step for step in steps if lines.line(step)]
    assert [step.subject for step in told] == [
        "deployment/web", "endpointslice/web-a", "replicaset/web-1", "pod/web-1-x", "pod/web-1-x", "pod/web-1-x",
        "endpointslice/web-a", "rules/web on node1",
    ]  # fmt: skip
    other = Lines(log.story.family(Name("Deployment", "default", "other")))
    assert not [step for step in steps if other.line(step)]


def test_indentation_and_time_are_of_the_chain() -> None:
    _, steps = told_from_apply_to_rule()
    lines = Lines(None)
    told = [lines.line(step) or "" for step in steps]
    assert "  deployment/web" in told[1]
    assert "+4000 ms" in told[5]
    assert told[5].index("pod/") > told[3].index("replicaset/") > told[1].index("deployment/")
