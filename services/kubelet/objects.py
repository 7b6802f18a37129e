"""The API objects that pods refer to: config maps, secrets, claims, tokens. Fetched when first asked for, then kept
fresh by a watch.

A watch on a single object lives as long as some pod of this node uses it; a change wakes those pods, so that their
volumes follow at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lightkube.models import core_v1

from machinery.api import errors, kinds
from machinery.api.kinds import Kind
from machinery.client.api_client import ApiClient
from machinery.client.informer import Informer
from machinery.component import logs

log = logs.get("kubelet")

_TOKEN_SECONDS = 3607  # what upstream asks for when a projection names no period
Key = tuple[Kind, str, str]


@dataclass(slots=True)
class _Followed:
    users: set[str] = field(default_factory=set)
    informer: Informer[Any] | None = None
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Token:
    value: str
    renew_at: float


class Objects:
    """Config maps, secrets and the like, by name. `users` are pod uids."""

    def __init__(
        self,
        client: ApiClient,
        tasks: asyncio.TaskGroup,
        *,
        wake: Callable[[str], None] = lambda _uid: None,
        follow: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._tasks = tasks
        self._wake = wake
        self._follow = follow
        self._clock = clock
        self._followed: dict[Key, _Followed] = {}
        self._tokens: dict[tuple[str, str, int], _Token] = {}

    async def config_map(self, namespace: str, name: str, user: str = "") -> core_v1.ConfigMap | None:
        return await self.get(kinds.CONFIG_MAP, namespace, name, user)

    async def secret(self, namespace: str, name: str, user: str = "") -> core_v1.Secret | None:
        return await self.get(kinds.SECRET, namespace, name, user)

    async def get(self, kind: Kind, namespace: str, name: str, user: str = "") -> Any:
        """The object, or None if there is none. With a user, its later changes wake that pod."""
        followed = self._followed.get((kind, namespace, name))
        if user and self._follow:
            followed = self._start_following(kind, namespace, name, user)
        if followed is not None and followed.informer is not None and followed.informer.synced.is_set():
            found = followed.informer.lister.get(namespace, name)
            if found is not None:
                return found
        try:
            return await self._client.get(kind, name, namespace)
        except errors.NotFound:
            return None

    def release(self, user: str) -> None:
        """A pod is gone: stop following what only it used, and forget its tokens."""
        for key, followed in list(self._followed.items()):
            followed.users.discard(user)
            if not followed.users:
                del self._followed[key]
                if followed.task is not None:
                    followed.task.cancel()
        for token_key in [k for k in self._tokens if k[0] == user]:
            del self._tokens[token_key]

    def _start_following(self, kind: Kind, namespace: str, name: str, user: str) -> _Followed:
        key = (kind, namespace, name)
        followed = self._followed.get(key)
        if followed is None:
            followed = self._followed[key] = _Followed()
            informer: Informer[Any] = Informer(self._client, kind, namespace, field_selector=f"metadata.name={name}")
            informer.add_handler(lambda old, new: self._changed(key, old, new))
            followed.informer = informer
            followed.task = self._tasks.create_task(
                self._run(informer), name=f"follow {kind.plural} {namespace}/{name}"
            )
        followed.users.add(user)
        return followed

    async def _run(self, informer: Informer[Any]) -> None:
        try:
            await informer.run()
        except errors.ApiError as error:
            log.warning("following an object ended", error=str(error))

    def _changed(self, key: Key, old: Any, new: Any) -> None:
        followed = self._followed.get(key)
        if followed is None:
            return
        if old is None and new is not None and followed.informer is not None and not followed.informer.synced.is_set():
            return  # the state at the beginning of the watch is what the pod has just read
        for user in followed.users:
            self._wake(user)

    async def token(self, pod: core_v1.Pod, audience: str, seconds: int | None) -> str:
        """A token of the pod's service account, bound to the pod; renewed after four fifths of its life or a day."""
        wanted = seconds or _TOKEN_SECONDS
        key = (pod.metadata.uid or "", audience, wanted)
        cached = self._tokens.get(key)
        if cached is not None and self._clock() < cached.renew_at:
            return cached.value
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": wanted,
                "boundObjectRef": {
                    "apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid,
                },
            },
        }  # fmt: skip
        try:
            answer = await self._client.create(
                kinds.SERVICE_ACCOUNT,
                request,
                pod.metadata.namespace or "",
                name=pod.spec.serviceAccountName or "default",
                subresource="token",
            )
        except errors.ApiError:
            if cached is not None:
                return cached.value  # an old token is better than a dead volume while the apiserver is away
            raise
        status = answer["status"] if isinstance(answer, dict) else {"token": answer.status.token}
        lifetime = _lifetime(answer, wanted, self._clock())
        self._tokens[key] = _Token(status["token"], self._clock() + min(lifetime * 0.8, 24 * 3600))
        return status["token"]


def _lifetime(answer: Any, wanted: int, now: float) -> float:
    status = answer["status"] if isinstance(answer, dict) else None
    expires = status.get("expirationTimestamp") if status else getattr(answer.status, "expirationTimestamp", None)
    if isinstance(expires, str):
        expires = datetime.fromisoformat(expires.replace("Z", "+00:00"))
    return max(1.0, expires.timestamp() - now) if expires else float(wanted)
