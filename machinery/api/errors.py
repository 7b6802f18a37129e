"""The errors of the Kubernetes API, one tree for server and clients, on every transport.

ApiError
├── BadRequest 400             ├── Conflict 409            ├── UnsupportedMediaType 415   ├── TooManyRequests 429
├── Unauthorized 401           ├── AlreadyExists 409       ├── Invalid 422                ├── InternalError 500
├── Forbidden 403              ├── Gone 410                ├── NotAcceptable 406          ├── ServiceUnavailable 503
├── NotFound 404               ├── Expired 410             ├── RequestTooLarge 413        ├── ServerTimeout 500
├── MethodNotAllowed 405       │                           │                              └── Timeout 504

Each one turns into a `Status` object (`to_status`) and back (`from_status`); `machinery.component.grpc_errors` maps
them to gRPC. Shapes and wording follow k8s.io/apimachinery/pkg/api/errors, because clients match on both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason among several, usually about one field.

    `reason` is one of FieldValueRequired, FieldValueInvalid, FieldValueNotSupported, FieldValueForbidden,
    FieldValueDuplicate, FieldValueNotFound, FieldValueTooLong, FieldValueTooMany, FieldValueTypeInvalid; `field` is a
    path: `spec.ports[1].nodePort`.
    """

    reason: str
    message: str
    field: str = ""

    def to_dict(self) -> dict[str, str]:
        """The cause as `status.details.causes` holds it."""
        out = {"reason": self.reason, "message": self.message}
        if self.field:
            out["field"] = self.field
        return out


class ApiError(Exception):
    """Root of the tree. Never raised itself: every error has a reason."""

    code: ClassVar[int] = 500
    reason: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        group: str = "",
        resource: str = "",
        name: str = "",
        uid: str = "",
        causes: Sequence[Cause] = (),
        retry_after_seconds: int = 0,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.group = group
        self.resource = resource
        self.name = name
        self.uid = uid
        self.causes = tuple(causes)
        self.retry_after_seconds = retry_after_seconds
        # On Expired of a chunked list: continues it from the newest state, inconsistently.
        self.continue_token = ""

    def to_status(self) -> dict[str, Any]:
        """The Kubernetes `Status` object that says this."""
        details: dict[str, Any] = {}
        if self.name:
            details["name"] = self.name
        if self.group:
            details["group"] = self.group
        if self.resource:
            details["kind"] = self.resource
        if self.uid:
            details["uid"] = self.uid
        if self.causes:
            details["causes"] = [cause.to_dict() for cause in self.causes]
        if self.retry_after_seconds:
            details["retryAfterSeconds"] = self.retry_after_seconds
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {"continue": self.continue_token} if self.continue_token else {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if details:
            status["details"] = details
        status["code"] = self.code
        return status


class BadRequest(ApiError):
    """The request itself makes no sense: malformed JSON, a bad selector, a wrong kind for the path."""

    code = 400
    reason = "BadRequest"


class Unauthorized(ApiError):
    """Who are you?"""

    code = 401
    reason = "Unauthorized"


class Forbidden(ApiError):
    """You may not, or admission refuses."""

    code = 403
    reason = "Forbidden"


class NotFound(ApiError):
    """No such object, resource or path."""

    code = 404
    reason = "NotFound"


class MethodNotAllowed(ApiError):
    """The resource exists and does not support this verb."""

    code = 405
    reason = "MethodNotAllowed"


class NotAcceptable(ApiError):
    """No representation that the client accepts."""

    code = 406
    reason = "NotAcceptable"


class Conflict(ApiError):
    """The object has changed since, a precondition fails, another manager owns a field, or leadership has moved."""

    code = 409
    reason = "Conflict"


class AlreadyExists(ApiError):
    """An object of that name exists."""

    code = 409
    reason = "AlreadyExists"


class Gone(ApiError):
    """What was asked for existed and does not any more."""

    code = 410
    reason = "Gone"


class Expired(ApiError):
    """The revision, continue token or watch is too old: list again."""

    code = 410
    reason = "Expired"


class RequestTooLarge(ApiError):
    """The body is over the limit."""

    code = 413
    reason = "RequestEntityTooLarge"


class UnsupportedMediaType(ApiError):
    """The body's content type is not understood."""

    code = 415
    reason = "UnsupportedMediaType"


class Invalid(ApiError):
    """The object breaks rules; the causes say which."""

    code = 422
    reason = "Invalid"


class TooManyRequests(ApiError):
    """Wait `retry_after_seconds`, then ask again."""

    code = 429
    reason = "TooManyRequests"


class InternalError(ApiError):
    """A defect or a broken dependency on the server's side."""

    code = 500
    reason = "InternalError"


class ServerTimeout(ApiError):
    """The server could not finish in time and nothing was changed; try again."""

    code = 500
    reason = "ServerTimeout"


class ServiceUnavailable(ApiError):
    """Not reachable or not ready; the change may or may not have happened."""

    code = 503
    reason = "ServiceUnavailable"


class Timeout(ApiError):
    """The deadline passed; the change may or may not have happened."""

    code = 504
    reason = "Timeout"


_BY_REASON: dict[str, type[ApiError]] = {cls.reason: cls for cls in ApiError.__subclasses__()}
_BY_CODE: dict[int, type[ApiError]] = {
    400: BadRequest, 401: Unauthorized, 403: Forbidden, 404: NotFound, 405: MethodNotAllowed, 406: NotAcceptable,
    409: Conflict, 410: Gone, 413: RequestTooLarge, 415: UnsupportedMediaType, 422: Invalid, 429: TooManyRequests,
    503: ServiceUnavailable, 504: Timeout,
}  # fmt: skip


def from_status(status: Mapping[str, Any]) -> ApiError:
    """The error that a `Status` object says.

    An unknown reason is taken by its code; an unknown code is InternalError.
    """
    cls = _BY_REASON.get(status.get("reason", "")) or _BY_CODE.get(status.get("code", 500), InternalError)
    details = status.get("details") or {}
    return cls(
        status.get("message", ""),
        group=details.get("group", ""),
        resource=details.get("kind", ""),
        name=details.get("name", ""),
        uid=details.get("uid", ""),
        causes=[
            Cause(cause.get("reason", ""), cause.get("message", ""), cause.get("field", ""))
            for cause in details.get("causes") or []
        ],
        retry_after_seconds=details.get("retryAfterSeconds", 0),
    )


def _qualified(group: str, resource: str) -> str:
    return f"{resource}.{group}" if group else resource


def not_found(group: str, resource: str, name: str) -> NotFound:
    """`pods "web" not found`."""
    return NotFound(f'{_qualified(group, resource)} "{name}" not found', group=group, resource=resource, name=name)


def already_exists(group: str, resource: str, name: str) -> AlreadyExists:
    """`pods "web" already exists`."""
    return AlreadyExists(
        f'{_qualified(group, resource)} "{name}" already exists', group=group, resource=resource, name=name
    )


def conflict(group: str, resource: str, name: str, why: str) -> Conflict:
    """`Operation cannot be fulfilled on pods "web": …`."""
    message = f'Operation cannot be fulfilled on {_qualified(group, resource)} "{name}": {why}'
    return Conflict(message, group=group, resource=resource, name=name)


def forbidden(group: str, resource: str, name: str, why: str) -> Forbidden:
    """`pods "web" is forbidden: …`."""
    subject = f'{_qualified(group, resource)} "{name}"' if name else _qualified(group, resource)
    return Forbidden(f"{subject} is forbidden: {why}", group=group, resource=resource, name=name)


CAUSES_MAX = 1000
"""Causes of one Invalid that are told of: nobody reads more, and an object of a megabyte may have a hundred megabytes
of them."""


def invalid(group: str, kind: str, name: str, causes: Sequence[Cause]) -> Invalid:
    """`Deployment.apps "web" is invalid: spec.replicas: Invalid value: -1: must be …`; several causes stand in
    brackets.

    As upstream does, `details.kind` is the kind here, not the resource. Other than upstream, no more than CAUSES_MAX
    causes are told of.
    """
    causes = causes[:CAUSES_MAX]
    texts = list(dict.fromkeys(f"{cause.field}: {cause.message}" if cause.field else cause.message for cause in causes))
    joined = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    return Invalid(
        f'{_qualified(group, kind)} "{name}" is invalid: {joined}', group=group, resource=kind, name=name, causes=causes
    )


def is_nesting(error: BaseException) -> bool:
    """Whether an error says that an object has too many levels: decoders take more of them than what is done with an
    object afterwards (encoders 254, Python's functions some 900).
    """
    return isinstance(error, RecursionError) or (isinstance(error, TypeError) and "Recursion limit" in str(error))
