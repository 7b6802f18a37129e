"""Sends pod statuses to the apiserver: only what changed, many pods in one batch, the latest of each pod.

A status that is worth telling at once (ready, ended) leaves with the next batch; one that is likely to be overtaken
within a moment (`ContainerCreating` of a pod whose image is here) waits a little, and usually need not be sent at
all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from lightkube.models import core_v1

from machinery.api import errors, kinds
from machinery.client.api_client import ApiClient, Mutation, PatchType
from machinery.component import logs
from services.kubelet.status import OWNED_CONDITIONS

Json = dict[str, Any]
log = logs.get("kubelet")

BATCH_MAX = 200
LAZY_SECONDS = 0.25
RETRY_SECONDS = 1.0
_NOT_OURS = ("resourceClaimStatuses", "extendedResourceClaimStatus")


@dataclass(slots=True)
class _Entry:
    namespace: str
    name: str
    uid: str
    wanted: Json
    sent: Json
    due: float
    waiters: list[asyncio.Future[bool]] = field(default_factory=list)


def without_none(value: Any) -> Any:
    """The same without None members, at any depth."""
    if isinstance(value, dict):
        return {k: without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [without_none(v) for v in value]
    return value


def status_dict(pod: core_v1.Pod) -> Json:
    """The status that the apiserver has of a pod, but for what is not the kubelet's to say or to take away."""
    found: Json = without_none(msgspec.to_builtins(pod.status)) if pod.status else {}
    return {key: value for key, value in found.items() if key not in _NOT_OURS}


def patch_for(uid: str, sent: Json, wanted: Json) -> Json | None:
    """The strategic merge patch from one status to the other.

    None if they are equal. Conditions merge by type, as others write some.
    """
    changed: Json = {}
    for name in [*wanted, *(n for n in sent if n not in wanted)]:
        new, old = wanted.get(name), sent.get(name)
        if new == old:
            continue
        if name == "conditions":
            before = {c["type"]: c for c in old or ()}
            gone = before.keys() - {c["type"] for c in new or ()}
            # A member that is gone has to be named, or the merge keeps it.
            changed[name] = [
                {**dict.fromkeys(before.get(c["type"], {})), **c} for c in new or () if before.get(c["type"]) != c
            ]
            changed[name] += [{"type": kind, "$patch": "delete"} for kind in gone if kind in OWNED_CONDITIONS]
        elif name in ("podIPs", "hostIPs") and old and new is not None:
            changed[name] = [{"$patch": "replace"}, *new]
        else:
            changed[name] = new
    return {"metadata": {"uid": uid}, "status": changed} if changed else None


class StatusManager:
    """The statuses of this node's pods on their way to the apiserver. `run` it in a TaskGroup."""

    def __init__(self, client: ApiClient, gone: Callable[[str], None] = lambda _uid: None) -> None:
        self._client = client
        self._entries: dict[str, _Entry] = {}
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()
        self._gone = gone
        # The uid under which the apiserver knows a pod; None while it knows none (a static pod without its mirror).
        self.resolve: Callable[[str], str | None] = lambda uid: uid

    def submit(self, pod: core_v1.Pod, status: Json, *, api_status: Json, lazy: bool = False) -> asyncio.Future[bool]:
        """Make the status known. The future is true when the apiserver has it, false when the pod is gone there."""
        loop = asyncio.get_running_loop()
        uid = pod.metadata.uid or ""
        status = without_none(status)
        entry = self._entries.get(uid)
        if entry is None:
            entry = self._entries[uid] = _Entry(
                pod.metadata.namespace or "", pod.metadata.name or "", uid, status, api_status, 0.0
            )
        entry.wanted = status
        done: asyncio.Future[bool] = loop.create_future()
        if entry.sent == status:
            self._dirty.discard(uid)
            done.set_result(True)
            for waiter in entry.waiters:
                if not waiter.done():
                    waiter.set_result(True)
            entry.waiters.clear()
            return done
        due = loop.time() + (LAZY_SECONDS if lazy else 0.0)
        entry.due = min(entry.due, due) if uid in self._dirty else due
        entry.waiters.append(done)
        self._dirty.add(uid)
        self._wake.set()
        return done

    def sent(self, uid: str) -> Json | None:
        """What the apiserver was last told of a pod."""
        entry = self._entries.get(uid)
        return entry.sent if entry else None

    def resend(self, uid: str, api_status: Json) -> None:
        """The apiserver shows something else than it was told: tell it again."""
        entry = self._entries.get(uid)
        if entry is not None and uid not in self._dirty:
            entry.sent = api_status
            entry.due = 0.0
            self._dirty.add(uid)
            self._wake.set()

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        entry = self._entries.pop(uid, None)
        self._dirty.discard(uid)
        for waiter in entry.waiters if entry else ():
            if not waiter.done():
                waiter.set_result(False)

    async def run(self) -> None:
        """Send for ever."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            due = [uid for uid in self._dirty if self._entries[uid].due <= now][:BATCH_MAX]
            if due:
                await self._send(due)
                continue
            self._wake.clear()
            next_due = min((self._entries[uid].due for uid in self._dirty), default=None)
            try:
                async with asyncio.timeout(None if next_due is None else max(0.0, next_due - now)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _send(self, uids: list[str]) -> None:
        mutations, entries, waiters = [], [], []
        for uid in uids:
            self._dirty.discard(uid)
            entry = self._entries[uid]
            api_uid = self.resolve(uid)
            if api_uid is None:
                entry.due = asyncio.get_running_loop().time() + RETRY_SECONDS
                self._dirty.add(uid)
                continue
            patch = patch_for(api_uid, entry.sent, entry.wanted)
            taken, entry.waiters = entry.waiters, []
            if patch is None:
                _settle(taken, True)
                continue
            mutations.append(
                Mutation.patch(
                    kinds.POD, entry.name, entry.namespace, patch, type=PatchType.STRATEGIC, subresource="status"
                )
            )
            entries.append((entry, entry.wanted))
            waiters.append(taken)
        if not mutations:
            return
        try:
            results = await self._client.batch(mutations)
        except errors.ApiError as error:
            log.warning("statuses could not be sent, trying again", error=str(error))
            self._again([e for e, _ in entries], waiters)
            return
        for (entry, wanted), taken, result in zip(entries, waiters, results, strict=True):
            if result.error is None:
                entry.sent = wanted
                _settle(taken, True)
            elif isinstance(result.error, errors.NotFound | errors.Conflict):
                # Gone, or another pod of that name stands there now.
                _settle(taken, False)
                self._gone(entry.uid)
            elif isinstance(result.error, errors.Invalid | errors.BadRequest | errors.Forbidden):
                log.error(
                    "the apiserver refuses a status", pod=f"{entry.namespace}/{entry.name}", error=str(result.error)
                )
                _settle(taken, False)
            else:
                self._again([entry], [taken])

    def _again(self, entries: list[_Entry], waiters: list[list[asyncio.Future[bool]]]) -> None:
        due = asyncio.get_running_loop().time() + RETRY_SECONDS
        for entry, taken in zip(entries, waiters, strict=True):
            if self._entries.get(entry.uid) is not entry:
                _settle(taken, False)
                continue
            entry.waiters = [*taken, *entry.waiters]
            entry.due = due
            self._dirty.add(entry.uid)
        self._wake.set()


def _settle(waiters: list[asyncio.Future[bool]], value: bool) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(value)
