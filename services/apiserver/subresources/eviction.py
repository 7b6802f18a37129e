"""pods/eviction: delete a pod if its disruption budget allows.

The budget's `status.disruptionsAllowed` is counted down before the pod is deleted, in a conditional write that marks
the pod too: a thousand evictions at once can't get more than the budget had, and two of one pod cost it once. The
controller counts it up again when it sees the pod gone.
"""

from __future__ import annotations

from typing import Any

import orjson

from machinery.api import errors
from machinery.api.selectors import from_label_selector
from services.apiserver import codec
from services.apiserver.commits import Changed
from services.apiserver.registry.metadata import now_text
from services.apiserver.registry.resource import Resource
from services.apiserver.request import DeleteOptions, Request, WriteOptions, WriteResult
from services.apiserver.special import Parts
from services.apiserver.writes import RETRIES_MAX
from storage.store import Key, Put

BUDGETS = "poddisruptionbudgets.policy"
DISRUPTED_PODS_MAX = 2000
_SUCCESS = orjson.dumps({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})


async def post(parts: Parts, req: Request, body: dict[str, Any], options: WriteOptions) -> WriteResult:
    """Evict. Raises NotFound, TooManyRequests, InternalError (several budgets)."""
    if (body.get("metadata") or {}).get("name") not in (None, "", req.name):
        raise errors.BadRequest("name in URL does not match name in Eviction object")
    pods = parts.writer.cache.registry.by_storage("pods")
    assert pods is not None
    pod = parts.writer.lookup.get("pods", req.namespace, req.name)
    if pod is None:
        raise pods.not_found(req.name)
    deletion = _delete_options(body.get("deleteOptions") or {}, options)
    if not _is_free(pod):
        await _spend(parts, req, pods, pod["metadata"]["uid"], deletion.dry_run)
        deletion.uid = deletion.uid or pod["metadata"]["uid"]
    if not deletion.dry_run:
        await _mark(parts, req, pods)
    one = Request(
        req.user, "delete", pods, "", req.namespace, req.name, req.user_agent, req.source_ip, req.audit_id, req.path
    )
    await parts.deleter.delete(one, deletion)
    return WriteResult(_SUCCESS, created=True)


async def _mark(parts: Parts, req: Request, pods: Resource) -> None:
    """Write into the pod why it ends, if that is not there yet."""
    for _ in range(RETRIES_MAX):
        entry = parts.writer.cache.of("pods").get(req.namespace, req.name)
        if entry is None:
            return
        pod = codec.decode(entry.value)
        if _is_marked(pod):
            return
        _add_mark(pod)
        try:
            await parts.writer.committer.replace(pods, entry, pod, codec.encode_tail(pod), None, [], req.user.name)
        except Changed:
            continue
        return


def _is_marked(pod: dict[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(item.get("type") == "DisruptionTarget" and item.get("status") == "True" for item in conditions)


def _add_mark(pod: dict[str, Any]) -> None:
    """A Job can tell a disruption from a failure by it."""
    conditions = pod.setdefault("status", {}).setdefault("conditions", [])
    conditions[:] = [item for item in conditions if item.get("type") != "DisruptionTarget"]
    mark = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    mark |= {"message": "Eviction API: evicting", "lastTransitionTime": now_text()}
    conditions.append(mark)


def _delete_options(given: dict[str, Any], options: WriteOptions) -> DeleteOptions:
    preconditions = given.get("preconditions") or {}
    return DeleteOptions(
        grace_period_seconds=given.get("gracePeriodSeconds"),
        propagation_policy=given.get("propagationPolicy") or "",
        uid=preconditions.get("uid") or "",
        resource_version=preconditions.get("resourceVersion") or "",
        dry_run=options.dry_run or bool(given.get("dryRun")),
        fence=options.fence,
    )


def _is_free(pod: dict[str, Any]) -> bool:
    """Whether the pod serves nobody: it has ended, was never started, or is on its way out."""
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Succeeded", "Failed", "Pending") or "deletionTimestamp" in pod["metadata"]


async def _spend(parts: Parts, req: Request, pods: Resource, uid: str, dry_run: bool) -> None:
    """Take one disruption from the budget of the pod with this uid, unless another eviction has."""
    budgets = parts.writer.cache.registry.by_storage(BUDGETS)
    assert budgets is not None
    for _ in range(RETRIES_MAX):
        entry = parts.writer.cache.of("pods").get(req.namespace, req.name)
        pod = codec.decode(entry.value) if entry is not None else None
        if entry is None or pod is None or pod["metadata"]["uid"] != uid or _is_free(pod):
            # It went meanwhile; the deletion's own condition tells what that means for this request.
            return
        found = [
            budget
            for budget in parts.writer.cache.of(BUDGETS).listed(req.namespace)
            if _selects(codec.decode(budget.value), pod)
        ]
        if not found:
            return
        if len(found) > 1:
            raise errors.InternalError(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            )
        budget = codec.decode(found[0].value)
        if _allows_unready(budget, pod) or _is_paid_for(budget, pod):
            return
        _count_down(budget, pod)
        if dry_run:
            return
        _add_mark(pod)
        marked = Put(Key("pods", entry.namespace, entry.name), entry.revision, pods.head, codec.encode_tail(pod),
                     author=req.user.name)  # fmt: skip
        try:
            await parts.writer.committer.replace(
                budgets, found[0], budget, codec.encode_tail(budget), None, [marked], req.user.name
            )
        except Changed:
            continue
        return
    raise errors.TooManyRequests("the PodDisruptionBudget kept changing", retry_after_seconds=1)


def _selects(budget: dict[str, Any], pod: dict[str, Any]) -> bool:
    selector = budget["spec"].get("selector")
    return selector is not None and from_label_selector(selector).matches(pod["metadata"].get("labels") or {})


def _is_paid_for(budget: dict[str, Any], pod: dict[str, Any]) -> bool:
    """Whether an eviction of this very pod, of which the budget still knows, is under way. Of an earlier pod of the
    same name only the budget would know."""
    return _is_marked(pod) and pod["metadata"]["name"] in ((budget.get("status") or {}).get("disruptedPods") or {})


def _allows_unready(budget: dict[str, Any], pod: dict[str, Any]) -> bool:
    """Whether the budget lets pods go freely that are not ready (they protect nobody)."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    if any(item.get("type") == "Ready" and item.get("status") == "True" for item in conditions):
        return False
    if budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    return bool(status.get("currentHealthy", 0) >= status.get("desiredHealthy", 0) > 0)


def _count_down(budget: dict[str, Any], pod: dict[str, Any]) -> None:
    name, status = budget["metadata"]["name"], budget.get("status") or {}
    if status.get("observedGeneration", 0) < budget["metadata"].get("generation", 0):
        raise _refused(f"The disruption budget {name} is still being processed by the server.", 10)
    allowed = status.get("disruptionsAllowed", 0)
    if allowed < 1 or len(status.get("disruptedPods") or {}) > DISRUPTED_PODS_MAX:
        needs = f"The disruption budget {name} needs {status.get('desiredHealthy', 0)} healthy pods and has " \
                f"{status.get('currentHealthy', 0)} currently"  # fmt: skip
        raise _refused(needs, 0)
    status["disruptionsAllowed"] = allowed - 1
    status.setdefault("disruptedPods", {})[pod["metadata"]["name"]] = now_text()


def _refused(why: str, retry_after_seconds: int) -> errors.TooManyRequests:
    return errors.TooManyRequests(
        "Cannot evict pod as it would violate the pod's disruption budget.",
        causes=[errors.Cause("DisruptionBudget", why)],
        retry_after_seconds=retry_after_seconds,
    )
