"""Why a claim has no volume."""

from __future__ import annotations

from services.controller_manager.explain.finding import Finding
from services.controller_manager.explain.snapshot import Object, Snapshot, subject

_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


def explain_claim(snapshot: Snapshot, claim: Object) -> tuple[Finding, ...]:
    """What keeps a PersistentVolumeClaim from being bound; empty if it is."""
    if claim.get("status", {}).get("phase") == "Bound":
        return ()
    me = subject("persistentvolumeclaim", claim)
    wanted = claim["spec"].get("storageClassName")
    if wanted is None:
        defaults = [
            c
            for c in snapshot.all("StorageClass")
            if (c["metadata"].get("annotations") or {}).get(_DEFAULT_CLASS) == "true"
        ]
        if not defaults:
            return (
                Finding(me, "names no storage class, and there is no default one", "name one, or mark one as default"),
            )
        wanted = defaults[0]["metadata"]["name"]
    volume_class = snapshot.get("StorageClass", "", wanted) if wanted else None
    if wanted and volume_class is None:
        known = ", ".join(c["metadata"]["name"] for c in snapshot.all("StorageClass")) or "none"
        return (Finding(me, f"wants storage class {wanted}, which does not exist", f"there are: {known}"),)
    if volume_class is not None and volume_class.get("volumeBindingMode") == "WaitForFirstConsumer":
        users = [p for p in snapshot.all("Pod", claim["metadata"]["namespace"]) if _uses(p, claim["metadata"]["name"])]
        if not users:
            return (Finding(me, "waits for the first pod that uses it", "that is as it should be: create the pod"),)
    told = snapshot.warnings(claim)
    if told:
        return (Finding(me, f"is not bound: {told[0]}"),)
    size = claim["spec"].get("resources", {}).get("requests", {}).get("storage", "?")
    modes = ", ".join(claim["spec"].get("accessModes") or [])
    return (
        Finding(
            me, f"is not bound: no volume has {size}, {modes}, class {wanted!r}", "create a PersistentVolume that has"
        ),
    )


def _uses(pod: Object, claim: str) -> bool:
    volumes = pod["spec"].get("volumes") or []
    return any((volume.get("persistentVolumeClaim") or {}).get("claimName") == claim for volume in volumes)
