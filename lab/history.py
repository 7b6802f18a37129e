"""The past of one object: each retained version with who wrote it, when, and which fields changed.

The apiserver answers any retained revision, and every version names its own revision; so the way back is one read a
version: as it is now, as it was just before that, and so on until the object's creation or the end of what is retained.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lab import admin
from lab.cluster import Cluster
from lab.errors import LabError
from machinery.api import errors
from machinery.client.channels import Channels
from machinery.component.tls import TlsFiles
from protos.cutaway.v1 import apiserver_pb2, apiserver_pb2_grpc, object_pb2

ASK_SECONDS = 10.0
# What changes with every write and says nothing about it.
_SILENT = frozenset({"metadata.resourceVersion", "metadata.managedFields", "metadata.generation"})
# A value longer than this is shortened on screen.
VALUE_CHARACTERS_MAX = 60
_ABSENT = object()


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
    # As its writer's entry in managedFields says; empty where there is none.
    manager: str
    time: str
    changes: tuple[Change, ...]
    # The oldest retained one: what was before is unknown, or there was nothing.
    created: bool = False


# --- pure -----------------------------------------------------------------------------------------------------------


def difference(old: dict[str, Any], new: dict[str, Any]) -> tuple[Change, ...]:
    """Which fields differ, by path, leaf by leaf. What every write changes is left out."""
    return tuple(change for change in _differences(old, new, "") if change.path not in _SILENT)


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


def writer_of(obj: dict[str, Any], previous: dict[str, Any] | None) -> tuple[str, str]:
    """Manager and time of the write that made this version: the entry that the one before it does not have."""
    entries = obj["metadata"].get("managedFields") or []
    before = (previous or {}).get("metadata", {}).get("managedFields") or []
    fresh = [entry for entry in entries if entry not in before] or entries
    newest = max(fresh, key=lambda entry: entry.get("time", ""), default={})
    manager, time = newest.get("manager", ""), newest.get("time", "")
    if previous is None:
        return manager, obj["metadata"].get("creationTimestamp") or time
    return manager, time


def versions(states: list[dict[str, Any]], *, complete: bool) -> list[Version]:
    """Each state (newest first) with what it changed. `complete`: the last one is the object's creation."""
    out = []
    for index, state in enumerate(states):
        previous = states[index + 1] if index + 1 < len(states) else None
        manager, time = writer_of(state, previous)
        changes = difference(previous, state) if previous is not None else ()
        created = previous is None and complete
        out.append(Version(int(state["metadata"]["resourceVersion"]), manager, time, changes, created))
    return out


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= VALUE_CHARACTERS_MAX else f"{text[: VALUE_CHARACTERS_MAX - 1]}…"


def rendered(found: list[Version]) -> list[str]:
    """As lines for a person, newest first."""
    lines = []
    for version in found:
        count = len(version.changes)
        how = "created" if version.created else f"{count} field{'s' * (count != 1)}"
        lines.append(f"{version.revision:>8}  {version.time or '-':<20}  {version.manager or '-'}  ({how})")
        lines += [f"          {change}" for change in version.changes]
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

    async def states(
        self, resource: object_pb2.ResourceRef, namespace: str, name: str, *, limit: int, before: int = 0
    ) -> tuple[list[dict[str, Any]], bool]:
        """The newest states (of before revision `before`), newest first, and whether the last one is the creation.

        Raises NotFound if there was no such object at that time.
        """
        found = [await self.at(resource, namespace, name, before)]
        # One more than asked for, so that the last one shown can say what it changed.
        while len(found) <= limit:
            revision = int(found[-1]["metadata"]["resourceVersion"])
            try:
                older = await self.at(resource, namespace, name, revision - 1) if revision > 1 else None
            except errors.NotFound:
                older = None
            except errors.Expired:
                return found, False
            # Another object of the same name is another history.
            if older is None or older["metadata"]["uid"] != found[0]["metadata"]["uid"]:
                return found, True
            found.append(older)
        return found, False


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
        states, complete = await past.states(resource, namespace, name, limit=limit, before=before)
    except errors.ApiError as error:
        hint = "--before REVISION looks at a deleted object's past" if isinstance(error, errors.NotFound) else ""
        raise LabError(error.message, hint) from error
    finally:
        await past.close()
    return versions(states, complete=complete)[:limit]


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
