"""What others see of a kubelet: its lease, whom it answers, what it counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY

from machinery.api import errors
from machinery.client.api_client import Mutation
from machinery.component.tls import Identity
from services.kubelet import admission, lifecycle_metrics
from services.kubelet.access import Access, subresources
from services.kubelet.heartbeat import Heartbeats
from tests.support.kubelet_pods import pod


def test_a_path_has_the_subresource_that_upstream_gives_it() -> None:
    expected = {
        "/healthz": ("healthz", "proxy"), "/pods": ("pods", "proxy"), "/runningpods/": ("pods", "proxy"),
        "/configz": ("configz", "proxy"), "/metrics": ("metrics",), "/metrics/cadvisor": ("metrics",),
        "/stats/summary": ("stats",), "/logs/": ("log",), "/checkpoint/a/b/c": ("checkpoint",),
        "/containerLogs/a/b/c": ("proxy",), "/nothing": ("proxy",), "/podsecrets": ("proxy",),
    }  # fmt: skip
    assert {path: subresources(path) for path in expected} == expected


async def test_one_of_the_subresources_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    access = Access(None, "n")  # type: ignore[arg-type]

    async def refusal(_identity: Identity, _verb: str, subresource: str) -> str | None:
        return None if subresource == "proxy" else f"not {subresource}"

    monkeypatch.setattr(access, "refusal", refusal)
    who = Identity("u", ())
    assert await access.refusal_of_all(who, "get", ("healthz", "proxy")) is None
    assert await access.refusal_of_all(who, "get", ("healthz", "metrics")) == "not healthz"


def test_a_pod_for_another_system_is_refused() -> None:
    assert admission.refuse(pod(os={"name": "linux"}), [], {}, 10) is None
    refusal = admission.refuse(pod(os={"name": "windows"}), [], {}, 10)
    assert refusal is not None
    assert refusal.reason == "PodOSNotSupported"
    labelled = pod()
    labelled.metadata.labels = {"kubernetes.io/os": "windows"}
    refusal = admission.refuse(labelled, [], {}, 10)
    assert refusal is not None
    assert refusal.reason == "PodOSSelectorNodeLabelDoesNotMatch"


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_an_end_is_counted_once_when_it_is_first_shown() -> None:
    labels = {"container_type": "init_container", "exit_code": "139", "reason": "Error"}
    before = count("kubelet_terminated_containers_total", **labels)
    runs: dict[str, Any] = {"initContainerStatuses": [{"name": "a", "state": {"running": {}}}]}
    ended = {"initContainerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 139, "reason": "Error"}}}]}
    for old, new in (({}, runs), (runs, ended), (ended, ended)):
        lifecycle_metrics.status_changed(old, new)
    assert count("kubelet_terminated_containers_total", **labels) == before + 1


def test_starts_of_pods_with_users_of_their_own_are_counted_apart() -> None:
    names = [f"kubelet_started_user_namespaced_pods_{what}" for what in ("total", "errors_total")]
    before = [count(name) for name in names]
    own = pod(hostUsers=False)
    for one in (pod(), own):
        lifecycle_metrics.pod_started(one)
        lifecycle_metrics.container_started(one, "c", "RunContainerError")
    assert [count(name) for name in names] == [before[0] + 1, before[1] + 1]


class Leases:
    """As much of a client as heartbeats use: what was asked for, and answers to give."""

    def __init__(self) -> None:
        self.asked: list[Mutation] = []
        self.answer: errors.ApiError | None = None

    async def batch(self, mutations: list[Mutation]) -> list[Any]:
        self.asked += mutations
        return [SimpleNamespace(error=self.answer) for _ in mutations]


async def test_a_lease_belongs_to_its_node_as_soon_as_there_is_one() -> None:
    leases, uid = Leases(), ""
    heartbeats = Heartbeats(leases)  # type: ignore[arg-type]
    heartbeats.add("n", lambda: uid)

    async def renewed() -> dict[str, Any]:
        await heartbeats._renew()
        message = leases.asked[-1].message
        raw = message.create.json if message.HasField("create") else message.patch.patch
        return msgspec.json.decode(raw).get("metadata") or {}

    assert "ownerReferences" not in await renewed()
    uid = "u-1"
    owner = {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u-1"}
    assert (await renewed())["ownerReferences"] == [owner]
    assert await renewed() == {}, "once is enough"
    uid = "u-2"
    assert (await renewed())["ownerReferences"] == [{**owner, "uid": "u-2"}]
    leases.answer = errors.NotFound("no such lease")
    await renewed()
    leases.answer = None
    assert (await renewed())["ownerReferences"] == [{**owner, "uid": "u-2"}]
