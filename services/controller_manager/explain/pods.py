"""Why a pod does not run, or is not ready."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.controller_manager.explain.finding import Finding
from services.controller_manager.explain.snapshot import Object, Snapshot, condition, subject
from services.controller_manager.explain.volumes import explain_claim


def explain_pod(snapshot: Snapshot, pod: Object) -> tuple[Finding, ...]:
    """What keeps a pod from being Ready; empty if it is (or has done its work)."""
    phase = pod.get("status", {}).get("phase", "Pending")
    if "deletionTimestamp" in pod["metadata"]:
        return _terminating(pod)
    if phase == "Succeeded":
        return ()
    if not pod["spec"].get("nodeName"):
        return _unscheduled(snapshot, pod)
    node = _node_trouble(snapshot, pod)
    if node:
        return (Finding(subject("pod", pod), "is on a node that is not Ready", because=node),)
    causes = tuple(_container_troubles(pod)) or tuple(_mount_troubles(snapshot, pod))
    if causes:
        return (Finding(subject("pod", pod), f"is {phase} and not ready", because=causes),)
    if phase == "Failed":
        status = pod.get("status", {})
        why = status.get("message") or status.get("reason") or "a container ended with an error"
        return (
            Finding(
                subject("pod", pod), f"has failed: {why}", "its controller makes another one; `kubectl logs` tells more"
            ),
        )
    ready = condition(pod, "Ready")
    if phase == "Running" and ready is not None and ready.get("status") != "True":
        return (Finding(subject("pod", pod), "runs and is not ready", because=tuple(_readiness(snapshot, pod))),)
    if phase == "Pending":
        notes = snapshot.warnings(pod)[:1]
        return (Finding(subject("pod", pod), "is being started" + (f" ({notes[0]})" if notes else "")),)
    return ()


def _terminating(pod: Object) -> tuple[Finding, ...]:
    held = pod["metadata"].get("finalizers")
    if held:
        return (
            Finding(
                subject("pod", pod),
                f"is being deleted and held by {', '.join(held)}",
                "whoever set that finalizer must remove it",
            ),
        )
    return (Finding(subject("pod", pod), "is being deleted; its containers have their grace period to end"),)


def _unscheduled(snapshot: Snapshot, pod: Object) -> tuple[Finding, ...]:
    gates = [gate["name"] for gate in pod["spec"].get("schedulingGates") or []]
    if gates:
        remedy = "whoever set the gate removes it when the pod may run"
        return (Finding(subject("pod", pod), f"waits behind scheduling gate {', '.join(gates)}", remedy),)
    claims = tuple(_claim_troubles(snapshot, pod))
    if claims:
        return (Finding(subject("pod", pod), "is Pending for want of a volume", because=claims),)
    key = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    told = snapshot.scheduling.get(key)
    scheduled = condition(pod, "PodScheduled") or {}
    if told is None:
        why = scheduled.get("message") or "no scheduler has judged it"
        scheduler = pod["spec"].get("schedulerName", "default-scheduler")
        return (Finding(subject("pod", pod), f"has no node: {why}", f"is {scheduler} running? `cutaway status`"),)
    sentence, remedies = told
    return (Finding(subject("pod", pod), f"has no node: {sentence}", "; or ".join(remedies[:3])),)


def _node_trouble(snapshot: Snapshot, pod: Object) -> tuple[Finding, ...]:
    name = pod["spec"]["nodeName"]
    node = snapshot.get("Node", "", name)
    if node is None:
        return (Finding(f"node/{name}", "does not exist any more", "the pod is removed by the pod garbage collector"),)
    ready = condition(node, "Ready")
    if ready is not None and ready.get("status") == "True":
        return ()
    why = (ready or {}).get("message") or "it has not reported"
    return (Finding(f"node/{name}", f"is not Ready: {why}", f"`cutaway status` and `cutaway logs kubelet-{name}`"),)


# The reason of a waiting container -> what a person can do.
_REMEDIES = {
    "ImagePullBackOff": "check the image's name and tag, the registry, and imagePullSecrets; or `cutaway image load`",
    "ErrImagePull": "check the image's name and tag, the registry, and imagePullSecrets; or `cutaway image load`",
    "InvalidImageName": "mend the image's name",
    "ErrImageNeverPull": "load the image (`cutaway image load`) or change imagePullPolicy",
    "CreateContainerConfigError": "make the ConfigMap, Secret or key that it names, or mark it optional",
    "RunContainerError": "does the command exist in the image, and is it executable?",
    "CreateContainerError": "does the command exist in the image, and can its mounts be made?",
}


def _container_troubles(pod: Object) -> Iterator[Finding]:
    status = pod.get("status", {})
    for each in (*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])):
        waiting = (each.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason == "CrashLoopBackOff":
            yield _crash(each, pod)
        elif reason in _REMEDIES:
            yield Finding(
                f"container/{each['name']}", f"waits: {reason}: {waiting.get('message', '')}", _REMEDIES[reason]
            )


def _crash(status: Any, pod: Object) -> Finding:
    last = (status.get("lastState") or {}).get("terminated") or {}
    code, reason = last.get("exitCode"), last.get("reason", "Error")
    logs = f"`kubectl logs -n {pod['metadata']['namespace']} {pod['metadata']['name']} -c {status['name']} --previous`"
    remedy = f"{logs} shows its last words"
    if reason == "OOMKilled":
        remedy = "raise its memory limit, or have it use less"
    return Finding(
        f"container/{status['name']}",
        f"crashes again and again: {status.get('restartCount', 0)} restarts, last exit code {code} ({reason})",
        remedy,
    )


def _mount_troubles(snapshot: Snapshot, pod: Object) -> Iterator[Finding]:
    started = any(
        (each.get("state") or {}).get("running") for each in pod.get("status", {}).get("containerStatuses") or []
    )
    if started:
        return
    namespace = pod["metadata"]["namespace"]
    for volume in pod["spec"].get("volumes") or []:
        for source, kind, field in (("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")):
            wanted = volume.get(source)
            if wanted and not wanted.get("optional") and snapshot.get(kind, namespace, wanted.get(field, "")) is None:
                yield Finding(
                    f"volume/{volume['name']}",
                    f"needs {kind} {wanted.get(field)}, which does not exist",
                    f"create it in {namespace}",
                )
    yield from _claim_troubles(snapshot, pod)


def _claim_troubles(snapshot: Snapshot, pod: Object) -> Iterator[Finding]:
    namespace = pod["metadata"]["namespace"]
    for volume in pod["spec"].get("volumes") or []:
        name = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if not name:
            continue
        claim = snapshot.get("PersistentVolumeClaim", namespace, name)
        if claim is None:
            yield Finding(f"persistentvolumeclaim/{name}", "does not exist", f"create it in {namespace}")
        else:
            yield from explain_claim(snapshot, claim)


def _readiness(snapshot: Snapshot, pod: Object) -> Iterator[Finding]:
    specs = {c["name"]: c for c in pod["spec"]["containers"]}
    for each in pod.get("status", {}).get("containerStatuses") or []:
        if not each.get("ready"):
            probe = specs.get(each["name"], {}).get("readinessProbe")
            said = next((w for w in snapshot.warnings(pod) if "probe failed" in w), "")
            what = f"fails its readiness probe ({said})" if probe else "is not ready"
            yield Finding(f"container/{each['name']}", what, "the probe's answer, not the cluster, decides this")
    gates = [g["conditionType"] for g in pod["spec"].get("readinessGates") or []]
    for gate in gates:
        if (condition(pod, gate) or {}).get("status") != "True":
            yield Finding(f"readiness gate {gate}", "is not True", "some controller of yours sets it")
