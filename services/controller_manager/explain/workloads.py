"""Why a workload has not the pods that it should have."""

from __future__ import annotations

from services.controller_manager.explain.finding import Finding
from services.controller_manager.explain.limits import explain_refusal
from services.controller_manager.explain.pods import explain_pod
from services.controller_manager.explain.snapshot import Object, Snapshot, condition, subject

# More would say the same again.
PODS_SHOWN_MAX = 3


def explain_deployment(snapshot: Snapshot, deployment: Object) -> tuple[Finding, ...]:
    """What keeps a Deployment from being rolled out; empty if it is."""
    wanted = deployment["spec"].get("replicas", 1)
    status = deployment.get("status", {})
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    observed = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    if observed and updated == wanted and available == wanted == status.get("replicas", 0):
        return ()
    me = subject("deployment", deployment)
    if not observed:
        remedy = "is the controller-manager running? `cutaway status`"
        return (Finding(me, "has been changed and its controller has not seen that yet", remedy),)
    if deployment["spec"].get("paused"):
        return (Finding(me, "is paused", f"`kubectl rollout resume {me}`"),)
    causes: tuple[Finding, ...] = ()
    for replica_set in _newest_first(snapshot.owned_by("ReplicaSet", deployment)):
        causes += explain_replicas(snapshot, "ReplicaSet", replica_set)
    progress = condition(deployment, "Progressing") or {}
    late = " and its deadline has passed" if progress.get("reason") == "ProgressDeadlineExceeded" else ""
    problem = f"has {available} of {wanted} pods available, {updated} of the present template{late}"
    return (Finding(me, problem, "" if causes else "it goes on; look again in a moment", causes),)


def explain_replicas(snapshot: Snapshot, kind: str, owner: Object) -> tuple[Finding, ...]:
    """The same for what makes pods directly: ReplicaSet, StatefulSet, ReplicationController, DaemonSet, Job."""
    wanted = owner["spec"].get(
        "replicas", owner.get("status", {}).get("desiredNumberScheduled", owner["spec"].get("parallelism", 1))
    )
    pods = snapshot.owned_by("Pod", owner)
    failure = condition(owner, "ReplicaFailure")
    if failure is not None and failure.get("status") == "True":
        return (_creation(snapshot, kind, owner, failure.get("message", "")),)
    active = [pod for pod in pods if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")]
    if len(active) < wanted and kind != "Job":
        refused = [note for note in snapshot.warnings(owner) if note.startswith("FailedCreate")]
        if refused:
            return (_creation(snapshot, kind, owner, refused[0]),)
    findings = [finding for pod in pods for finding in explain_pod(snapshot, pod)]
    return tuple(findings[:PODS_SHOWN_MAX])


def explain_job(snapshot: Snapshot, job: Object) -> tuple[Finding, ...]:
    """Why a Job is not done and does not go on; empty if it is, or does."""
    me = subject("job", job)
    if (condition(job, "Complete") or {}).get("status") == "True":
        return ()
    if job["spec"].get("suspend"):
        return (Finding(me, "is suspended", f'`kubectl patch {me} -p \'{{"spec":{{"suspend":false}}}}\'`'),)
    causes = explain_replicas(snapshot, "Job", job)
    failed = condition(job, "Failed") or {}
    if failed.get("status") == "True":
        limits = {"BackoffLimitExceeded": "backoffLimit", "DeadlineExceeded": "activeDeadlineSeconds"}
        limit = limits.get(failed.get("reason", ""), "what the message names")
        remedy = f"a failed Job stays failed: mend its pods, or raise spec.{limit}, and create it anew"
        return (Finding(me, f"has failed: {failed.get('message') or failed.get('reason')}", remedy, causes),)
    return causes


def _creation(snapshot: Snapshot, kind: str, owner: Object, message: str) -> Finding:
    me = subject(kind, owner)
    remedy = "mend what the message says"
    if "exceeded quota" in message:
        remedy = "raise the ResourceQuota, or ask for less"
    elif "PodSecurity" in message:
        remedy = "change the pod's security context, or the namespace's pod-security.kubernetes.io labels"
    elif "webhook" in message:
        remedy = "mend or remove the admission webhook"
    elif "serviceaccount" in message:
        remedy = "create the service account"
    causes = explain_refusal(snapshot, owner["metadata"].get("namespace", ""), message)
    return Finding(me, f"can't create its pods: {message}", "" if causes else remedy, causes)


def _newest_first(sets: list[Object]) -> list[Object]:
    revision = "deployment.kubernetes.io/revision"
    return sorted(sets, key=lambda o: -int((o["metadata"].get("annotations") or {}).get(revision, 0)))
