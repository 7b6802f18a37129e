"""serviceaccounts/token: a signed token for a service account, bound to a pod, node or secret if the caller says so."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

from machinery.api import errors
from services.apiserver.auth.tokens import BoundObject
from services.apiserver.registry.metadata import metadata_of
from services.apiserver.request import Request, WriteOptions, WriteResult
from services.apiserver.special import Parts

SECONDS_DEFAULT = 3600
SECONDS_MIN = 600
SECONDS_MAX = 1 << 32
_BOUND_STORAGES = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}


async def post(parts: Parts, req: Request, body: dict[str, Any], options: WriteOptions) -> WriteResult:
    """Answer a TokenRequest. Raises NotFound, Invalid, BadRequest, Conflict."""
    lookup = parts.writer.lookup
    account = lookup.get("serviceaccounts", req.namespace, req.name)
    if account is None:
        raise req.resource.not_found(req.name)
    if parts.tokens is None:
        raise errors.ServiceUnavailable("this apiserver has no key to sign tokens with")
    if body.get("kind") not in (None, "", "TokenRequest"):
        raise errors.BadRequest(f"the body must be a TokenRequest, not a {body['kind']}")
    metadata = metadata_of(body)
    if metadata.get("name") not in (None, "", req.name) or metadata.get("namespace") not in (None, "", req.namespace):
        raise errors.BadRequest("the name and namespace of the TokenRequest must match the service account")
    spec = body.get("spec") or {}
    seconds = spec.get("expirationSeconds") or SECONDS_DEFAULT
    _check_seconds(req, seconds)
    bound, node = _bound(parts, req, account, spec.get("boundObjectRef") or {})
    audiences = spec.get("audiences") or list(parts.tokens.audiences)
    token, expires = parts.tokens.issue(
        req.namespace,
        req.name,
        account["metadata"]["uid"],
        audiences=audiences,
        seconds=seconds,
        bound=bound,
        node=node,
    )
    answer = {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {
            "name": req.name,
            "namespace": req.namespace,
            "creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
        "spec": {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": spec.get("boundObjectRef")},
        "status": {
            "token": "" if options.dry_run else token,
            "expirationTimestamp": datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
    }
    return WriteResult(orjson.dumps(answer), created=True)


def _check_seconds(req: Request, seconds: Any) -> None:
    message = ""
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        message = f"Invalid value: {orjson.dumps(seconds).decode()}: must be an integer"
    elif seconds < SECONDS_MIN:
        message = f"Invalid value: {seconds}: may not specify a duration less than 10 minutes"
    elif seconds > SECONDS_MAX:
        message = f"Invalid value: {seconds}: may not specify a duration larger than 2^32 seconds"
    if message:
        cause = errors.Cause("FieldValueInvalid", message, "spec.expirationSeconds")
        raise errors.invalid("authentication.k8s.io", "TokenRequest", req.name, [cause])


def _bound(
    parts: Parts, req: Request, account: dict[str, Any], ref: dict[str, Any]
) -> tuple[BoundObject | None, BoundObject | None]:
    """The object that the token lives and dies with, and for a pod the node that it runs on."""
    if not ref:
        return None, None
    kind, name, uid = ref.get("kind", ""), ref.get("name", ""), ref.get("uid", "")
    storage = _BOUND_STORAGES.get(kind)
    if storage is None or ref.get("apiVersion", "v1") != "v1":
        raise errors.BadRequest(
            f"cannot bind token to a {kind} object of {ref.get('apiVersion', 'v1')}: only v1 Pod, Secret and Node"
        )
    lookup = parts.writer.lookup
    found = lookup.get(storage, "" if kind == "Node" else req.namespace, name)
    if found is None:
        raise errors.not_found("", storage, name)
    present = found["metadata"]["uid"]
    if uid and uid != present:
        raise errors.conflict(
            "",
            storage,
            name,
            f"the UID in the bound object reference ({uid}) does not match the UID in record ({present})",
        )
    node = None
    if kind == "Pod":
        spec = found["spec"]
        if spec.get("serviceAccountName", "") != req.name:
            raise errors.BadRequest(
                f'cannot bind token for serviceaccount "{req.name}" to pod running with different serviceaccount name '
                f'"{spec.get("serviceAccountName", "")}"'
            )
        host = lookup.get("nodes", "", spec["nodeName"]) if spec.get("nodeName") else None
        if host is not None:
            node = BoundObject("Node", host["metadata"]["name"], host["metadata"]["uid"])
    return BoundObject(kind, name, present), node
