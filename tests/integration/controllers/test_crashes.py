"""Controllers that die with their k-th write, for every k, and controllers whose cache stands still: the end is the
same.

CI takes every third k; `make torture` takes all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from machinery.api import kinds
from tests.support.controllers import ControllerLab, deployment, pod_template
from tests.support.torture import FULL, figure

pytestmark = pytest.mark.torture

STEP = 1 if FULL else 3
WRITES_MAX = 60


def job(completions: int = 4, parallelism: int = 2) -> dict[str, Any]:
    labels = {"job-name": "work", "ends": "Succeeded"}
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "work", "namespace": "default"},
        "spec": {"completions": completions, "parallelism": parallelism, "backoffLimit": 6,
                 "selector": {"matchLabels": {"job-name": "work"}},
                 "template": pod_template(labels, restartPolicy="Never")},
    }  # fmt: skip


def set_of(kind: str, name: str, replicas: int = 3) -> dict[str, Any]:
    spec: dict[str, Any] = {"selector": {"matchLabels": {"app": name}}, "template": pod_template({"app": name})}
    if kind == "StatefulSet":
        claim = {"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}
        spec |= {"replicas": replicas, "serviceName": name, "volumeClaimTemplates": [claim]}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": "default"}, "spec": spec}


async def rollout(lab: ControllerLab) -> None:
    await lab.create(deployment("web", 3))
    await lab.quiet(0.1)
    containers = deployment(image="nginx:2")["spec"]["template"]["spec"]["containers"]
    await lab.patch(kinds.DEPLOYMENT, "web", {"spec": {"template": {"spec": {"containers": containers}}}})


def rolled_out(lab: ControllerLab) -> bool:
    status = lab.get(kinds.DEPLOYMENT, "web").get("status", {})
    images = {pod["spec"]["containers"][0]["image"] for pod in lab.list(kinds.POD)}
    sizes = sorted(rs["spec"]["replicas"] for rs in lab.list(kinds.REPLICA_SET))
    good = [c["reason"] for c in status.get("conditions", [])]
    return (
        images == {"nginx:2"}
        and len(lab.ready_pods()) == 3
        and sizes in ([0, 3], [3])
        and "NewReplicaSetAvailable" in good
    )


async def start_job(lab: ControllerLab) -> None:
    await lab.create(job())


def job_done(lab: ControllerLab) -> bool:
    status = lab.get(kinds.JOB, "work").get("status", {})
    done = any(c["type"] == "Complete" and c["status"] == "True" for c in status.get("conditions", []))
    free = not any(pod["metadata"].get("finalizers") for pod in lab.list(kinds.POD))
    return done and free and status["succeeded"] == 4 and not status.get("uncountedTerminatedPods")


async def start_stateful_set(lab: ControllerLab) -> None:
    await lab.create(set_of("StatefulSet", "db"))


def stateful_set_done(lab: ControllerLab) -> bool:
    status = lab.get(kinds.STATEFUL_SET, "db").get("status", {})
    claims = {claim["metadata"]["name"] for claim in lab.list(kinds.PERSISTENT_VOLUME_CLAIM)}
    return (
        status.get("readyReplicas") == 3
        and len(lab.list(kinds.CONTROLLER_REVISION)) == 1
        and claims == {"data-db-0", "data-db-1", "data-db-2"}
        and len(lab.list(kinds.POD)) == 3
    )


async def start_daemon_set(lab: ControllerLab) -> None:
    await lab.create(set_of("DaemonSet", "agent"))


def daemon_set_done(lab: ControllerLab) -> bool:
    status = lab.get(kinds.DAEMON_SET, "agent").get("status", {})
    return status.get("numberAvailable") == 2 and len(lab.list(kinds.POD)) == 2


async def delete_in_the_foreground(lab: ControllerLab) -> None:
    await lab.create(deployment("web", 2))
    await lab.quiet(0.1)
    if lab.get(kinds.DEPLOYMENT, "web"):
        await lab.delete(kinds.DEPLOYMENT, "web", propagation="Foreground")


def all_gone(lab: ControllerLab) -> bool:
    return not lab.list(kinds.DEPLOYMENT) and not lab.list(kinds.REPLICA_SET) and not lab.list(kinds.POD)


SCENARIOS: dict[
    str, tuple[tuple[str, ...], Callable[[ControllerLab], Awaitable[None]], Callable[[ControllerLab], bool]]
] = {
    "rollout": (("deployment", "replicaset"), rollout, rolled_out),
    "job": (("job",), start_job, job_done),
    "statefulset": (("statefulset",), start_stateful_set, stateful_set_done),
    "daemonset": (("daemonset",), start_daemon_set, daemon_set_done),
    "foreground": (("deployment", "replicaset", "garbage-collector"), delete_in_the_foreground, all_gone),
}


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_crash_after_any_write_ends_in_the_same_state(name: str) -> None:
    controllers, begin, done = SCENARIOS[name]
    crashes = 0
    for writes in range(0, WRITES_MAX, STEP):
        async with ControllerLab(*controllers) as lab:
            lab.crash_after(writes)
            await begin(lab)
            await lab.until(lambda: lab.crashed or done(lab), f"{name}: neither crashed nor done")
            if not lab.crashed:
                break
            crashes += 1
            await lab.restart()
            await lab.until(lambda: done(lab), f"{name}: the right end after a crash at write {writes}")
            await lab.quiet(0.05)
            assert done(lab), f"{name}: stays right after a crash at write {writes}"
    figure(7, f"{name}: crashed after {crashes} different writes, the same end each time")
    assert crashes >= 2, "the scenario writes too little to be a test"


@pytest.mark.parametrize("name", ["rollout", "job", "statefulset", "daemonset"])
async def test_a_cache_that_stands_still_makes_nobody_act_twice(name: str) -> None:
    controllers, begin, done = SCENARIOS[name]
    async with ControllerLab(*controllers) as lab:
        lab.freeze(kinds.POD)
        await begin(lab)
        for _ in range(15):
            await lab.resync()
        assert len(lab.list(kinds.POD)) <= {"rollout": 4, "job": 2, "statefulset": 1, "daemonset": 2}[name]
        lab.thaw(kinds.POD)
        for _ in range(10):
            lab.freeze(kinds.POD)
            await lab.resync()
            await asyncio.sleep(0.03)
            lab.thaw(kinds.POD)
        await lab.until(lambda: done(lab), f"{name}: the right end after a stale cache")
