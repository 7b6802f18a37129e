"""How many requests may be under way at once, so that too many clients can't take the server down.

As upstream's flow control does without configuration: 400 reads and 200 writes for everyone together; beyond that
429 with Retry-After. What keeps the cluster alive is not counted: health checks, the nodes' and leaders' own
requests, and administrators'.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from machinery.api import errors
from services.apiserver.auth.node import NODES_GROUP
from services.apiserver.auth.rbac import MASTERS_GROUP
from services.apiserver.rest.context import Call

READS_MAX = 400
WRITES_MAX = 200
RETRY_AFTER_SECONDS = 1

_READS = frozenset({"get", "list"})
# Watches and streams last; counting them would let idle watchers block everyone. Their number is bounded by
# connections.
_LONG_RUNNING = frozenset({"watch", "proxy"})
_STREAMS = frozenset({"log", "exec", "attach", "portforward", "proxy"})
_EXEMPT_GROUPS = frozenset({MASTERS_GROUP, NODES_GROUP})
_EXEMPT_USERS = frozenset({"system:kube-scheduler", "system:kube-controller-manager", "system:kube-proxy"})


class FlowControl:
    """Counts what is under way."""

    def __init__(self, reads_max: int = READS_MAX, writes_max: int = WRITES_MAX) -> None:
        self.reads_max = reads_max
        self.writes_max = writes_max
        self.reads = 0
        self.writes = 0

    async def run(self, call: Call, answer: Callable[[Call], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        """Answer the call if there is room for it. Raises TooManyRequests."""
        info = call.info
        if info.verb in _LONG_RUNNING or info.subresource in _STREAMS or not info.is_resource or _exempt(call):
            return await answer(call)
        if info.verb in _READS:
            if self.reads >= self.reads_max:
                raise _too_many()
            self.reads += 1
            try:
                return await answer(call)
            finally:
                self.reads -= 1
        if self.writes >= self.writes_max:
            raise _too_many()
        self.writes += 1
        try:
            return await answer(call)
        finally:
            self.writes -= 1


def _exempt(call: Call) -> bool:
    user = call.user
    return user.name in _EXEMPT_USERS or not _EXEMPT_GROUPS.isdisjoint(user.groups)


def _too_many() -> errors.TooManyRequests:
    return errors.TooManyRequests("too many requests, please try again later", retry_after_seconds=RETRY_AFTER_SECONDS)
