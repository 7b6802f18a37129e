"""The past of one object: each retained version with who wrote it, when, and which fields changed.

The apiserver's log knows who asked for each write and when, deletions too, and earlier objects of the same name.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from lab import admin
from lab.cluster import Cluster
from lab.errors import LabError
from machinery.api import errors
from machinery.client.channels import Channels
from machinery.component import grpc_errors
from machinery.component.tls import TlsFiles
from protos.cutaway.v1 import apiserver_pb2, apiserver_pb2_grpc, object_pb2

ASK_SECONDS = 10.0
ASK_VERSIONS_MAX = 1000
COMPACT_SECONDS = 600.0
# What changes with every write and says nothing about it.
_SILENT = frozenset({"metadata.resourceVersion", "metadata.managedFields", "metadata.generation"})
# A value longer than this is shortened on screen.
VALUE_CHARACTERS_MAX = 60
_ABSENT = object()
# In place of what a Secret holds: these lines end up in terminals, logs and tickets.
HIDDEN = "***"
_APPLIED = 'metadata.annotations["kubectl.kubernetes.io/last-applied-configuration"]'


@dataclass(frozen=True, slots=True)
class Change:
    """One field of an object. `old` or `new` is None where it was not there."""

    path: str
    old: Any
    new: Any

    def __str__(self) -> str:
        if self.old is None:
            return f"+ {self.path} = {_short(self.new)}"
        if self.new is None:
            return f"- {self.path} (was {_short(self.old)})"
        return f"~ {self.path}: {_short(self.old)} -> {_short(self.new)}"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object, and how it differs from the one before it."""

    revision: int
    # Who asked for it, as RBAC judged them; empty where the log does not say.
    user: str
    # The program, as its entry in managedFields says; empty where there is none.
    manager: str
    time: str
    # None: what was before it is not retained.
    changes: tuple[Change, ...] | None
    created: bool = False
    deleted: bool = False

    @property
    def how(self) -> str:
        """What the write did, in words."""
        if self.deleted:
            return "deleted"
        if self.created:
            return "created"
        if self.changes is None:
            return "changed; what was before is not retained"
        return f"{len(self.changes)} field{'s' * (len(self.changes) != 1)}"


# --- pure -----------------------------------------------------------------------------------------------------------


def difference(old: dict[str, Any], new: dict[str, Any]) -> tuple[Change, ...]:
    """Which fields differ, by path, leaf by leaf. What every write changes is left out; of a Secret's values it is said
    that they differ, and no more."""
    found = (change for change in _differences(old, new, "") if change.path not in _SILENT)
    if "Secret" in (old.get("kind"), new.get("kind")):
        found = map(_hidden, found)
    return tuple(found)


def _hidden(change: Change) -> Change:
    # `data` and the annotations may come as a whole; among these kubectl keeps a copy of what was applied.
    field = change.path.partition(".")[0].partition("[")[0]
    if field not in ("data", "stringData") and change.path not in (_APPLIED, "metadata.annotations"):
        return change
    return Change(change.path, *(None if value is None else HIDDEN for value in (change.old, change.new)))


def _differences(old: Any, new: Any, path: str) -> Iterator[Change]:
    if path in _SILENT or old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _member(old.get(key, _ABSENT), new.get(key, _ABSENT), _joined(path, key))
    elif isinstance(old, list) and isinstance(new, list):
        yield from _list_differences(old, new, path)
    else:
        yield Change(path, old, new)


def _member(old: Any, new: Any, path: str) -> Iterator[Change]:
    if old is _ABSENT:
        yield Change(path, None, new)
    elif new is _ABSENT:
        yield Change(path, old, None)
    else:
        yield from _differences(old, new, path)


def _list_differences(old: list[Any], new: list[Any], path: str) -> Iterator[Change]:
    """Items with a name or a type are told apart by it, as people do; others by their place."""
    key = next((k for k in ("name", "type") if all(isinstance(i, dict) and k in i for i in (*old, *new))), None)
    if key is None or len({item[key] for item in old}) != len(old) or len({item[key] for item in new}) != len(new):
        pairs: dict[Any, list[Any]] = {index: [item, _ABSENT] for index, item in enumerate(old)}
        by_key = dict(enumerate(new))
    else:
        pairs = {item[key]: [item, _ABSENT] for item in old}
        by_key = {item[key]: item for item in new}
    for name, item in by_key.items():
        pairs.setdefault(name, [_ABSENT, _ABSENT])[1] = item
    for name, (before, after) in pairs.items():
        yield from _member(before, after, f"{path}[{name}]")


def _joined(path: str, key: str) -> str:
    # A key with dots or slashes (an annotation's name) is not a path of its own.
    step = key if key.replace("-", "").replace("_", "").isalnum() else f'["{key}"]'
    return f"{path}{step}" if step.startswith("[") or not path else f"{path}.{step}"


def manager_of(obj: dict[str, Any], previous: dict[str, Any] | None) -> str:
    """The program that made this version: the entry of managedFields that the one before it does not have."""
    entries = obj["metadata"].get("managedFields") or []
    before = (previous or {}).get("metadata", {}).get("managedFields") or []
    fresh = [entry for entry in entries if entry not in before]
    newest: dict[str, Any] = max(fresh, key=lambda entry: str(entry.get("time", "")), default={})
    return str(newest.get("manager", ""))


def versions(found: Sequence[apiserver_pb2.Version]) -> list[Version]:
    """Each write (newest first) with what it changed."""
    states: list[dict[str, Any]] = [json.loads(version.object.json) for version in found]
    out = []
    for index, (version, state) in enumerate(zip(found, states, strict=True)):
        created = version.kind == apiserver_pb2.Version.CREATED
        deleted = version.kind == apiserver_pb2.Version.DELETED
        previous = states[index + 1] if index + 1 < len(states) and not created else None
        changes = difference(previous, state) if previous is not None and not deleted else None
        manager = "" if deleted else manager_of(state, previous)
        out.append(
            Version(version.object.revision, version.user, manager, _when(version.time), changes, created, deleted)
        )
    return out


def _when(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else ""


def _short(value: Any) -> str:
    if value is HIDDEN:
        return HIDDEN
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= VALUE_CHARACTERS_MAX else f"{text[: VALUE_CHARACTERS_MAX - 1]}…"


def rendered(found: list[Version]) -> list[str]:
    """As lines for a person, newest first."""
    lines = []
    for version in found:
        by = version.user or version.manager or "-"
        if version.user and version.manager:
            by = f"{version.user}, {version.manager}"
        lines.append(f"{version.revision:>8}  {version.time or '-':<20}  {by}  ({version.how})")
        lines += [f"          {change}" for change in version.changes or ()]
    return lines


# --- asking ---------------------------------------------------------------------------------------------------------


class Past:
    """Reads objects as of revisions, as the administrator."""

    def __init__(self, cluster: Cluster) -> None:
        mine = admin.identity(cluster)
        tls = TlsFiles(ca_file=str(mine.ca_file), cert_file=str(mine.cert_file), key_file=str(mine.key_file))
        addresses = [f"127.0.0.1:{cluster.grpc_port(index)}" for index in range(cluster.masters)]
        self._channels = Channels(addresses, tls, "cutaway", apiserver_pb2_grpc.ApiServerStub)

    async def close(self) -> None:
        await self._channels.close()

    async def resource(self, word: str) -> tuple[object_pb2.ResourceRef, bool]:
        """The resource that a person means by "pod", "po", "deployments.apps", and whether it has namespaces. Raises
        LabError."""
        wanted = word.lower()
        served = await self._channels.call("Discover", apiserver_pb2.DiscoverRequest(), ASK_SECONDS, safe=True)
        for found in served.resources:
            plural = found.resource.resource
            if wanted in (plural, found.singular, found.kind.lower(), f"{plural}.{found.resource.group}") or (
                wanted in found.short_names
            ):
                return found.resource, found.namespaced
        raise LabError(
            f"the server doesn't have a resource type {word!r}", "`cutaway kubectl api-resources` lists them"
        )

    async def at(
        self, resource: object_pb2.ResourceRef, namespace: str, name: str, revision: int = 0
    ) -> dict[str, Any]:
        """The object now, or as of a revision. Raises NotFound, Expired."""
        request = apiserver_pb2.GetRequest(resource=resource, namespace=namespace, name=name, at_revision=revision)
        answer = await self._channels.call("Get", request, ASK_SECONDS, safe=True)
        decoded: dict[str, Any] = json.loads(answer.json)
        return decoded

    async def every_resource(self) -> list[apiserver_pb2.ServedResource]:
        """Whatever can be listed and has a past worth looking at."""
        served = await self._channels.call("Discover", apiserver_pb2.DiscoverRequest(), ASK_SECONDS, safe=True)
        found: dict[tuple[str, str], apiserver_pb2.ServedResource] = {}
        for resource in served.resources:
            ref = resource.resource
            if "list" in resource.verbs and ref.resource not in ("events", "leases"):
                found.setdefault((ref.group, ref.resource), resource)
        return list(found.values())

    async def state(self, resources: list[apiserver_pb2.ServedResource], revision: int) -> dict[str, bytes]:
        """Every object's JSON as of a revision (0: now), by "resource.group namespace/name"."""
        out: dict[str, bytes] = {}
        for resource in resources:
            ref = resource.resource
            plural = f"{ref.resource}.{ref.group}" if ref.group else ref.resource
            request = apiserver_pb2.ListRequest(resource=ref, at_revision=revision)
            try:
                async for chunk in self._channels.stub.List(request, timeout=COMPACT_SECONDS):
                    for item in chunk.items:
                        place = f"{item.namespace}/{item.name}" if item.namespace else item.name
                        out[f"{plural} {place}"] = item.json
            except grpc.RpcError as error:
                raise grpc_errors.from_rpc_error(error) from error
        return out

    async def compact(self, revision: int) -> apiserver_pb2.CompactResponse:
        """Forget history before a revision (0: the newest). Raises ApiError."""
        request = apiserver_pb2.CompactRequest(revision=revision)
        answer: apiserver_pb2.CompactResponse = await self._channels.call(
            "Compact", request, COMPACT_SECONDS, safe=True
        )
        return answer

    async def versions(
        self, resource: object_pb2.ResourceRef, namespace: str, name: str, *, limit: int, before: int = 0
    ) -> list[apiserver_pb2.Version]:
        """At most `limit` writes, newest first, of those up to revision `before` (0: now).

        Raises NotFound if the log has none.
        """
        found: list[apiserver_pb2.Version] = []
        while len(found) < limit:
            request = apiserver_pb2.HistoryRequest(
                resource=resource, namespace=namespace, name=name, at_revision=before,
                limit=min(limit - len(found), ASK_VERSIONS_MAX),
            )  # fmt: skip
            try:
                answer = await self._channels.call("History", request, ASK_SECONDS, safe=True)
            except errors.NotFound:
                if not found:
                    raise
                break
            found += answer.versions
            before = found[-1].object.revision - 1
            if before < 1:
                break
        return found


def split_target(target: str) -> tuple[str, str]:
    """KIND and NAME of "KIND/NAME". Raises LabError."""
    kind, slash, name = target.partition("/")
    if not slash or not kind or not name:
        raise LabError(f"{target!r} names no object", "KIND/NAME, as in deployment/web")
    return kind, name


async def history(cluster: Cluster, target: str, namespace: str, *, limit: int, before: int = 0) -> list[Version]:
    """The retained versions of an object, newest first. Raises LabError."""
    kind, name = split_target(target)
    past = Past(cluster)
    try:
        resource, namespaced = await past.resource(kind)
        namespace = namespace if namespaced else ""
        # One more than asked for, so that the last one shown can say what it changed.
        found = await past.versions(resource, namespace, name, limit=limit + 1, before=before)
    except errors.ApiError as error:
        hint = "how far back the past is kept: `history_seconds`" if isinstance(error, errors.NotFound) else ""
        raise LabError(error.message, hint) from error
    finally:
        await past.close()
    return versions(found)[:limit]


async def compact(cluster: Cluster, before: int) -> tuple[int, int]:
    """Forget history; where it begins now, and how many log entries went. Raises LabError."""
    past = Past(cluster)
    try:
        answer = await past.compact(before)
    except errors.ApiError as error:
        raise LabError(error.message) from error
    finally:
        await past.close()
    return answer.revision, answer.removed


@dataclass(frozen=True, slots=True)
class Difference:
    """What became of one object between two revisions. `changes` is None if it came or went."""

    what: str
    sign: str
    changes: tuple[Change, ...] | None

    def __str__(self) -> str:
        if self.changes is None:
            return f"{self.sign} {self.what}"
        return "\n".join([f"{self.sign} {self.what}", *(f"    {change}" for change in self.changes)])


def compared(older: dict[str, bytes], newer: dict[str, bytes]) -> list[Difference]:
    """Two states, each the objects' JSON by name, sorted by name."""
    out = []
    for what in sorted(older.keys() | newer.keys()):
        old, new = older.get(what), newer.get(what)
        if old is None or new is None:
            out.append(Difference(what, "+" if old is None else "-", None))
        elif old != new and (changes := difference(json.loads(old), json.loads(new))):
            out.append(Difference(what, "~", changes))
    return out


async def diff_all(cluster: Cluster, older: int, newer: int) -> list[Difference]:
    """What came, went and changed in the whole cluster between two revisions; without Events and Leases, whose past is
    not kept. Raises LabError."""
    past = Past(cluster)
    try:
        # One group serves each object under each of its versions; the first that is found is as good as any.
        resources = await past.every_resource()
        states = [await past.state(resources, revision) for revision in (older, newer)]
    except errors.ApiError as error:
        raise LabError(error.message, "`cutaway history` lists the revisions of an object") from error
    finally:
        await past.close()
    return compared(*states)


async def diff(cluster: Cluster, target: str, namespace: str, older: int, newer: int) -> tuple[Change, ...]:
    """What changed in an object between two revisions. Raises LabError."""
    kind, name = split_target(target)
    past = Past(cluster)
    try:
        resource, namespaced = await past.resource(kind)
        namespace = namespace if namespaced else ""
        old = await past.at(resource, namespace, name, older)
        new = await past.at(resource, namespace, name, newer)
    except errors.ApiError as error:
        raise LabError(error.message, "`cutaway history` lists the revisions") from error
    finally:
        await past.close()
    return difference(old, new)
