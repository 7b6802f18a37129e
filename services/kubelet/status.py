"""The PodStatus that follows from what the runtime has: a pure function, in the shapes and words that clients know
from upstream.

The result is a plain dict in canonical JSON form. `previous` is the status last reported: transition times, the start
time, states of containers that the runtime has forgotten and conditions that others own are taken from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from lightkube.models import core_v1

from services.kubelet import pod_spec, qos
from services.kubelet.pod_plan import ProbeView, Waiting, restarting_all
from services.kubelet.resize import Pending, resources_of
from services.kubelet.runtime_state import ContainerRecord, PodRuntime, State

Json = dict[str, Any]

OWNED_CONDITIONS = (
    "PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled", "PodResizePending",
    "PodResizeInProgress", "AllContainersRestarting",
)  # fmt: skip
CONTAINER_STATUSES = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
_UNKNOWN_MESSAGE = "The container could not be located when the pod was terminated"


@dataclass(frozen=True, slots=True)
class Verdict:
    """An end that the kubelet itself decided: eviction, an exceeded deadline, a refused admission."""

    reason: str
    message: str
    # A condition to add, as upstream's DisruptionTarget.
    condition: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that a status depends on."""

    pod: core_v1.Pod
    runtime: PodRuntime
    now: float
    previous: Json
    probes: ProbeView = field(default_factory=ProbeView)
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    host_ips: tuple[str, ...] = ()
    verdict: Verdict | None = None
    # What each running container was given, by name; what is not listed has what its spec says.
    applied: Mapping[str, Json] = field(default_factory=dict)
    # What the pod as a whole was given; None while that is what its spec says.
    applied_pod: Json | None = None
    resize: Pending | None = None
    # Whether the runtime makes read-only mounts recursively so.
    recursive_read_only: bool = False
    # The last run of each container that was removed for the pod to begin anew, by name.
    removed: Mapping[str, ContainerRecord] = field(default_factory=dict)
    # Containers will not run again: the worker has ended them all.
    terminated: bool = False


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def unseen_end(status: Mapping[str, Any], runtime: PodRuntime) -> bool:
    """Whether a container has ended that the status still shows as running."""
    for group in CONTAINER_STATUSES:
        for entry in status.get(group) or ():
            latest = runtime.latest(entry["name"]) if "running" in (entry.get("state") or {}) else None
            if latest is not None and latest.state is State.EXITED:
                return True
    return False


def not_yet_over(status: Json, before: Json) -> Json:
    """The same of a pod of which something may still run: it is not called over before that is certain."""
    if status.get("phase") not in ("Succeeded", "Failed"):
        return status
    told = ("phase", "reason", "message")
    return {key: value for key, value in status.items() if key not in told} | {
        key: before[key] for key in told if key in before
    }


def compute_status(observed: Observed) -> Json:
    """The whole status of the pod."""
    pod = observed.pod
    status: Json = {"observedGeneration": pod.metadata.generation} if pod.metadata.generation else {}
    status["qosClass"] = observed.previous.get("qosClass") or qos.qos_class(pod)
    shown = qos.pod_resources_shown(pod) if observed.applied_pod is None else observed.applied_pod
    if shown:
        status["resources"] = shown
    if shown.get("requests"):
        status["allocatedResources"] = shown["requests"]
    status["startTime"] = observed.previous.get("startTime") or rfc3339(observed.now)
    if observed.host_ips:
        status["hostIP"] = observed.host_ips[0]
        status["hostIPs"] = [{"ip": ip} for ip in observed.host_ips]
    ips = _pod_ips(observed)
    if ips:
        status["podIP"] = ips[0]
        status["podIPs"] = [{"ip": ip} for ip in ips]

    initialized = _has_initialized(observed)
    status["initContainerStatuses"] = [
        _container_status(observed, c, "PodInitializing") for c in pod_spec.init_containers(pod)
    ]
    default = "ContainerCreating" if initialized or not pod_spec.init_containers(pod) else "PodInitializing"
    status["containerStatuses"] = [_container_status(observed, c, default) for c in pod.spec.containers]
    status["ephemeralContainerStatuses"] = [
        _container_status(observed, c, "ContainerCreating") for c in pod_spec.ephemeral_containers(pod)
    ]
    for name in ("initContainerStatuses", "ephemeralContainerStatuses"):
        if not status[name]:
            del status[name]

    status["phase"] = _phase(observed, status)
    if observed.verdict:
        status["phase"] = "Failed"
        status["reason"] = observed.verdict.reason
        status["message"] = observed.verdict.message
    elif status["phase"] == "Failed" and observed.previous.get("reason"):
        status["reason"] = observed.previous["reason"]
        if observed.previous.get("message"):
            status["message"] = observed.previous["message"]
    if status["phase"] in ("Succeeded", "Failed"):
        _settle(status)
    status["conditions"] = _conditions(observed, status)
    return status


def _pod_ips(observed: Observed) -> tuple[str, ...]:
    if observed.pod.spec.hostNetwork:
        return observed.host_ips if observed.runtime.sandboxes else ()
    ips = observed.runtime.ips
    if ips or not observed.runtime.observed:
        return ips
    # A pod that has ended keeps its last address on show.
    return tuple(entry["ip"] for entry in observed.previous.get("podIPs") or ())


def _has_initialized(observed: Observed) -> bool:
    sandbox = observed.runtime.sandboxes[0].id if observed.runtime.sandboxes else None
    if any(observed.runtime.latest(c.name, sandbox) for c in observed.pod.spec.containers):
        return True
    for container in pod_spec.init_containers(observed.pod):
        latest = observed.runtime.latest(container.name, sandbox)
        if latest is None:
            return False
        if pod_spec.is_sidecar(container):
            if not observed.probes.started(container, latest):
                return False
        elif latest.state is not State.EXITED or latest.exit_code != 0:
            return False
    return True


# --- one container -------------------------------------------------------------------------------------------------


def _previous_status(observed: Observed, name: str) -> Json | None:
    for group in CONTAINER_STATUSES:
        for entry in observed.previous.get(group) or ():
            if entry["name"] == name:
                return entry
    return None


def _container_status(observed: Observed, container: pod_spec.AnyContainer, default_reason: str) -> Json:
    runs = observed.runtime.runs_of(container.name)
    previous = _previous_status(observed, container.name)
    if not runs:
        return _status_without_runs(observed, container, previous, default_reason)
    latest = runs[0]
    status: Json = {
        "name": container.name,
        "state": _state(latest),
        "lastState": {},
        "ready": False,
        "restartCount": latest.restart_count,
        "image": latest.image or container.image or "",
        "imageID": latest.image_ref,
        "containerID": f"containerd://{latest.id}",
        "started": observed.probes.started(container, latest),
    }
    before = next((r for r in runs[1:] if r.state is State.EXITED), observed.removed.get(container.name))
    if before is not None:
        status["lastState"] = _state(before)
    elif previous and latest.restart_count > 0 and (previous.get("lastState") or {}).get("terminated"):
        status["lastState"] = previous["lastState"]
    waiting = observed.waiting.get(container.name)
    if waiting is not None and latest.state is not State.RUNNING and not observed.terminated:
        if latest.state is State.EXITED:
            status["lastState"] = status["state"]
        status["state"] = _waiting(waiting)
    status["ready"] = _is_ready(observed, container, latest)
    _add_resources(observed, container, status)
    _add_mounts(observed, container, status)
    if latest.user is not None:
        uid, gid, groups = latest.user
        status["user"] = {"linux": {"uid": uid, "gid": gid, "supplementalGroups": list(groups)}}
    return status


def _is_ready(observed: Observed, container: pod_spec.AnyContainer, latest: ContainerRecord) -> bool:
    pod = observed.pod
    ordinary_init = container in pod_spec.init_containers(pod) and not pod_spec.is_sidecar(container)
    if ordinary_init:
        return latest.state is State.EXITED and latest.exit_code == 0
    if container in pod_spec.ephemeral_containers(pod):
        return False
    return observed.probes.ready(container, latest)


def _status_without_runs(
    observed: Observed, container: pod_spec.AnyContainer, previous: Json | None, default_reason: str
) -> Json:
    """The runtime has nothing of this container: not started yet, or long gone."""
    status: Json = {
        "name": container.name,
        "state": {"waiting": {"reason": default_reason}},
        "lastState": {},
        "ready": False,
        "restartCount": 0,
        "image": container.image or "",
        "imageID": "",
        "started": False,
    }
    if previous and previous.get("containerID"):
        status.update({k: previous[k] for k in ("restartCount", "imageID", "containerID", "image") if k in previous})
        status["lastState"] = previous.get("lastState") or {}
        state = previous.get("state") or {}
        if state.get("terminated"):
            status["state"] = state
        elif state.get("running"):
            lost = {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": _UNKNOWN_MESSAGE}
            lost |= {"startedAt": None, "finishedAt": None}
            status["state" if observed.terminated else "lastState"] = {"terminated": lost}
        ordinary_init = container in pod_spec.init_containers(observed.pod) and not pod_spec.is_sidecar(container)
        status["ready"] = bool(ordinary_init and previous.get("ready"))
    removed = observed.removed.get(container.name)
    if removed is not None and not observed.terminated:
        status["state"] = {"waiting": {"reason": "RestartingAllContainers"}}
        status["lastState"] = _state(removed)
        status["restartCount"] = removed.restart_count
    waiting = observed.waiting.get(container.name)
    if waiting is not None and "waiting" in status["state"]:
        status["state"] = _waiting(waiting)
    _add_mounts(observed, container, status)
    return status


def _waiting(waiting: Waiting) -> Json:
    body = {"reason": waiting.reason}
    if waiting.message:
        body["message"] = waiting.message
    return {"waiting": body}


def _state(record: ContainerRecord) -> Json:
    if record.state is State.RUNNING:
        return {"running": {"startedAt": rfc3339(record.started_at / 1e9)}}
    if record.state is State.CREATED:
        return {"waiting": {"reason": "ContainerCreating"}}
    if record.state is State.UNKNOWN:
        return {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": _UNKNOWN_MESSAGE}}
    body: Json = {
        "exitCode": record.exit_code,
        "reason": record.reason or ("Completed" if record.exit_code == 0 else "Error"),
        "containerID": f"containerd://{record.id}",
    }
    body["startedAt"] = rfc3339(record.started_at / 1e9) if record.started_at > 0 else None
    body["finishedAt"] = rfc3339(record.finished_at / 1e9) if record.finished_at > 0 else None
    if record.message:
        body["message"] = record.message
    return {"terminated": body}


def _add_resources(observed: Observed, container: pod_spec.AnyContainer, status: Json) -> None:
    """What the container has been given."""
    resources = observed.applied.get(container.name)
    resources = resources_of(container) if resources is None else resources
    status["resources"] = dict(resources)
    if resources.get("requests"):
        status["allocatedResources"] = dict(resources["requests"])


def _add_mounts(observed: Observed, container: pod_spec.AnyContainer, status: Json) -> None:
    supported = observed.recursive_read_only
    mounts = []
    for mount in container.volumeMounts or ():
        entry: Json = {"name": mount.name, "mountPath": mount.mountPath}
        if mount.readOnly:
            recursive = supported and pod_spec.recursive_read_only(mount, supported=supported)
            entry |= {"readOnly": True, "recursiveReadOnly": "Enabled" if recursive else "Disabled"}
        mounts.append(entry)
    if mounts:
        status["volumeMounts"] = mounts


# --- phase and conditions ------------------------------------------------------------------------------------------


def _phase(observed: Observed, status: Json) -> str:
    """Upstream's getPhase: where a pod is in its life, by what its containers show."""
    pod = observed.pod
    already = observed.previous.get("phase")
    if already in ("Succeeded", "Failed"):
        return already
    policy = pod_spec.restart_policy(pod)
    pending_init = failed_init = 0
    by_name = {entry["name"]: entry for entry in status.get("initContainerStatuses", ())}
    for container in pod_spec.init_containers(pod):
        entry = by_name[container.name]
        ended = entry["state"].get("terminated") or (
            entry["lastState"].get("terminated") if "waiting" in entry["state"] else None
        )
        if pod_spec.is_sidecar(container):
            pending_init += not entry["started"] and not ended
        elif ended is None:
            pending_init += 1
        elif ended["exitCode"] != 0:
            failed_init += 1
            restart = policy == "Always" or pod_spec.should_restart(pod, container, ended["exitCode"])
            restart = restart or _comes_back(observed, entry)
            if not restart:
                return "Failed"
    running = waiting = stopped = succeeded = 0
    restartable_left = False
    for container, entry in zip(pod.spec.containers, status["containerStatuses"], strict=True):
        ended = entry["state"].get("terminated")
        if "running" in entry["state"]:
            running += 1
        elif ended is None and entry["lastState"].get("terminated") is None:
            waiting += 1
        else:
            ended = ended or entry["lastState"]["terminated"]
            stopped += 1
            succeeded += ended["exitCode"] == 0
            restartable_left = (
                restartable_left
                or pod_spec.should_restart(pod, container, ended["exitCode"])
                or _comes_back(observed, entry)
            )
    over = observed.terminated
    if (pending_init or failed_init) and not over and not running:
        return "Pending"
    if waiting and not over:
        return "Pending"
    if running:
        return "Running"
    if over:
        return "Succeeded" if stopped and stopped == succeeded and not waiting and not failed_init else "Failed"
    if restartable_left:
        return "Running"
    return "Succeeded" if stopped == succeeded else "Failed"


def _comes_back(observed: Observed, entry: Json) -> bool:
    """Whether a container that ended runs again because all of the pod's do."""
    removed = "waiting" in entry["state"] and entry["name"] in observed.removed
    return not observed.terminated and (removed or restarting_all(observed.pod, observed.runtime))


def _settle(status: Json) -> None:
    """In a pod that is over no container waits: each shows how it ended."""
    for group in CONTAINER_STATUSES:
        for entry in status.get(group, ()):
            if group != "initContainerStatuses":
                entry["ready"] = False
            last = entry["lastState"].get("terminated")
            if "waiting" in entry["state"] and last:
                entry["state"], entry["lastState"] = {"terminated": last}, {}


def _conditions(observed: Observed, status: Json) -> list[Json]:
    pod = observed.pod
    sandbox = observed.runtime.ready_sandbox
    ready_to_start = sandbox is not None and (bool(sandbox.ips) or bool(pod.spec.hostNetwork))
    containers_ready = _containers_ready(observed, status)
    fresh = [
        {"type": "PodReadyToStartContainers", "status": "True" if ready_to_start else "False"},
        _initialized(observed, status),
        _ready(observed, containers_ready),
        {**containers_ready, "type": "ContainersReady"},
        {"type": "PodScheduled", "status": "True"},
    ]
    if pod_spec.can_restart_all(pod):
        fresh.append(_all_restarting(observed))
    if observed.resize:
        pending = {"reason": observed.resize.reason, "message": observed.resize.message}
        fresh.append({"type": observed.resize.condition, "status": "True", **pending})
    if observed.verdict and observed.verdict.condition:
        fresh.append(dict(observed.verdict.condition))
    old = {entry["type"]: entry for entry in observed.previous.get("conditions") or ()}
    out = []
    for condition in fresh:
        before = old.pop(condition["type"], None)
        same = before is not None and before["status"] == condition["status"]
        changed_at = before.get("lastTransitionTime") if same and before else None
        condition["lastTransitionTime"] = changed_at or rfc3339(observed.now)
        condition["lastProbeTime"] = None
        if pod.metadata.generation:
            condition["observedGeneration"] = pod.metadata.generation
        out.append(condition)
    return [*(c for kind, c in old.items() if kind not in OWNED_CONDITIONS), *out]


def _all_restarting(observed: Observed) -> Json:
    condition = {"type": "AllContainersRestarting", "status": "False"}
    if observed.terminated or not restarting_all(observed.pod, observed.runtime):
        return condition
    message = "container exited with restart policy rule"
    return {**condition, "status": "True", "reason": "RestartAllContainersStarted", "message": message}


def _initialized(observed: Observed, status: Json) -> Json:
    condition = {"type": "Initialized", "status": "True"}
    if status["phase"] == "Succeeded":
        return {**condition, "reason": "PodCompleted"}
    if _has_initialized(observed) or not pod_spec.init_containers(observed.pod):
        return condition
    incomplete = []
    for container, entry in zip(pod_spec.init_containers(observed.pod), status["initContainerStatuses"], strict=True):
        done = entry["started"] if pod_spec.is_sidecar(container) else entry["ready"]
        if not done:
            incomplete.append(container.name)
    if not incomplete:
        return condition
    message = f"containers with incomplete status: [{' '.join(incomplete)}]"
    return {"type": "Initialized", "status": "False", "reason": "ContainersNotInitialized", "message": message}


def _containers_ready(observed: Observed, status: Json) -> Json:
    if status["phase"] in ("Succeeded", "Failed"):
        return {"status": "False", "reason": "PodCompleted" if status["phase"] == "Succeeded" else "PodFailed"}
    wanted = {c.name for c in pod_spec.sidecars(observed.pod)}
    unready = [e["name"] for e in status.get("initContainerStatuses", ()) if e["name"] in wanted and not e["ready"]]
    unready += [e["name"] for e in status["containerStatuses"] if not e["ready"]]
    if not unready:
        return {"status": "True"}
    message = f"containers with unready status: [{' '.join(unready)}]"
    return {"status": "False", "reason": "ContainersNotReady", "message": message}


def _ready(observed: Observed, containers_ready: Json) -> Json:
    if containers_ready["status"] != "True":
        return {**containers_ready, "type": "Ready"}
    given = {entry["type"]: entry["status"] for entry in observed.previous.get("conditions") or ()}
    messages = []
    for gate in observed.pod.spec.readinessGates or ():
        kind = gate.conditionType
        if kind not in given:
            messages.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif given[kind] != "True":
            messages.append(f'the status of pod readiness gate "{kind}" is not "True", but {given[kind]}')
    if messages:
        return {"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady", "message": ", ".join(messages)}
    return {"type": "Ready", "status": "True"}
