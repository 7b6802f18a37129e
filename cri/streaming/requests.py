"""Exec, Attach and PortForward answer with a URL; the request waits here, under a token, for who fetches it.

A token is 128 random bits, good once and for a minute, and the listener is on the node's own address: the URL is the
permission. The number that waits is bounded.
"""

import secrets
import time
from typing import Generic, TypeVar

from cri_api.v1 import api_pb2 as cri

from cri.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable
from cri.runtime import Runtime

TOKEN_SECONDS = 60.0
_WAITING_MAX = 1000

T = TypeVar("T")


class Waiting(Generic[T]):
    """Requests by token."""

    def __init__(self, seconds: float = TOKEN_SECONDS) -> None:
        self._seconds = seconds
        self._requests: dict[str, tuple[float, T]] = {}

    def add(self, request: T, at: float | None = None) -> str:
        moment = time.monotonic() if at is None else at
        for token in [token for token, (until, _) in self._requests.items() if until < moment]:
            del self._requests[token]
        if len(self._requests) >= _WAITING_MAX:
            raise ResourceExhausted(f"{_WAITING_MAX} streaming requests wait to be fetched: try again in a minute")
        token = secrets.token_urlsafe(16)
        self._requests[token] = (moment + self._seconds, request)
        return token

    def take(self, token: str, at: float | None = None) -> T | None:
        """The request, which no one else gets after this."""
        until, request = self._requests.pop(token, (0.0, None))
        return request if request is not None and until >= (time.monotonic() if at is None else at) else None


def exec_url(runtime: Runtime, request: cri.ExecRequest) -> cri.ExecResponse:
    _check_streams(request.tty, request.stdin, request.stdout, request.stderr)
    if not request.cmd:
        raise InvalidArgument("cmd: an empty command")
    _check_running(runtime, request.container_id)
    return cri.ExecResponse(url=_url(runtime, "exec", request))


def attach_url(runtime: Runtime, request: cri.AttachRequest) -> cri.AttachResponse:
    _check_streams(request.tty, request.stdin, request.stdout, request.stderr)
    _check_running(runtime, request.container_id)
    return cri.AttachResponse(url=_url(runtime, "attach", request))


def port_forward_url(runtime: Runtime, request: cri.PortForwardRequest) -> cri.PortForwardResponse:
    sandbox = runtime.store.sandboxes.get(request.pod_sandbox_id)
    if not sandbox.ready:
        raise FailedPrecondition(f"sandbox {sandbox.id} is not ready")
    return cri.PortForwardResponse(url=_url(runtime, "portforward", request))


def _check_streams(tty: bool, stdin: bool, stdout: bool, stderr: bool) -> None:
    if not (stdin or stdout or stderr):
        raise InvalidArgument("one of stdin, stdout and stderr must be asked for")
    if tty and stderr:
        raise InvalidArgument("tty and stderr exclude each other: a terminal has one output")


def _check_running(runtime: Runtime, container_id: str) -> None:
    container = runtime.store.containers.get(container_id)
    if container.state != cri.CONTAINER_RUNNING:
        name = cri.ContainerState.Name(container.state)
        raise FailedPrecondition(f"container {container.id} is in state {name}, not running")


def _url(runtime: Runtime, verb: str, request: cri.ExecRequest | cri.AttachRequest | cri.PortForwardRequest) -> str:
    if runtime.streaming is None:
        raise Unavailable("the streaming server does not run")
    return f"{runtime.streaming.base_url}/{verb}/{runtime.streaming.waiting.add(request)}"
