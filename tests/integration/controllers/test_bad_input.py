"""What makes no sense is said on the object itself, and costs nobody else anything.

The apiserver refuses most of this at the door; the one in memory does not, as an older release or a restored back-up
would not have.
"""

from __future__ import annotations

from typing import Any

import pytest

from machinery.api import kinds
from machinery.api.kinds import Kind
from services.controller_manager.controllers.deployment.controller import DeploymentController
from tests.support.controllers import ControllerLab, deployment, pod_template

MISMATCHED: dict[str, tuple[Kind, str]] = {
    "ReplicaSet": (kinds.REPLICA_SET, "replicaset"),
    "Deployment": (kinds.DEPLOYMENT, "deployment"),
    "DaemonSet": (kinds.DAEMON_SET, "daemonset"),
    "StatefulSet": (kinds.STATEFUL_SET, "statefulset"),
}


def workload(kind: str, name: str, labels: dict[str, str]) -> dict[str, Any]:
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": pod_template(labels)}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize("kind", MISMATCHED)
async def test_a_selector_that_does_not_match_its_template_makes_no_pods_and_is_said(kind: str) -> None:
    resource, controller = MISMATCHED[kind]
    async with ControllerLab("replicaset", controller) as lab:
        await lab.create(workload(kind, "wrong", {"app": "other"}))
        await lab.create(workload(kind, "right", {"app": "right"}))
        await lab.until(lambda: len(lab.ready_pods()) == 2)

        def told() -> str:
            status = (lab.get(resource, "wrong") or {}).get("status", {})
            return next((c["message"] for c in status.get("conditions", ()) if c["type"] == "ReplicaFailure"), "")

        await lab.until(lambda: "are not what spec.selector selects" in told())
        await lab.until(lambda: lab.events("SelectorMismatch"))
        await lab.quiet()
        assert {pod["metadata"]["labels"]["app"] for pod in lab.list(kinds.POD)} == {"right"}
        await lab.patch(resource, "wrong", {"spec": {"template": {"metadata": {"labels": {"app": "wrong"}}}}})
        await lab.until(lambda: len(lab.ready_pods()) == 4)
        await lab.until(lambda: told() == "")


async def test_a_job_whose_pods_would_never_be_its_own_fails_and_makes_none() -> None:
    async with ControllerLab("job") as lab:
        spec = {"selector": {"matchLabels": {"job": "wrong"}}, "template": pod_template({"job": "other"})}
        await lab.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "wrong"}, "spec": spec})

        def reasons() -> dict[str, str]:
            status = lab.get(kinds.JOB, "wrong").get("status", {})
            return {c["type"]: c["reason"] for c in status.get("conditions", ())}

        await lab.until(lambda: reasons().get("Failed") == "SelectorMismatch")
        assert lab.list(kinds.POD) == []


async def test_two_autoscalers_of_the_same_pods_leave_them_alone_and_say_why() -> None:
    async with ControllerLab("deployment", "replicaset", "horizontal-pod-autoscaler") as lab:
        await lab.create(deployment("web", 2))
        await lab.until(lambda: lab.get(kinds.DEPLOYMENT, "web").get("status", {}).get("readyReplicas") == 2)
        for name in ("one", "two"):
            target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
            hpa = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name}}
            await lab.create({**hpa, "spec": {"scaleTargetRef": target, "maxReplicas": 9, "minReplicas": 5}})

        def message() -> str:
            status = lab.get(kinds.HORIZONTAL_POD_AUTOSCALER, "two").get("status", {})
            found = {c["reason"]: c["message"] for c in status.get("conditions", ())}
            return found.get("AmbiguousSelector", "")

        await lab.until(lambda: "controlled by multiple HPAs: default/one, default/two" in message())


async def test_owners_in_a_loop_are_all_collected_when_one_of_them_goes() -> None:
    async with ControllerLab("garbage-collector", kubelet=False) as lab:
        uids = {}
        for name in "abc":
            made = await lab.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
            uids[name] = made["metadata"]["uid"]
        for name, owner in (("a", "c"), ("b", "a"), ("c", "b")):
            reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": uids[owner]}
            metadata = {"ownerReferences": [{**reference, "blockOwnerDeletion": True}]}
            await lab.patch(kinds.CONFIG_MAP, name, {"metadata": metadata})
        await lab.quiet()
        assert len(lab.list(kinds.CONFIG_MAP)) == 3, "a loop alone is no reason to delete anything"
        await lab.delete(kinds.CONFIG_MAP, "a", propagation="Foreground")
        await lab.until(lambda: not lab.list(kinds.CONFIG_MAP), "all three are gone")


@pytest.mark.parametrize("line", ["0 0 31 2 *", "61 * * * *", "every day", "* * * *", "@every 0s", "TZ=UTC * * * * *"])
async def test_an_impossible_cron_line_starts_nothing_and_the_others_go_on(line: str) -> None:
    async with ControllerLab("cronjob", kubelet=False) as lab:
        template = {"spec": {"template": pod_template({}, restartPolicy="Never")}}
        for name, schedule in (("never", line), ("often", "* * * * *")):
            job = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name}}
            await lab.create({**job, "spec": {"schedule": schedule, "jobTemplate": template}})
            last = {"status": {"lastScheduleTime": "2026-01-01T00:00:00Z"}}
            await lab.patch(kinds.CRON_JOB, name, last, subresource="status")
        reasons = {"0 0 31 2 *": "InvalidSchedule", "TZ=UTC * * * * *": "UnsupportedSchedule"}
        reason = reasons.get(line, "UnparseableSchedule")
        await lab.until(lambda: lab.events(reason))
        assert {event["involvedObject"]["name"] for event in lab.events(reason)} == {"never"}
        await lab.until(lambda: lab.list(kinds.JOB))
        assert {job["metadata"]["name"].rpartition("-")[0] for job in lab.list(kinds.JOB)} == {"often"}


async def test_zero_per_cent_of_nothing_rolls_and_budgets_without_a_division() -> None:
    async with ControllerLab("deployment", "replicaset", "disruption") as lab:
        zero = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "0%", "maxUnavailable": "0%"}}
        await lab.create(deployment("none", 0, strategy=zero))
        await lab.create(deployment("some", 2, strategy=zero))
        budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "none"}}
        selector = {"matchLabels": {"app": "none"}}
        await lab.create({**budget, "spec": {"maxUnavailable": "0%", "selector": selector}})
        await lab.until(lambda: len(lab.ready_pods()) == 2)
        for name in ("none", "some"):
            template = pod_template({"app": name}, "nginx:2")
            await lab.patch(kinds.DEPLOYMENT, name, {"spec": {"template": template}})

        def rolled(name: str) -> bool:
            status = lab.get(kinds.DEPLOYMENT, name).get("status", {})
            reasons = {c["type"]: c["reason"] for c in status.get("conditions", ())}
            return reasons.get("Progressing") == "NewReplicaSetAvailable" and status["observedGeneration"] == 2

        await lab.until(lambda: rolled("none") and rolled("some"))
        images = {pod["spec"]["containers"][0]["image"] for pod in lab.pods()}
        assert images == {"nginx:2"}, "both bounds at zero count as one that may be missing"
        status = lab.get(kinds.POD_DISRUPTION_BUDGET, "none")["status"]
        assert (status["expectedPods"], status["disruptionsAllowed"]) == (0, 0)


async def test_an_object_that_a_controller_chokes_on_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = DeploymentController.reconcile

    async def choking(self: DeploymentController, key: str) -> Any:
        if key == "default/poison":
            raise ZeroDivisionError("a bug")
        return await whole(self, key)

    monkeypatch.setattr(DeploymentController, "reconcile", choking)
    async with ControllerLab("deployment", "replicaset") as lab:
        await lab.create(deployment("poison", 1))
        await lab.create(deployment("web", 2))
        await lab.until(lambda: len(lab.ready_pods()) == 2)
        assert {pod["metadata"]["labels"]["app"] for pod in lab.pods()} == {"web"}
