"""A StatefulSet's pods have names that stay: pod "web-2" with claims "data-web-2", whoever runs there."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from machinery.api import kinds
from machinery.api.kinds import Kind
from services.controller_manager import ownership, templates
from services.controller_manager.actions import (
    NORMAL,
    WARNING,
    Action,
    Create,
    Emit,
    Note,
    Patch,
)
from services.controller_manager.revisions import HASH_LABEL
from services.controller_manager.views.cluster import PersistentVolumeClaim
from services.controller_manager.views.meta import Meta, OwnerReference
from services.controller_manager.views.pod import Pod
from services.controller_manager.views.workloads import StatefulSet

POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"


def ordinal_of(owner: StatefulSet, name: str) -> int | None:
    """The ordinal in a pod's name; None if the name is not one of this set's."""
    prefix, dash, number = name.rpartition("-")
    if not dash or prefix != owner.metadata.name or not number.isdigit() or str(int(number)) != number:
        return None
    return int(number)


def pod_name(owner: StatefulSet, ordinal: int) -> str:
    """The name of the pod with that ordinal."""
    return f"{owner.metadata.name}-{ordinal}"


def claim_name(owner: StatefulSet, template: dict[str, Any], ordinal: int) -> str:
    """The name of one of its claims."""
    return f"{template['metadata']['name']}-{owner.metadata.name}-{ordinal}"


def new_pod(owner: StatefulSet, template: dict[str, Any], ordinal: int, revision: str) -> dict[str, Any]:
    """The pod with that ordinal, of a revision's template."""
    name = pod_name(owner, ordinal)
    obj = templates.pod_from(template, kinds.STATEFUL_SET, owner.metadata, name=name)
    marks = {POD_NAME: name, POD_INDEX: str(ordinal), HASH_LABEL: revision}
    obj["metadata"]["labels"] = {**obj["metadata"].get("labels", {}), **marks}
    spec = obj["spec"]
    spec["hostname"] = name
    spec["subdomain"] = owner.spec.serviceName
    claims = [
        {"name": each["metadata"]["name"], "persistentVolumeClaim": {"claimName": claim_name(owner, each, ordinal)}}
        for each in owner.spec.volumeClaimTemplates
    ]
    own = {each["name"] for each in claims}
    if claims:
        spec["volumes"] = claims + [volume for volume in spec.get("volumes") or () if volume["name"] not in own]
    return obj


def new_claim(owner: StatefulSet, template: dict[str, Any], ordinal: int) -> dict[str, Any]:
    """One claim of the pod with that ordinal."""
    claim = copy.deepcopy(template)
    metadata = claim.setdefault("metadata", {})
    labels = {**(metadata.get("labels") or {}), **owner.spec.selector.matchLabels}
    out: dict[str, Any] = {
        "name": claim_name(owner, template, ordinal),
        "namespace": owner.metadata.namespace,
        "labels": labels,
    }
    if metadata.get("annotations"):
        out["annotations"] = metadata["annotations"]
    if owner.spec.persistentVolumeClaimRetentionPolicy.whenDeleted == "Delete":
        out["ownerReferences"] = [_set_reference(owner)]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": out,
        "spec": claim.get("spec") or {},
    }


def create_claims(owner: StatefulSet, ordinal: int, claims: dict[str, PersistentVolumeClaim]) -> list[Action]:
    """Create those claims of an ordinal that are missing."""
    actions: list[Action] = []
    for template in owner.spec.volumeClaimTemplates:
        name = claim_name(owner, template, ordinal)
        if name in claims:
            continue
        about = f"create Claim {name} Pod {pod_name(owner, ordinal)} in StatefulSet {owner.metadata.name}"
        success = Note(NORMAL, "SuccessfulCreate", f"{about} success")
        failure = Note(WARNING, "FailedCreate", f"{about} failed error: {{error}}")
        obj = new_claim(owner, template, ordinal)
        actions.append(Create(kinds.PERSISTENT_VOLUME_CLAIM, obj, success, failure, exists_ok=True))
    return actions


# --- retention --------------------------------------------------------------------------------------------------------


def _set_reference(owner: StatefulSet) -> dict[str, Any]:
    return templates.owner_reference(kinds.STATEFUL_SET, owner.metadata)


def _names(reference: OwnerReference, kind: Kind, meta: Meta) -> bool:
    return (reference.kind, reference.apiVersion, reference.name) == (kind.kind, kind.api_version, meta.name)


def retention(owner: StatefulSet, claim: PersistentVolumeClaim, pod: Pod | None, *, condemned: bool) -> list[Action]:
    """Controlling references by which the garbage collector keeps the retention policy: on the set, or on the pod that
    is scaled away.

    A claim with a reference to an earlier set or pod of the same name is left alone, and so is one that somebody else
    controls, once our references are off it.
    """
    policy, references = owner.spec.persistentVolumeClaimRetentionPolicy, claim.metadata.ownerReferences
    known = [(kinds.STATEFUL_SET, owner.metadata)] + ([(kinds.POD, pod.metadata)] if pod is not None else [])
    ours = [each for each in references if any(_names(each, kind, meta) for kind, meta in known)]
    others = [each for each in references if each not in ours]
    if any(each.uid not in {meta.uid for _, meta in known} for each in ours):
        return []
    if "Delete" in (policy.whenDeleted, policy.whenScaled) and any(each.controller for each in others):
        name = claim.metadata.name
        text = f"PersistentVolumeClaim {name} is controlled by another owner, the retention policy is ignored for it"
        event = Emit(WARNING, "ConflictingController", text)
        return [event, *([_own(claim, others, [])] if ours else [])]
    wanted: list[dict[str, Any]] = []
    if condemned and policy.whenScaled == "Delete":
        if pod is not None:
            wanted = [templates.owner_reference(kinds.POD, pod.metadata)]
    elif policy.whenDeleted == "Delete":
        wanted = [_set_reference(owner)]
    if {each.uid for each in ours if each.controller} == {each["uid"] for each in wanted} and len(ours) == len(wanted):
        return []
    return [_own(claim, others, wanted)]


def _own(claim: PersistentVolumeClaim, others: Sequence[OwnerReference], ours: Sequence[dict[str, Any]]) -> Patch:
    owners = [*ownership.references(others), *ours] or None
    return ownership.ownership_patch(kinds.PERSISTENT_VOLUME_CLAIM, claim.metadata, {"ownerReferences": owners})
