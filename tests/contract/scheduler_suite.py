"""What any scheduler of a cluster must do, seen at the apiserver over gRPC: it is judged by where pods end up.

A subclass gives the fixtures `client` (an administrator of a cluster in which the scheduler works) and `namespace` (one
to work in). The suite makes nodes of its own, on which nothing runs, and its pods ask for those.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from machinery.api import kinds, objects
from machinery.client.api_client import ApiClient
from tests.contract.given import eventually


class Nodes:
    """The suite's own nodes: no machine, only what a scheduler sees of one."""

    def __init__(self, client: ApiClient) -> None:
        self.label = f"contract-{secrets.token_hex(4)}"
        self._client = client
        self._names: list[str] = []

    async def add(self, cpu: str, *, labels: dict[str, str] | None = None, taints: list[Any] | None = None) -> str:
        """A Ready node; its name."""
        name = f"{self.label}-{len(self._names)}"
        size = {"cpu": cpu, "memory": "4Gi", "pods": "20", "ephemeral-storage": "10Gi"}
        now = objects.now_rfc3339()
        ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": now, "lastTransitionTime": now}
        meta = {"name": name, "labels": {"contract": self.label, "kubernetes.io/hostname": name, **(labels or {})}}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {"taints": taints or []}}
        self._names.append(name)
        await self._client.create(kinds.NODE, node)
        status = {"status": {"capacity": size, "allocatable": size, "conditions": [ready]}}
        await self._client.patch(kinds.NODE, name, "", status, subresource="status")
        # Admission marks a new node as not ready; where no controller takes that away again, we do.
        await self._client.patch(kinds.NODE, name, "", {"spec": {"taints": taints or []}})
        return name

    async def remove(self) -> None:
        """All of them."""
        for name in self._names:
            await self._client.delete(kinds.NODE, name)


class SchedulerContract:
    """The suite."""

    @pytest.fixture
    async def nodes(self, client: ApiClient) -> AsyncIterator[Nodes]:
        made = Nodes(client)
        yield made
        await made.remove()

    @staticmethod
    async def _pod(client: ApiClient, namespace: str, nodes: Nodes, name: str, cpu: str = "100m", **spec: Any) -> None:
        container = {"name": "c", "image": "contract.test/none:1", "resources": {"requests": {"cpu": cpu}}}
        base = {
            "containers": [container],
            "nodeSelector": {"contract": nodes.label},
            "terminationGracePeriodSeconds": 0,
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name.split("-")[0]}}}
        await client.create(kinds.POD, pod | {"spec": base | spec}, namespace)

    @staticmethod
    async def _placed(client: ApiClient, namespace: str, name: str) -> str:
        """The node that the pod gets."""

        async def look() -> str:
            pod = await client.get(kinds.POD, name, namespace)
            return pod.spec.nodeName or ""

        return await eventually(look, f"pod {name} has a node")

    @staticmethod
    async def _told(client: ApiClient, namespace: str, name: str, reason: str) -> None:
        """Wait until the pod's condition says that it has no node, for this reason."""

        async def look() -> bool:
            pod = await client.get(kinds.POD, name, namespace)
            found = [c for c in (pod.status and pod.status.conditions) or () if c.type == "PodScheduled"]
            return bool(found) and (found[0].status, found[0].reason) == ("False", reason)

        await eventually(look, f"pod {name} says that it is {reason}")

    async def test_a_pod_gets_a_node_with_room_for_it(self, client: Any, namespace: str, nodes: Nodes) -> None:
        await nodes.add("1")
        large = await nodes.add("4")
        await self._pod(client, namespace, nodes, "p", cpu="2")
        assert await self._placed(client, namespace, "p") == large

    async def test_no_node_is_given_more_than_it_has(self, client: Any, namespace: str, nodes: Nodes) -> None:
        await nodes.add("2")
        await nodes.add("1")
        for number in range(5):
            await self._pod(client, namespace, nodes, f"p-{number}", cpu="900m")

        async def counts() -> dict[str, int]:
            pods = await client.list(kinds.POD, namespace)
            where = [pod.spec.nodeName for pod in pods if pod.spec.nodeName]
            waiting = [
                pod for pod in pods
                if any(c.reason == "Unschedulable" for c in (pod.status and pod.status.conditions) or ())
            ]  # fmt: skip
            return {n: where.count(n) for n in where} if len(where) + len(waiting) == len(pods) else {}

        placed = await eventually(counts, "each pod is placed or told that it can't be")
        assert sorted(placed.values()) == [1, 2]

    async def test_what_fits_nowhere_is_told_and_placed_once_it_fits(
        self, client: Any, namespace: str, nodes: Nodes
    ) -> None:
        await nodes.add("1")
        await self._pod(client, namespace, nodes, "p", cpu="3")
        await self._told(client, namespace, "p", "Unschedulable")
        large = await nodes.add("4")
        assert await self._placed(client, namespace, "p") == large

    async def test_labels_taints_and_tolerations_decide(self, client: Any, namespace: str, nodes: Nodes) -> None:
        taint = {"key": "contract", "value": "kept", "effect": "NoSchedule"}
        kept = await nodes.add("4", labels={"disk": "fast"}, taints=[taint])
        common = await nodes.add("1")
        await self._pod(client, namespace, nodes, "common")
        tolerated = [{"key": "contract", "operator": "Exists"}]
        fast = {"contract": nodes.label, "disk": "fast"}
        await self._pod(client, namespace, nodes, "guest", tolerations=tolerated, nodeSelector=fast)
        await self._pod(client, namespace, nodes, "refused", nodeSelector=fast)
        assert await self._placed(client, namespace, "common") == common
        assert await self._placed(client, namespace, "guest") == kept
        await self._told(client, namespace, "refused", "Unschedulable")

    async def test_pods_that_shun_each_other_get_different_nodes(
        self, client: Any, namespace: str, nodes: Nodes
    ) -> None:
        for _ in range(2):
            await nodes.add("4")
        shun = {
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {"labelSelector": {"matchLabels": {"app": "p"}}, "topologyKey": "kubernetes.io/hostname"}
                ]
            }
        }
        for number in range(3):
            await self._pod(client, namespace, nodes, f"p-{number}", affinity=shun)

        async def two_placed() -> set[str]:
            pods = await client.list(kinds.POD, namespace)
            where = [pod.spec.nodeName for pod in pods if pod.spec.nodeName]
            assert len(where) == len(set(where))
            return set(where) if len(where) == 2 else set()

        await eventually(two_placed, "two of three have a node each")

    async def test_anothers_pods_and_gated_ones_are_left_alone(self, client: Any, namespace: str, nodes: Nodes) -> None:
        await nodes.add("4")
        await self._pod(client, namespace, nodes, "others", schedulerName="somebody-else")
        await self._pod(client, namespace, nodes, "gated", schedulingGates=[{"name": "contract.test/wait"}])
        await self._pod(client, namespace, nodes, "mine")
        await self._placed(client, namespace, "mine")
        for name in ("others", "gated"):
            assert not (await client.get(kinds.POD, name, namespace)).spec.nodeName
        await client.patch(kinds.POD, "gated", namespace, {"spec": {"schedulingGates": None}})
        await self._placed(client, namespace, "gated")
        assert not (await client.get(kinds.POD, "others", namespace)).spec.nodeName

    async def test_a_node_that_is_closed_gets_nothing_until_it_opens(
        self, client: Any, namespace: str, nodes: Nodes
    ) -> None:
        closed = await nodes.add("4")
        await client.patch(kinds.NODE, closed, "", {"spec": {"unschedulable": True}})
        await asyncio.gather(*(self._pod(client, namespace, nodes, f"p-{number}") for number in range(2)))
        for number in range(2):
            await self._told(client, namespace, f"p-{number}", "Unschedulable")
        await client.patch(kinds.NODE, closed, "", {"spec": {"unschedulable": None}})
        for number in range(2):
            assert await self._placed(client, namespace, f"p-{number}") == closed
