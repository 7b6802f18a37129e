"""Workloads: replication controllers, the apps group, batch, autoscaling, disruption budgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.apiserver.rest.columns.formats import (
    NONE,
    age,
    containers,
    created,
    human_duration,
    label_map,
    label_selector,
    now,
    or_none,
    parse_time,
    template_spec,
)
from services.apiserver.rest.columns.layout import Cells, Columns, Object


def _parts(obj: Object) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
    return obj["metadata"]["name"], obj.get("spec") or {}, obj.get("status") or {}


def _replicas(obj: Object) -> Cells:
    name, spec, status = _parts(obj)
    selector = spec.get("selector") or {}
    by_labels = label_map(selector) if obj.get("kind") == "ReplicationController" else label_selector(selector)
    return [
        name,
        spec.get("replicas", 1),
        status.get("replicas") or 0,
        status.get("readyReplicas") or 0,
        created(obj),
        *containers(template_spec(obj)),
        by_labels,
    ]


def _deployment(obj: Object) -> Cells:
    name, spec, status = _parts(obj)
    return [
        name,
        f"{status.get('readyReplicas') or 0}/{spec.get('replicas', 1)}",
        status.get("updatedReplicas") or 0,
        status.get("availableReplicas") or 0,
        created(obj),
        *containers(template_spec(obj)),
        label_selector(spec.get("selector")),
    ]


def _daemon_set(obj: Object) -> Cells:
    name, spec, status = _parts(obj)
    return [
        name,
        status.get("desiredNumberScheduled") or 0,
        status.get("currentNumberScheduled") or 0,
        status.get("numberReady") or 0,
        status.get("updatedNumberScheduled") or 0,
        status.get("numberAvailable") or 0,
        label_map(template_spec(obj).get("nodeSelector")),
        created(obj),
        *containers(template_spec(obj)),
        label_selector(spec.get("selector")),
    ]


def _stateful_set(obj: Object) -> Cells:
    name, spec, status = _parts(obj)
    ready = f"{status.get('readyReplicas') or 0}/{spec.get('replicas', 1)}"
    return [name, ready, created(obj), *containers(template_spec(obj))]


def _controller_revision(obj: Object) -> Cells:
    controller = NONE
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            group = owner["apiVersion"].rpartition("/")[0]
            kind = owner["kind"].lower() + (f".{group}" if group else "")
            controller = f"{kind}/{owner['name']}"
    return [obj["metadata"]["name"], controller, obj.get("revision", 0), created(obj)]


def _job_status(status: Mapping[str, Any], deleting: bool) -> str:
    true = {item["type"] for item in status.get("conditions") or () if item.get("status") == "True"}
    for condition, shown in (("Complete", "Complete"), ("Failed", "Failed")):
        if condition in true:
            return shown
    if deleting:
        return "Terminating"
    for condition in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if condition in true:
            return condition
    return "Running"


def _job(obj: Object) -> Cells:
    name, spec, status = _parts(obj)
    succeeded = status.get("succeeded") or 0
    parallelism = spec.get("parallelism") or 0
    if spec.get("completions") is not None:
        completions = f"{succeeded}/{spec['completions']}"
    else:
        completions = f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"
    start, end = parse_time(status.get("startTime") or ""), parse_time(status.get("completionTime") or "")
    duration = "" if start is None else human_duration(((end or now()) - start).total_seconds())
    deleting = bool(obj["metadata"].get("deletionTimestamp"))
    return [
        name,
        _job_status(status, deleting),
        completions,
        duration,
        created(obj),
        *containers(template_spec(obj)),
        label_selector(spec.get("selector")),
    ]


def _cron_job(obj: Object) -> Cells:
    name, spec, status = _parts(obj)
    last = status.get("lastScheduleTime")
    job_spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    return [
        name,
        spec.get("schedule", ""),
        or_none(spec.get("timeZone")),
        str(bool(spec.get("suspend"))),
        len(status.get("active") or ()),
        age(last) if last else NONE,
        created(obj),
        *containers((job_spec.get("template") or {}).get("spec") or {}),
        label_selector(job_spec.get("selector")),
    ]


def _target(metric: Mapping[str, Any], current: Mapping[str, Any] | None) -> str:
    """One metric of an autoscaler: `cpu: 12%/80%`."""
    kind = metric.get("type", "")
    field = kind[:1].lower() + kind[1:]
    wanted = metric.get(field) or {}
    have = ((current or {}).get(field) or {}).get("current") or {}
    target = wanted.get("target") or {}
    if kind in ("Resource", "ContainerResource"):
        label = f"{wanted.get('name', '')}: "
        if target.get("averageValue") is None:
            utilization = have.get("averageUtilization")
            shown = "<unknown>" if utilization is None else f"{utilization}%"
            goal = target.get("averageUtilization")
            return f"{label}{shown}/{'<auto>' if goal is None else f'{goal}%'}"
        return f"{label}{have.get('averageValue', '<unknown>')}/{target['averageValue']}"
    if target.get("averageValue") is not None:
        suffix = "" if kind == "Pods" else " (avg)"
        return f"{have.get('averageValue', '<unknown>')}/{target['averageValue']}{suffix}"
    return f"{have.get('value', '<unknown>')}/{target.get('value', '<unknown>')}"


def _autoscaler(obj: Object) -> Cells:
    name, spec, status = _parts(obj)
    ref = spec.get("scaleTargetRef") or {}
    if "metrics" in spec or "targetCPUUtilizationPercentage" not in spec:
        currents = status.get("currentMetrics") or ()
        metrics = spec.get("metrics") or ()
        texts = [_target(m, currents[i] if i < len(currents) else None) for i, m in enumerate(metrics)]
        targets = ", ".join(texts[:2]) + (f" + {len(texts) - 2} more..." if len(texts) > 2 else "") or NONE
    else:
        have = status.get("currentCPUUtilizationPercentage")
        shown = "<unknown>" if have is None else f"{have}%"
        targets = f"cpu: {shown}/{spec['targetCPUUtilizationPercentage']}%"
    return [
        name,
        f"{ref.get('kind', '')}/{ref.get('name', '')}",
        targets,
        "<unset>" if spec.get("minReplicas") is None else str(spec["minReplicas"]),
        spec.get("maxReplicas", 0),
        status.get("currentReplicas") or 0,
        created(obj),
    ]


def _disruption_budget(obj: Object) -> Cells:
    name, spec, status = _parts(obj)

    def shown(field: str) -> str:
        return "N/A" if spec.get(field) is None else str(spec[field])

    return [name, shown("minAvailable"), shown("maxUnavailable"), status.get("disruptionsAllowed") or 0, created(obj)]


def _pod_template(obj: Object) -> Cells:
    template = obj.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels")
    return [obj["metadata"]["name"], *containers(template.get("spec") or {}), label_map(labels)]


_REPLICAS = "Name, Desired:integer, Current:integer, Ready:integer, Age, Containers*, Images*, Selector*"
_HPA = "Name, Reference, Targets, MinPods, MaxPods, Replicas, Age"

TABLES = {
    "replicationcontrollers": Columns(_REPLICAS, _replicas),
    "podtemplates": Columns("Name, Containers, Images, Pod Labels", _pod_template),
    "replicasets.apps": Columns(_REPLICAS, _replicas),
    "deployments.apps": Columns(
        "Name, Ready, Up-to-date, Available, Age, Containers*, Images*, Selector*", _deployment
    ),
    "daemonsets.apps": Columns(
        "Name, Desired:integer, Current:integer, Ready:integer, Up-to-date:integer, Available:integer, Node Selector,"
        " Age, Containers*, Images*, Selector*",
        _daemon_set,
    ),
    "statefulsets.apps": Columns("Name, Ready, Age, Containers*, Images*", _stateful_set),
    "controllerrevisions.apps": Columns("Name, Controller, Revision, Age", _controller_revision),
    "jobs.batch": Columns("Name, Status, Completions, Duration, Age, Containers*, Images*, Selector*", _job),
    "cronjobs.batch": Columns(
        "Name, Schedule, Timezone, Suspend:boolean, Active:integer, Last Schedule, Age, Containers*, Images*,"
        " Selector*",
        _cron_job,
    ),
    "horizontalpodautoscalers.autoscaling": Columns(_HPA, _autoscaler),
    "poddisruptionbudgets.policy": Columns(
        "Name, Min Available, Max Unavailable, Allowed Disruptions:integer, Age", _disruption_budget
    ),
}
