"""Why something that was deleted is still there."""

from __future__ import annotations

from collections.abc import Iterable

from services.controller_manager.explain.finding import Finding
from services.controller_manager.explain.snapshot import Object, Snapshot, names, subject

# What the finalizers that Kubernetes itself sets wait for.
_PROTECTIONS = ("kubernetes.io/pvc-protection", "kubernetes.io/pv-protection")
_DEPENDENTS = ("foregroundDeletion", "orphan")
_NAMESPACE_PROBLEMS = (
    "NamespaceDeletionDiscoveryFailure",
    "NamespaceDeletionGroupVersionParsingFailure",
    "NamespaceDeletionContentFailure",
    "NamespaceFinalizersRemaining",
    "NamespaceContentRemaining",
)


def explain_deletion(snapshot: Snapshot, kind: str, obj: Object) -> tuple[Finding, ...]:
    """Which finalizers keep a deleted object, and who has to take them away; empty if it is not being deleted, or by
    nothing but time."""
    since = obj["metadata"].get("deletionTimestamp")
    finalizers = obj["metadata"].get("finalizers") or []
    if not since or not finalizers:
        return ()
    me = subject(kind, obj)
    causes = tuple(_waits_for(snapshot, kind, obj, finalizer) for finalizer in finalizers)
    return (Finding(me, f"is being deleted since {since} and its finalizers keep it", because=causes),)


def _waits_for(snapshot: Snapshot, kind: str, obj: Object, finalizer: str) -> Finding:
    who = f"finalizer {finalizer}"
    if finalizer in _PROTECTIONS:
        users = _users(snapshot, obj)
        if users:
            return Finding(who, f"waits for pods that use it: {users}", "delete these pods")
        return Finding(who, "goes once nothing uses it", "is the controller-manager running? `cutaway status`")
    if finalizer in _DEPENDENTS:
        remedy = "look at what keeps them: `cutaway explain` one; is the controller-manager running?"
        return Finding(who, f"waits for what {subject(kind, obj)} owns", remedy)
    remedy = "is its controller running? If it is gone for good, take the finalizer off: `kubectl patch --type=json`"
    return Finding(who, "waits for the controller that set it", remedy)


def _users(snapshot: Snapshot, claim: Object) -> str:
    namespace, name = claim["metadata"].get("namespace", ""), claim["metadata"]["name"]
    return names(
        pod
        for pod in snapshot.all("Pod", namespace)
        if any(
            (v.get("persistentVolumeClaim") or {}).get("claimName") == name for v in pod["spec"].get("volumes") or []
        )
    )


def explain_namespace(snapshot: Snapshot, namespace: Object) -> tuple[Finding, ...]:
    """What keeps a namespace Terminating; empty for one that is Active."""
    if namespace.get("status", {}).get("phase") != "Terminating":
        return ()
    me, name = subject("namespace", namespace), namespace["metadata"]["name"]
    causes = tuple(_told(namespace)) + tuple(
        finding for kind, obj in _deleted(snapshot, name) for finding in explain_deletion(snapshot, kind, obj)
    )
    if not causes:
        return (Finding(me, "is Terminating", "is the controller-manager running? `cutaway status`"),)
    return (Finding(me, "is Terminating: something in it does not go", because=causes),)


def _told(namespace: Object) -> Iterable[Finding]:
    for entry in namespace.get("status", {}).get("conditions") or []:
        if entry.get("type") in _NAMESPACE_PROBLEMS and entry.get("status") == "True":
            remedy = ""
            if entry["type"] == "NamespaceDeletionDiscoveryFailure":
                remedy = "an aggregated API does not answer: `kubectl get apiservices` shows which; mend or delete it"
            yield Finding(f"condition {entry['type']}", f"says: {entry.get('message', '')}", remedy)


def _deleted(snapshot: Snapshot, namespace: str) -> Iterable[tuple[str, Object]]:
    for kind in snapshot.objects:
        for obj in snapshot.all(kind, namespace):
            if obj["metadata"].get("deletionTimestamp"):
                yield kind, obj
