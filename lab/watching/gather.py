"""Follows the components over gRPC and tells the story to whoever listens.

The apiserver's Follow gives every write, each node's proxy what nft has taken. Listeners have bounded queues: one that
falls behind loses its oldest steps, and sees so by the gap in the numbers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import grpc

from lab import admin
from lab.cluster import Cluster
from lab.errors import LabError
from lab.nodes import Node
from lab.watching.story import Name, Step, Story, Write
from machinery.api import errors
from machinery.api.kinds import Kind
from machinery.client.api_client import ApiClient
from machinery.component import tls
from protos.cutaway.v1 import apiserver_pb2, kube_proxy_pb2, kube_proxy_pb2_grpc

ASK_SECONDS = 10.0
PAUSE_SECONDS = 1.0
"""Between two attempts to follow somebody who has gone."""
STEPS_KEPT = 5_000
"""What a listener that comes later is told of the past."""
QUEUE_MAX = 10_000
RULES_WAIT_SECONDS = 5.0
"""How long rules wait for the write that caused them to be told by the apiserver's stream."""
# Nothing of these is ever asked for, and they are most of the writes of a cluster that idles.
_SKIPPED = frozenset({"leases"})


class Gatherer:
    """One story of one cluster, from when `run` begins."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._story = Story()
        self.steps: deque[Step] = deque(maxlen=STEPS_KEPT)
        self._queues: set[asyncio.Queue[Step]] = set()
        self._revision = 0
        self._grown = asyncio.Event()
        # Set once everything that is told from now on is heard.
        self.listening = asyncio.Event()
        # Who can't be followed, and why: told on the page.
        self.deaf: dict[str, str] = {}
        mine = admin.identity(cluster)
        self._files = tls.TlsFiles(
            ca_file=str(mine.ca_file), cert_file=str(mine.cert_file), key_file=str(mine.key_file)
        )

    @contextmanager
    def listen(self) -> Iterator[tuple[list[Step], asyncio.Queue[Step]]]:
        """(what has been told, what will be)."""
        queue: asyncio.Queue[Step] = asyncio.Queue(QUEUE_MAX)
        self._queues.add(queue)
        try:
            yield list(self.steps), queue
        finally:
            self._queues.discard(queue)

    def family(self, name: Name) -> set[Name]:
        """As Story.family."""
        return self._story.family(name)

    def holds(self, name: Name) -> bool:
        """As Story.holds."""
        return self._story.holds(name)

    async def run(self) -> None:
        """Follow for ever. Raises LabError if no apiserver answers at the beginning."""
        client = await admin.client(self._cluster)
        try:
            await self._begin(client)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow_apiserver(client), name="follow apiserver")
                for node in self._cluster.nodes if not self._cluster.hollow else ():
                    tasks.create_task(self._follow_proxy(node), name=f"follow kube-proxy of {node.name}")
        finally:
            await client.close()

    async def _begin(self, client: ApiClient) -> None:
        """Read what there is, so that the first write of each object can be told as a change."""
        try:
            async with aclosing(client.follow()) as stream:
                self._revision = (await anext(stream)).revision
            for one in (await client.discover()).resources:
                kind = Kind(one.resource.group, one.resource.version, one.kind, one.resource.resource, one.namespaced)
                if "list" in one.verbs and kind.plural not in (*_SKIPPED, "events"):
                    for obj in (await client.list(kind, decode=json.loads)).items:
                        metadata = obj["metadata"]
                        name = Name(one.kind, metadata.get("namespace", ""), metadata["name"])
                        self._story.known(name, obj)
        except errors.ApiError as error:
            raise LabError(f"the apiserver does not answer ({error})", "`cutaway status` shows what is ill") from error

    async def _follow_apiserver(self, client: ApiClient) -> None:
        while True:
            try:
                async with aclosing(client.follow(self._revision)) as stream:
                    async for batch in stream:
                        self.deaf.pop("apiserver", None)
                        self.listening.set()
                        for write in batch.writes:
                            self._tell(write)
                        self._revision = max(self._revision, batch.revision)
                        self._grown.set()
            except errors.Expired:
                # Too far behind: what was missed is missing.
                with contextlib.suppress(LabError):
                    await self._begin(client)
            except errors.ApiError as error:
                self.deaf["apiserver"] = error.message
            await asyncio.sleep(PAUSE_SECONDS)

    def _tell(self, write: apiserver_pb2.Write) -> None:
        if write.resource.resource in _SKIPPED:
            return
        version = write.version
        obj = version.object
        gone = version.kind == apiserver_pb2.Version.DELETED
        told = self._story.told(
            Write(
                write.resource.resource, obj.revision, version.time, version.user,
                Name(obj.kind, obj.namespace, obj.name), None if gone else json.loads(obj.json),
            )
        )  # fmt: skip
        if told is not None:
            self._publish(told)

    async def _follow_proxy(self, node: Node) -> None:
        address, who = f"{self._cluster.node_ip(node)}:10349", f"kube-proxy of {node.name}"
        while True:
            try:
                async with grpc.aio.secure_channel(address, tls.channel_credentials(self._files)) as channel:
                    stub: Any = kube_proxy_pb2_grpc.KubeProxyStub(channel)
                    async for change in stub.Follow(kube_proxy_pb2.FollowRulesRequest()):
                        self.deaf.pop(who, None)
                        await self._tell_rules(node, change)
            except grpc.aio.AioRpcError as error:
                self.deaf[who] = str(error.details())
            await asyncio.sleep(PAUSE_SECONDS)

    async def _tell_rules(self, node: Node, change: kube_proxy_pb2.RulesChange) -> None:
        services = dict(_services(change))
        if not services:
            return
        try:
            async with asyncio.timeout(RULES_WAIT_SECONDS):
                while self._revision < change.revision:
                    self._grown.clear()
                    await self._grown.wait()
        except TimeoutError:
            pass  # told with what is known
        for step in self._story.rules(node.name, time.time(), change.revision, services, change.commands):
            self._publish(step)

    def _publish(self, step: Step) -> None:
        self.steps.append(step)
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(step)


def _services(change: kube_proxy_pb2.RulesChange) -> Iterator[tuple[tuple[str, str], str]]:
    """(namespace, Service) -> what its rules do now."""
    ports: dict[tuple[str, str], list[str]] = {}
    for port in change.changed:
        ends = ", ".join(f"{end.ip}:{end.port}" for end in port.endpoints) or "reject"
        for ip in port.cluster_ips or ["node port"]:
            ports.setdefault((port.namespace, port.name), []).append(f"{ip}:{port.port} → {ends}")
    for name in change.removed:
        namespace, _, service = name.partition("/")
        ports.setdefault((namespace, service), ["removed"])
    return ((key, "; ".join(lines)) for key, lines in ports.items())
