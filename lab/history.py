"""The past of one object: each retained version with who wrote it, when, and which fields changed.

The apiserver's log knows who asked for each write and when, deletions too, and earlier objects of the same name.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from lab import admin
from lab.cluster import Cluster
from lab.difference import Change, Difference, compared, difference
from lab.errors import LabError
from machinery.api import errors
from machinery.client.channels import Channels
from machinery.component import grpc_errors
from machinery.component.tls import TlsFiles
from protos.cutaway.v1 import apiserver_pb2, apiserver_pb2_grpc, object_pb2

ASK_SECONDS = 10.0
ASK_VERSIONS_MAX = 1000
COMPACT_SECONDS = 600.0


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
    def only_status(self) -> bool:
        """Whether all that it changed is what components say about the object, and nothing that anybody asked for."""
        return bool(self.changes) and all(change.path.startswith("status") for change in self.changes or ())

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


async def history(
    cluster: Cluster, target: str, namespace: str, *, limit: int, before: int = 0, status: bool = True
) -> list[Version]:
    """The retained versions of an object, newest first; without those that changed its status only, if not `status`.
    Raises LabError."""
    kind, name = split_target(target)
    past = Past(cluster)
    try:
        resource, namespaced = await past.resource(kind)
        namespace = namespace if namespaced else ""
        # One more than asked for, so that the last one shown can say what it changed.
        most = limit + 1 if status else ASK_VERSIONS_MAX
        found = versions(await past.versions(resource, namespace, name, limit=most, before=before))
    except errors.NotFound as error:
        where = f" in namespace {namespace}" if namespace else ""
        raise LabError(
            f"{target}{where} has no history", "it never was there, or longer ago than the past is kept"
        ) from error
    except errors.ApiError as error:
        raise LabError(error.message) from error
    finally:
        await past.close()
    return [version for version in found if status or not version.only_status][:limit]


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
