"""What a pod's claims and a claim's consumers need. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from machinery.api import kinds
from services.controller_manager.actions import WARNING, Action, Create, Emit, Note, Patch
from services.controller_manager.pods import is_terminal
from services.controller_manager.templates import owner_reference
from services.controller_manager.views.devices import Consumer, ResourceClaim, ResourceClaimTemplate
from services.controller_manager.views.pod import Pod, PodResourceClaim

FINALIZER = "resource.kubernetes.io/delete-protection"
"""Set by the scheduler with an allocation; keeps the claim until its devices are given back."""
FOR_CLAIM = "resource.kubernetes.io/pod-claim-name"
"""The annotation that says for which of the pod's claims a claim was made."""
NAME_BASE_MAX = 57
"""So that a hyphen and five random letters still fit into a name of 63."""
FAILED = "FailedResourceClaimCreation"


def is_done(pod: Pod) -> bool:
    """Whether the pod needs no devices any more: it ended, or was deleted before it had a node."""
    return is_terminal(pod) or (pod.metadata.deletionTimestamp is not None and not pod.spec.nodeName)


def has_claims(pod: Pod) -> bool:
    """Whether the pod claims devices, or has a claim for extended resources, which the scheduler wrote."""
    return bool(pod.spec.resourceClaims) or pod.status.extendedResourceClaimStatus is not None


def claim_names(pod: Pod) -> set[str]:
    """All claims that the pod uses, as far as they are known."""
    names = {claim_name(pod, each) for each in pod.spec.resourceClaims}
    extended = pod.status.extendedResourceClaimStatus
    return (names | {extended.resourceClaimName} if extended else names) - {""}


def claim_name(pod: Pod, reference: PodResourceClaim) -> str:
    """The claim that a pod's claim stands for; empty: none (yet)."""
    if reference.resourceClaimName:
        return reference.resourceClaimName
    return next((s.resourceClaimName for s in pod.status.resourceClaimStatuses if s.name == reference.name), "")


def of_pod(
    pod: Pod,
    claims: Callable[[str], ResourceClaim | None],
    own: Sequence[ResourceClaim],
    templates: Callable[[str], ResourceClaimTemplate | None],
) -> list[Action]:
    """Create what templates ask for; once it is there, tell the pod; reserve what a bound pod uses.

    `own` are the claims that the pod controls.
    """
    made = {each.metadata.annotations.get(FOR_CLAIM, ""): each for each in reversed(own)}
    creations: list[Action] = []
    names = {status.name: status.resourceClaimName for status in pod.status.resourceClaimStatuses}
    for reference in pod.spec.resourceClaims:
        if not reference.resourceClaimTemplateName:
            continue
        told = claims(names[reference.name]) if names.get(reference.name) else None
        if told is not None and _controls(pod, told):
            continue
        mine = made.get(reference.name)
        if mine is not None:
            names[reference.name] = mine.metadata.name
            continue
        template = templates(reference.resourceClaimTemplateName)
        if template is None:
            why = f'resource claim template "{reference.resourceClaimTemplateName}" not found'
            return [*creations, Emit(WARNING, FAILED, f"PodResourceClaim {reference.name}: {why}")]
        failure = Note(WARNING, FAILED, f"PodResourceClaim {reference.name}: create ResourceClaim: {{error}}")
        creations.append(Create(kinds.RESOURCE_CLAIM, _claim(pod, reference.name, template), on_failure=failure))
    if creations:
        return creations
    meta = pod.metadata
    if names != {status.name: status.resourceClaimName for status in pod.status.resourceClaimStatuses}:
        # A name that is empty was told already: for that claim nothing is needed.
        statuses = [{"name": k, "resourceClaimName": v} if v else {"name": k} for k, v in sorted(names.items())]
        status = {"status": {"resourceClaimStatuses": statuses}}
        patch = Patch(
            kinds.POD, meta.namespace, meta.name, status, subresource="status", uid=meta.uid, revision=meta.revision
        )
        return [patch]
    return _reservations(pod, claims) if pod.spec.nodeName else []


def _reservations(pod: Pod, claims: Callable[[str], ResourceClaim | None]) -> list[Action]:
    """For a pod that was bound past the scheduler's reservation."""
    actions: list[Action] = []
    for reference in pod.spec.resourceClaims:
        claim = claims(claim_name(pod, reference))
        if claim is None or (reference.resourceClaimTemplateName and not _controls(pod, claim)):
            continue
        reserved = claim.status.reservedFor
        if claim.status.allocation is None or any(each.uid == pod.metadata.uid for each in reserved):
            continue
        consumers = [*map(consumer_json, reserved), _consumer(pod)]
        actions.append(_status(claim, {"reservedFor": consumers}))
    return actions


def _status(claim: ResourceClaim, status: dict[str, Any]) -> Patch:
    meta = claim.metadata
    return Patch(
        kinds.RESOURCE_CLAIM, meta.namespace, meta.name, {"status": status}, subresource="status",
        uid=meta.uid, revision=meta.revision,
    )  # fmt: skip


def _controls(pod: Pod, claim: ResourceClaim) -> bool:
    owner = claim.metadata.controller
    return owner is not None and owner.uid == pod.metadata.uid


def _consumer(pod: Pod) -> dict[str, Any]:
    return {"resource": "pods", "name": pod.metadata.name, "uid": pod.metadata.uid}


def consumer_json(consumer: Consumer) -> dict[str, Any]:
    """A consumer as the API writes it."""
    out = {"resource": consumer.resource, "name": consumer.name, "uid": consumer.uid}
    return {"apiGroup": consumer.apiGroup, **out} if consumer.apiGroup else out


def _claim(pod: Pod, name: str, template: ResourceClaimTemplate) -> dict[str, Any]:
    given = template.spec.metadata
    metadata: dict[str, Any] = {
        "generateName": generate_name(pod.metadata.name, name),
        "namespace": pod.metadata.namespace,
        "annotations": {**(given.get("annotations") or {}), FOR_CLAIM: name},
        "ownerReferences": [_owner(pod)],
    }
    if given.get("labels"):
        metadata["labels"] = given["labels"]
    kind = kinds.RESOURCE_CLAIM
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": template.spec.spec}


def _owner(pod: Pod) -> dict[str, Any]:
    # As upstream has it: a pod that is deleted in the foreground does not wait for its claims.
    reference = owner_reference(kinds.POD, pod.metadata)
    return {key: value for key, value in reference.items() if key != "blockOwnerDeletion"}


def generate_name(pod: str, claim: str) -> str:
    """ "pod-claim-", each shortened in proportion where both are too long."""
    whole = f"{pod}-{claim}-"
    if len(whole) <= NAME_BASE_MAX:
        return whole
    return f"{pod[: len(pod) * NAME_BASE_MAX // len(whole)]}-{claim[: len(claim) * NAME_BASE_MAX // len(whole)]}"


# --- claims -----------------------------------------------------------------------------------------------------------


def remaining(claim: ResourceClaim, ended: Collection[str]) -> list[Consumer]:
    """The consumers that still count. `ended` are uids of pods that are gone or done.

    What is no pod is somebody else's to judge, and stays.
    """
    return [c for c in claim.status.reservedFor if not (is_pod(c) and c.uid in ended)]


def is_pod(consumer: Consumer) -> bool:
    """Whether the consumer is a pod."""
    return not consumer.apiGroup and consumer.resource == "pods"


def release(claim: ResourceClaim, left: Sequence[Consumer]) -> dict[str, Any] | None:
    """The change of the claim's status, or None.

    The last consumer's end gives the devices back. A claim that nobody used yet is left alone, unless it is deleted.
    """
    if len(left) < len(claim.status.reservedFor):
        change: dict[str, Any] = {"reservedFor": [consumer_json(each) for each in left] or None}
        if not left and FINALIZER in claim.metadata.finalizers:
            change |= {"allocation": None}
        return change
    if _goes(claim, left) and claim.status.allocation is not None:
        return {"allocation": None}
    return None


def _goes(claim: ResourceClaim, left: Sequence[Consumer]) -> bool:
    return claim.metadata.deletionTimestamp is not None and not left and FINALIZER in claim.metadata.finalizers


def unprotect(claim: ResourceClaim, left: Sequence[Consumer], *, released: bool) -> bool:
    """Whether the finalizer goes: nothing is allocated, and this is the moment (or the claim's end) to say so."""
    return FINALIZER in claim.metadata.finalizers and not left and (released or _goes(claim, left))


def holds_nothing(claim: ResourceClaim) -> bool:
    """Whether the claim is protected though it is neither allocated nor reserved nor deleted."""
    status, meta = claim.status, claim.metadata
    empty = status.allocation is None and not status.reservedFor
    return empty and meta.deletionTimestamp is None and FINALIZER in meta.finalizers


def owning_pod(claim: ResourceClaim) -> tuple[str, str]:
    """(name, uid) of the pod that the claim was made for; empty: it was made by somebody."""
    owner = claim.metadata.controller
    return (owner.name, owner.uid) if owner is not None and owner.kind == "Pod" else ("", "")
