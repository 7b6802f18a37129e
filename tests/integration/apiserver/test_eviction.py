"""Evictions respect budgets, also many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.support.apiserver_process import ApiServerProcess
from tests.support.rest import Rest
from tests.support.torture import figure, times

PODS, EVICTIONS, ALLOWED = times(660, 20), times(1000, 30), times(200, 3)


@pytest.mark.torture
async def test_many_evictions_at_once_spend_no_more_than_the_budget(
    server: ApiServerProcess, namespace: str, apply: Callable[[str], str]
) -> None:
    apply(
        "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: b},"
        " spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}}"
    )
    pods = f"/api/v1/namespaces/{namespace}/pods"
    budget = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets/b/status"
    async with Rest(server) as rest:
        status = {
            "observedGeneration": 1, "disruptionsAllowed": ALLOWED, "currentHealthy": PODS,
            "desiredHealthy": PODS - ALLOWED, "expectedPods": PODS,
        }  # fmt: skip
        code, body = await rest.patch(budget, {"status": status})
        assert code == 200, body
        for index in range(PODS):
            pod = {"metadata": {"name": f"p{index}", "labels": {"app": "web"}}}
            pod["spec"] = {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}  # type: ignore[assignment]
            assert (await rest.post(pods, {"apiVersion": "v1", "kind": "Pod", **pod}))[0] == 201
            running = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            assert (await rest.patch(f"{pods}/p{index}/status", {"status": running}))[0] == 200

        async def evict(index: int) -> int:
            name = f"p{index % PODS}"
            eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
            return (await rest.post(f"{pods}/{name}/eviction", eviction))[0]

        codes = await asyncio.gather(*(evict(index) for index in range(EVICTIONS)))
        # One that is on its way out already may be evicted again: it costs no budget.
        assert set(codes) == {201, 429}
        _, listed = await rest.get(pods)
        going = [item for item in listed["items"] if "deletionTimestamp" in item["metadata"]]
        assert len(going) == ALLOWED
        figure(13, f"{EVICTIONS} evictions of {PODS} pods at once: {len(going)} went, as {ALLOWED} were allowed to")
        reasons = {
            condition.get("reason")
            for item in going
            for condition in item["status"]["conditions"]
            if condition["type"] == "DisruptionTarget"
        }
        assert reasons == {"EvictionByEvictionAPI"}
