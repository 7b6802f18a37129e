"""Who may call this kubelet: members of `system:masters`, and whom the apiserver lets at this node's subresources."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from machinery.api import errors, kinds
from machinery.client.api_client import ApiClient
from machinery.component import logs
from machinery.component.tls import Identity

log = logs.get("kubelet")

_ALLOWED_SECONDS = 300.0  # upstream's cache times for delegated authorization
_REFUSED_SECONDS = 30.0
_TOKEN_SECONDS = 120.0
_CACHE_MAX = 1000


# Paths whose subresource is one of their own; who may do anything (`proxy`) may ask for these too.
_FINE = {"pods": "pods", "runningpods": "pods", "healthz": "healthz", "configz": "configz"}
# Paths that another subresource than `proxy` is about.
_COARSE = {"stats": "stats", "metrics": "metrics", "logs": "log", "checkpoint": "checkpoint"}


def subresources(path: str) -> tuple[str, ...]:
    """The subresources of the node of which a caller needs one for this path (upstream's KubeletFineGrainedAuthz)."""
    first = path.strip("/").partition("/")[0]
    coarse = _COARSE.get(first, "proxy")
    return (_FINE[first], coarse) if first in _FINE else (coarse,)


class _Cache:
    """Answers that are believed for a while; the oldest go when there are too many."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: OrderedDict[Any, tuple[float, Any]] = OrderedDict()

    def get(self, key: Any) -> Any:
        until, value = self._entries.get(key, (0.0, None))
        return value if until > self._clock() else None

    def put(self, key: Any, value: Any, seconds: float) -> None:
        self._entries[key] = (self._clock() + seconds, value)
        self._entries.move_to_end(key)
        if len(self._entries) > _CACHE_MAX:
            self._entries.popitem(last=False)


class Access:
    """Delegated authentication (TokenReview) and authorization (SubjectAccessReview)."""

    def __init__(self, client: ApiClient, node: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._node = node
        self._verdicts = _Cache(clock)
        self._tokens = _Cache(clock)

    async def of_token(self, token: str) -> Identity | None:
        """Whose token it is; None if it is nobody's."""
        key = hashlib.sha256(token.encode()).digest()
        known = self._tokens.get(key)
        if known is not None:
            return known
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        answer = await self._client.create(kinds.TOKEN_REVIEW, review)
        status = answer.status
        if not status or not status.authenticated or not status.user:
            return None
        identity = Identity(status.user.username or "", tuple(status.user.groups or ()))
        self._tokens.put(key, identity, _TOKEN_SECONDS)
        return identity

    async def refusal(self, identity: Identity, verb: str, subresource: str) -> str | None:
        """Why the caller may not do this to `nodes/<subresource>` of this node; None if it may."""
        if identity.is_master:
            return None
        key = (identity.name, identity.groups, verb, subresource)
        known = self._verdicts.get(key)
        if known is not None:
            return known or None
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": identity.name,
                "groups": list(identity.groups),
                "resourceAttributes": {
                    "verb": verb, "version": "v1", "resource": "nodes", "subresource": subresource, "name": self._node,
                },
            },
        }  # fmt: skip
        answer = await self._client.create(kinds.SUBJECT_ACCESS_REVIEW, review)
        allowed = bool(answer.status and answer.status.allowed)
        why = "" if allowed else f"may not {verb} nodes/{subresource} of node {self._node}"
        self._verdicts.put(key, why, _ALLOWED_SECONDS if allowed else _REFUSED_SECONDS)
        return why or None

    async def refusal_of_all(self, identity: Identity, verb: str, subresources: Iterable[str]) -> str | None:
        """Why the caller may do this to none of them; None if to one it may."""
        why = None
        for subresource in subresources:
            found = await self.refusal(identity, verb, subresource)
            if found is None:
                return None
            why = why or found
        return why

    async def of_call(self, identity: Identity, method: str) -> str | None:
        """The same for a call of the Kubelet service: looking at usage is less than running commands."""
        name = method.rpartition("/")[2]
        verb, subresource = {"Stats": ("get", "stats"), "ListPods": ("get", "pods")}.get(name, ("create", "proxy"))
        try:
            return await self.refusal(identity, verb, subresource)
        except errors.ApiError as error:
            log.warning("a caller could not be judged", user=identity.name, error=str(error))
            return "the apiserver could not be asked"
