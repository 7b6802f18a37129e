"""What can go wrong in the runtime, as types.

    CriError
    ├── NotFound            no such sandbox, container, image, or content
    ├── AlreadyExists       the name is taken
    ├── InvalidArgument     the request contradicts itself or names what can't be
    ├── FailedPrecondition  right request, wrong state (start of a running container)
    ├── DeadlineExceeded    a command or a stop took longer than asked
    ├── ResourceExhausted   a bound of ours was reached
    ├── PermissionDenied    a registry said no
    ├── Unimplemented       a thing this runtime does not do
    ├── Unavailable         containerd, a registry or a plugin does not answer: try again
    └── Internal            everything else, with its cause in the message

Each carries the gRPC status that the CRI client sees. containerd's own errors are translated in
`containerd_client`, system errors where they happen.
"""

import grpc


class CriError(Exception):
    """A failure that a CRI client is told of."""

    code = grpc.StatusCode.UNKNOWN

    @property
    def message(self) -> str:
        return str(self)


class NotFound(CriError):
    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(CriError):
    code = grpc.StatusCode.ALREADY_EXISTS


class InvalidArgument(CriError):
    code = grpc.StatusCode.INVALID_ARGUMENT


class FailedPrecondition(CriError):
    code = grpc.StatusCode.FAILED_PRECONDITION


class DeadlineExceeded(CriError):
    code = grpc.StatusCode.DEADLINE_EXCEEDED


class ResourceExhausted(CriError):
    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class PermissionDenied(CriError):
    code = grpc.StatusCode.PERMISSION_DENIED


class Unimplemented(CriError):
    code = grpc.StatusCode.UNIMPLEMENTED


class Unavailable(CriError):
    code = grpc.StatusCode.UNAVAILABLE


class Internal(CriError):
    code = grpc.StatusCode.INTERNAL


_BY_CODE: dict[grpc.StatusCode, type[CriError]] = {
    cls.code: cls
    for cls in (
        NotFound,
        AlreadyExists,
        InvalidArgument,
        FailedPrecondition,
        DeadlineExceeded,
        ResourceExhausted,
        PermissionDenied,
        Unimplemented,
        Unavailable,
    )
}


def from_grpc(error: grpc.aio.AioRpcError, doing: str) -> CriError:
    """containerd's error as one of ours; `doing` says what was asked of it."""
    cls = _BY_CODE.get(error.code(), Internal)
    return cls(f"{doing}: {error.details() or error.code().name}")
