"""Static pods: manifests in a directory of this node, run without the apiserver, shown there by mirror pods.

A mirror is a read-only likeness: deleting it changes nothing on the node, and it comes back.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import yaml
from lightkube.models import core_v1

from machinery.api import errors, kinds
from machinery.api.objects import now_rfc3339
from machinery.client.api_client import ApiClient
from machinery.component import logs
from services.kubelet import pod_spec
from services.kubelet.inotify import DirectoryWatch
from services.kubelet.pods import Pods
from services.kubelet.status_manager import StatusManager

Json = dict[str, Any]
log = logs.get("kubelet")

_SETTLE_SECONDS = 0.05  # an editor writes a file in several steps
_RETRY_SECONDS = 1.0
_SUFFIXES = (".yaml", ".yml", ".json")


class BadManifest(Exception):
    """A file that is no pod; the words name the file and what is wrong."""


def read_manifests(directory: Path, node: str) -> tuple[dict[str, Json], list[str]]:
    """The static pods of a directory by uid, and what is wrong with the files that are none."""
    pods: dict[str, Json] = {}
    problems = []
    for path in sorted(directory.iterdir()):
        if path.name.startswith(".") or path.suffix not in _SUFFIXES or not path.is_file():
            continue
        try:
            pod = parse_manifest(path.read_bytes(), str(path), node)
        except (BadManifest, OSError) as error:
            problems.append(str(error))
            continue
        pods[pod["metadata"]["uid"]] = pod
    return pods, problems


def parse_manifest(raw: bytes, source: str, node: str) -> Json:
    """A manifest as the pod that this node runs.

    Named after the node, with an identity that follows from its content.
    """
    try:
        pod = yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise BadManifest(f"{source}: {' '.join(str(error).split())}") from error
    if not isinstance(pod, dict) or pod.get("kind") != "Pod":
        raise BadManifest(f"{source}: expected kind: Pod")
    metadata = pod.setdefault("metadata", {})
    if not metadata.get("name"):
        raise BadManifest(f"{source}: metadata.name is missing")
    uid = hashlib.sha256(raw + b"\0" + node.encode() + source.encode()).hexdigest()[:32]
    metadata["uid"] = metadata.get("uid") or uid
    metadata["name"] = f"{metadata['name']}-{node}".lower()
    metadata.setdefault("namespace", "default")
    annotations = metadata.setdefault("annotations", None) or {}
    annotations[pod_spec.HASH_ANNOTATION] = uid
    annotations[pod_spec.SOURCE_ANNOTATION] = "file"
    annotations["kubernetes.io/config.seen"] = now_rfc3339()
    metadata["annotations"] = annotations
    pod.setdefault("apiVersion", "v1")
    spec = pod.get("spec")
    if not isinstance(spec, dict) or not spec.get("containers"):
        raise BadManifest(f"{source}: spec.containers is missing")
    spec["nodeName"] = node
    spec.setdefault("tolerations", []).append({"operator": "Exists", "effect": "NoExecute"})
    try:
        msgspec.convert(pod, core_v1.Pod)
    except msgspec.ValidationError as error:
        raise BadManifest(f"{source}: {error}") from error
    return pod


class StaticPods:
    """Runs the manifests of a directory and keeps their mirrors. `run` it in a TaskGroup."""

    def __init__(self, directory: Path, node: str, client: ApiClient, pods: Pods, statuses: StatusManager) -> None:
        self._directory = directory
        self._node = node
        self._client = client
        self._pods = pods
        self._statuses = statuses
        self._manifests: dict[str, Json] = {}
        self._mirrors: dict[str, core_v1.Pod] = {}  # by namespace/name, as the apiserver has them
        self._wake = asyncio.Event()
        self._problems: list[str] = []
        statuses.resolve = self.api_uid

    def load(self) -> None:
        """Take the directory's present state."""
        found, problems = read_manifests(self._directory, self._node)
        for problem in problems:
            if problem not in self._problems:
                log.error("manifest is not a static pod", problem=problem)
        self._problems = problems
        for uid in self._manifests.keys() - found.keys():
            self._pods.remove_static(uid)
        for uid in found.keys() - self._manifests.keys():
            self._pods.put(msgspec.convert(found[uid], core_v1.Pod))
        self._manifests = found
        self._wake.set()

    def on_change(self, old: core_v1.Pod | None, new: core_v1.Pod | None) -> None:
        """A pod of this node changed at the apiserver; only mirrors matter here."""
        pod = new or old
        if pod is None or not pod_spec.is_mirror(pod):
            return
        if new is None:
            self._mirrors.pop(pod_spec.key(pod), None)
        else:
            self._mirrors[pod_spec.key(new)] = new
            uid = (new.metadata.annotations or {}).get(pod_spec.MIRROR_ANNOTATION, "")
            if old is None or old.metadata.uid != new.metadata.uid:
                self._statuses.resend(uid, {})
        self._wake.set()

    def api_uid(self, uid: str) -> str | None:
        """The uid under which the apiserver knows a pod.

        Its own, or its mirror's if it is static; None if that is not there.
        """
        manifest = self._manifests.get(uid)
        if manifest is None:
            return uid
        mirror = self._mirrors.get(_key(manifest))
        if mirror is None or _hash(mirror) != uid:
            return None
        return mirror.metadata.uid

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_directory(), name="static pods")
            tasks.create_task(self._keep_mirrors(), name="mirror pods")

    async def _follow_directory(self) -> None:
        with DirectoryWatch(str(self._directory)) as watch:
            self.load()
            while True:
                await watch.wait()
                await asyncio.sleep(_SETTLE_SECONDS)
                self.load()

    async def _keep_mirrors(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._reconcile()
            except errors.ApiError as error:
                log.warning("mirror pods could not be brought up to date, trying again", error=str(error))
                await asyncio.sleep(_RETRY_SECONDS)
                self._wake.set()

    async def _reconcile(self) -> None:
        wanted = {_key(pod): pod for pod in self._manifests.values()}
        for key, mirror in list(self._mirrors.items()):
            manifest = wanted.get(key)
            stale = manifest is None or _hash(mirror) != manifest["metadata"]["annotations"][pod_spec.HASH_ANNOTATION]
            if stale or mirror.metadata.deletionTimestamp is not None:
                await self._delete(mirror)
        for key, manifest in wanted.items():
            if key not in self._mirrors:
                await self._create(manifest)

    async def _delete(self, mirror: core_v1.Pod) -> None:
        try:
            await self._client.delete(
                kinds.POD,
                mirror.metadata.name or "",
                mirror.metadata.namespace or "",
                grace_period_seconds=0,
                uid=mirror.metadata.uid or "",
            )
        except errors.NotFound:
            return

    async def _create(self, manifest: Json) -> None:
        node = await self._client.get(kinds.NODE, self._node)
        metadata = dict(manifest["metadata"])
        uid = metadata.pop("uid")
        metadata["annotations"] = {**metadata["annotations"], pod_spec.MIRROR_ANNOTATION: uid}
        metadata["ownerReferences"] = [
            {"apiVersion": "v1", "kind": "Node", "name": self._node, "uid": node.metadata.uid, "controller": True}
        ]
        try:
            await self._client.create(kinds.POD, {**manifest, "metadata": metadata}, metadata["namespace"])
        except errors.AlreadyExists:
            return
        except (errors.Invalid, errors.Forbidden, errors.BadRequest) as error:
            log.error("the apiserver refuses a mirror pod", pod=_key(manifest), error=str(error))


def _key(manifest: Json) -> str:
    return f"{manifest['metadata']['namespace']}/{manifest['metadata']['name']}"


def _hash(mirror: core_v1.Pod) -> str:
    return (mirror.metadata.annotations or {}).get(pod_spec.MIRROR_ANNOTATION, "")
