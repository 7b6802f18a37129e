"""Audit events of REST requests: what `auth.audit` writes down about each answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from machinery.api.objects import now_rfc3339_micro
from services.apiserver.auth.audit import Asked, AuditFile, Policy
from services.apiserver.auth.reviews import user_info
from services.apiserver.rest.context import Call

# Values that must not be in a log, whatever the policy says.
_SECRET_RESOURCES = frozenset(
    {("", "secrets", ""), ("", "serviceaccounts", "token"), ("authentication.k8s.io", "tokenreviews", "")}
)


class RestAuditor:
    """Writes an event for every request that the policy names, when it has been answered."""

    def __init__(self, policy: Policy, file: AuditFile) -> None:
        self._policy = policy
        self._file = file

    def completed(self, call: Call, code: int, response_body: bytes | None = None) -> None:
        """A request has been answered with `code`."""
        info = call.info
        asked = Asked(
            call.user, info.verb, info.group, info.resource, info.subresource, info.namespace, info.name, info.path
        )
        level = self._policy.level_of(asked)
        if level == "None":
            return
        self._file.write(_event(call, asked, level, code, response_body))

    def close(self) -> None:
        """Write what is pending."""
        self._file.close()


def _event(call: Call, asked: Asked, level: str, code: int, response_body: bytes | None) -> dict[str, Any]:
    if (asked.group, asked.resource, asked.subresource) in _SECRET_RESOURCES:
        level = "Metadata"
    event: dict[str, Any] = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": level,
        "auditID": call.audit_id,
        "stage": "ResponseComplete",
        "requestURI": call.http.raw_path,
        "verb": asked.verb,
        "user": user_info(call.authenticated or call.user),
        "sourceIPs": [call.connection.client_address],
        "userAgent": call.user_agent,
        "responseStatus": {"metadata": {}, "code": code},
        "requestReceivedTimestamp": call.received,
        "stageTimestamp": now_rfc3339_micro(),
        "annotations": {"authorization.k8s.io/decision": "forbid" if code == 403 else "allow"},
    }
    if call.authenticated is not None and call.authenticated != call.user:
        event["impersonatedUser"] = user_info(call.user)
    if asked.resource:
        event["objectRef"] = _object_ref(call, asked)
    if level in ("Request", "RequestResponse"):
        event["requestObject"] = _document(call.body)
    if level == "RequestResponse":
        event["responseObject"] = _document(response_body)
    return {key: value for key, value in event.items() if value is not None}


def _object_ref(call: Call, asked: Asked) -> Mapping[str, str]:
    ref = {
        "resource": asked.resource,
        "namespace": asked.namespace,
        "name": asked.name,
        "apiGroup": asked.group,
        "apiVersion": call.info.version,
        "subresource": asked.subresource,
    }
    return {key: value for key, value in ref.items() if value}


def _document(body: bytes | None) -> Any:
    if not body:
        return None
    try:
        return orjson.Fragment(orjson.dumps(orjson.loads(body)))
    except orjson.JSONDecodeError:
        return None
