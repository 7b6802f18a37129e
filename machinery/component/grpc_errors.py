"""ApiError to gRPC status and back: the one table of `protos/cutaway/v1/apiserver.proto`'s head.

An error travels as a gRPC code, its message, and a `google.rpc.Status` in the trailer `grpc-status-details-bin` whose
only detail is a `cutaway.v1.Status` with the whole Kubernetes Status.
"""

from __future__ import annotations

from typing import Any, NoReturn

import grpc
import msgspec
from google.rpc import status_pb2

from machinery.api import errors
from protos.cutaway.v1 import object_pb2

DETAILS_KEY = "grpc-status-details-bin"

METADATA_BYTES_MAX = 64 * 1024
"""How much metadata (trailers with an error's details among it) either side accepts; gRPC's default is 8 KiB."""

# What is put into the trailer, so that it and the rest stay below METADATA_BYTES_MAX (base64 adds a third).
_DETAILS_BYTES_MAX = 40 * 1024
# The message stands in the details too; gRPC percent-encodes this copy, which can triple it.
_MESSAGE_CHARS_MAX = 2048

_CODES: dict[type[errors.ApiError], grpc.StatusCode] = {
    errors.BadRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnsupportedMediaType: grpc.StatusCode.INVALID_ARGUMENT,
    errors.RequestTooLarge: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthorized: grpc.StatusCode.UNAUTHENTICATED,
    errors.Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.Conflict: grpc.StatusCode.ABORTED,
    errors.Expired: grpc.StatusCode.OUT_OF_RANGE,
    errors.Gone: grpc.StatusCode.OUT_OF_RANGE,
    errors.TooManyRequests: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Timeout: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.ServerTimeout: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.ServiceUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.MethodNotAllowed: grpc.StatusCode.UNIMPLEMENTED,
    errors.NotAcceptable: grpc.StatusCode.UNIMPLEMENTED,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}

# For a status that no apiserver made: gRPC's own failures, and servers in other languages that send no detail.
_ERRORS: dict[grpc.StatusCode, type[errors.ApiError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.BadRequest,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthorized,
    grpc.StatusCode.PERMISSION_DENIED: errors.Forbidden,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.ABORTED: errors.Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: errors.Conflict,
    grpc.StatusCode.OUT_OF_RANGE: errors.Expired,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.TooManyRequests,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.Timeout,
    grpc.StatusCode.UNAVAILABLE: errors.ServiceUnavailable,
    grpc.StatusCode.CANCELLED: errors.ServiceUnavailable,
    grpc.StatusCode.UNIMPLEMENTED: errors.MethodNotAllowed,
}


def code_of(error: errors.ApiError) -> grpc.StatusCode:
    """The gRPC code of an error, or of the kind of error that it is one of."""
    return next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), grpc.StatusCode.INTERNAL)


def status_message(error: errors.ApiError) -> object_pb2.Status:
    """The error as a cutaway.v1.Status: the detail of a failed call, and a failed mutation's result in a Batch."""
    return object_pb2.Status(
        code=error.code, reason=error.reason, message=error.message, json=msgspec.json.encode(error.to_status())
    )


def error_of(status: object_pb2.Status) -> errors.ApiError:
    """The error that a cutaway.v1.Status says."""
    if status.json:
        try:
            return errors.from_status(msgspec.json.decode(status.json))
        except (msgspec.DecodeError, AttributeError, TypeError):
            pass  # The other fields say the essential again.
    return errors.from_status({"code": status.code, "reason": status.reason, "message": status.message})


def _details(error: errors.ApiError) -> bytes:
    message = status_message(error)
    if len(message.json) > _DETAILS_BYTES_MAX:
        # A thousand causes do not fit a trailer: send the first ones and cut the message, so that code and reason
        # arrive.
        cut = type(error)(
            error.message[:_MESSAGE_CHARS_MAX], group=error.group, resource=error.resource, name=error.name,
            causes=[errors.Cause(c.reason, c.message[:256], c.field[:256]) for c in error.causes[:32]],
            retry_after_seconds=error.retry_after_seconds,
        )  # fmt: skip
        message = status_message(cut)
    rich = status_pb2.Status(code=code_of(error).value[0], message=error.message[:_MESSAGE_CHARS_MAX])
    rich.details.add().Pack(message)
    return bytes(rich.SerializeToString())


async def abort(context: Any, error: errors.ApiError) -> NoReturn:
    """End a call with this error."""
    await context.abort(code_of(error), error.message[:_MESSAGE_CHARS_MAX], ((DETAILS_KEY, _details(error)),))
    raise AssertionError("abort returned")


def from_rpc_error(error: grpc.RpcError) -> errors.ApiError:
    """The error that a failed call means."""
    code = error.code()
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY:
            found = _unpack(value)
            if found is not None:
                return found
    message = error.details() or code.name
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in message:
        return errors.RequestTooLarge(message)
    return _ERRORS.get(code, errors.InternalError)(message)


def _unpack(details: bytes) -> errors.ApiError | None:
    rich = status_pb2.Status.FromString(details)
    status = object_pb2.Status()
    return error_of(status) if any(detail.Unpack(status) for detail in rich.details) else None
