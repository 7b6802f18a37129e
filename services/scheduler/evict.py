"""Carrying out a preemption: name the node for the pod, then end the victims gracefully."""

from __future__ import annotations

from machinery.api import kinds, objects
from machinery.api.errors import ApiError, Conflict, NotFound
from machinery.client.api_client import ApiClient, Mutation, PatchType
from machinery.component import logs
from services.scheduler.pod_info import PodInfo

log = logs.get("evict")


async def evict(client: ApiClient, preemptor: PodInfo, scheduler_name: str, victims: tuple[PodInfo, ...]) -> bool:
    """Mark and delete the victims.

    Whether all of them are on their way out; one that is not leaves the pod to try again.
    """
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": f"{scheduler_name}: preempting to accommodate a higher priority pod",
        "lastTransitionTime": objects.now_rfc3339(),
    }
    going = [victim for victim in victims if not victim.terminating]
    marks = [
        Mutation.patch(
            kinds.POD, victim.name, victim.namespace, {"metadata": {"uid": victim.uid}, "status": {"conditions":
            [condition]}}, type=PatchType.STRATEGIC, subresource="status",
        )
        for victim in going
    ]  # fmt: skip
    ends = [Mutation.delete(kinds.POD, victim.name, victim.namespace, uid=victim.uid) for victim in going]
    try:
        results = await client.batch([*marks, *ends])
    except ApiError as err:
        log.warning("victims not evicted", preemptor=preemptor.key, error=err.message)
        return False
    # A victim that is gone, or is another pod of the same name by now, needs no eviction.
    failed = [r.error for r in results[len(marks) :] if r.error and not isinstance(r.error, (NotFound, Conflict))]
    for error in failed:
        log.warning("victim not evicted", preemptor=preemptor.key, error=error.message)
    return not failed
