"""pods/binding: a scheduler assigns a pod to a node.

The hottest special write: a Batch carries hundreds. A binding changes one field and a condition of an object that was
judged when it was created, so nothing is validated again.
"""

from __future__ import annotations

from typing import Any

import orjson

from machinery.api import errors
from services.apiserver import codec
from services.apiserver.commits import Changed
from services.apiserver.registry.metadata import metadata_of, now_text
from services.apiserver.request import Request, WriteOptions, WriteResult
from services.apiserver.special import Parts
from services.apiserver.writes import RETRIES_MAX

_SUCCESS = orjson.dumps({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})


async def post(parts: Parts, req: Request, body: dict[str, Any], options: WriteOptions) -> WriteResult:
    """Bind the pod that the path or (for `bindings`) the body names. Raises NotFound, Conflict, Invalid."""
    metadata = metadata_of(body)
    name = req.name or metadata.get("name") or ""
    target = body.get("target") or {}
    node = target.get("name") or ""
    if metadata.get("name") not in (None, "", name):
        raise errors.BadRequest("the name of the binding must be the pod's")
    if metadata.get("namespace") not in (None, "", req.namespace):
        raise errors.BadRequest("the namespace of the provided object does not match the namespace sent on the request")
    _check_target(name, target, node)
    pods = parts.writer.cache.registry.by_storage("pods")
    assert pods is not None
    cache = parts.writer.cache.of("pods")
    for _ in range(RETRIES_MAX):
        entry = cache.get(req.namespace, name)
        if entry is None:
            raise pods.not_found(name)
        pod = codec.decode(entry.value)
        _check_pod(name, node, metadata.get("uid") or "", pod)
        assign(pod, node, metadata)
        if options.dry_run:
            return WriteResult(_SUCCESS, created=True)
        try:
            tail, author = codec.encode_tail(pod), req.user.name
            event = await parts.writer.committer.replace(pods, entry, pod, tail, options.fence, [], author)
        except Changed:
            continue
        return WriteResult(_SUCCESS, created=True, revision=event.revision)
    raise errors.conflict("", "pods", name, "the pod kept changing while it was being bound")


def assign(pod: dict[str, Any], node: str, binding: dict[str, Any]) -> None:
    """Put a pod on a node: its name, the binding's annotations and labels, and the condition that says it is
    scheduled."""
    pod["spec"]["nodeName"] = node
    for field in ("annotations", "labels"):
        if binding.get(field):
            pod["metadata"].setdefault(field, {}).update(binding[field])
    conditions = pod.setdefault("status", {}).setdefault("conditions", [])
    condition: dict[str, Any] = {"type": "PodScheduled", "status": "True"}
    generation = pod["metadata"].get("generation")
    if generation:
        condition["observedGeneration"] = generation
    condition |= {"lastProbeTime": None, "lastTransitionTime": now_text()}
    for index, present in enumerate(conditions):
        if present.get("type") == "PodScheduled":
            conditions[index] = condition
            return
    conditions.append(condition)


def _check_target(name: str, target: dict[str, Any], node: str) -> None:
    causes = []
    if target.get("kind") not in (None, "", "Node"):
        message = f'Unsupported value: "{target["kind"]}": supported values: "Node", "<empty>"'
        causes.append(errors.Cause("FieldValueNotSupported", message, "target.kind"))
    if not node:
        causes.append(errors.Cause("FieldValueRequired", "Required value", "target.name"))
    if causes:
        raise errors.invalid("", "Binding", name, causes)


def _check_pod(name: str, node: str, uid: str, pod: dict[str, Any]) -> None:
    metadata, spec = pod["metadata"], pod["spec"]
    why = ""
    if uid and uid != metadata["uid"]:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {metadata['uid']}"
    elif "deletionTimestamp" in metadata:
        why = f"pod {name} is being deleted, cannot be assigned to a host"
    elif spec.get("nodeName"):
        why = f'pod {name} is already assigned to node "{spec["nodeName"]}"'
    elif spec.get("schedulingGates"):
        why = f"pod {name} has non-empty .spec.schedulingGates"
    if why:
        raise errors.conflict("", "pods/binding", name, why)
