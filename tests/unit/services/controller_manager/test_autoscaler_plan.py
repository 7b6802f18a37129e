"""HorizontalPodAutoscalers: how many replicas, how fast."""

from __future__ import annotations

from typing import Any

from machinery.api import kinds
from services.controller_manager.controllers.horizontal_pod_autoscaler import plan as planner
from services.controller_manager.controllers.horizontal_pod_autoscaler.behavior import Memory
from services.controller_manager.controllers.horizontal_pod_autoscaler.replicas import NoMetric, Usage
from services.controller_manager.views.pod import Pod
from tests.support.controllers import pod_template
from tests.support.plan_world import World


def autoscaler(target: int = 50, **spec: Any) -> dict[str, Any]:
    metric = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1,
            "maxReplicas": 10,
            "metrics": [{"type": "Resource", "resource": metric}],
            **spec,
        },
    }


class Scene:
    """An autoscaler and running pods that request 100m each."""

    def __init__(self, replicas: int, **spec: Any) -> None:
        self.world = World()
        self.world.create(autoscaler(**spec))
        self.memory = Memory()
        self.replicas = 0
        self.scale(replicas)
        self.world.advance(3600)

    def scale(self, replicas: int) -> None:
        for number in range(self.replicas, replicas):
            template = pod_template({"app": "web"})
            template["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "100m"}}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"p{number}"}, "spec": template["spec"]}
            self.world.create(pod)
            self.world.run_pod(f"p{number}", startTime="2026-01-01T00:00:00Z")
        for number in range(replicas, self.replicas):
            self.world.end_pod(f"p{number}")
        self.replicas = replicas

    def look(self, milli: dict[str, int] | int) -> planner.Verdict:
        pods: list[Pod] = self.world.pods()
        use = milli if isinstance(milli, dict) else {pod.metadata.name: milli for pod in pods}
        usage = {name: Usage(value, self.world.now) for name, value in use.items()}
        hpa = self.world.view(kinds.HORIZONTAL_POD_AUTOSCALER, "web")
        verdict = planner.plan(hpa, self.replicas, pods, lambda r, c: usage, self.memory, self.world.now)
        self.world.apply(verdict.actions)
        if verdict.scale_to is not None:
            self.memory.changes.append((self.world.now, verdict.scale_to - self.replicas))
            self.scale(verdict.scale_to)
        return verdict

    def condition(self, kind: str) -> dict[str, Any]:
        status = self.world.view(kinds.HORIZONTAL_POD_AUTOSCALER, "web").status
        return next(entry for entry in status["conditions"] if entry["type"] == kind)


def test_double_the_target_doubles_the_pods_and_says_so() -> None:
    scene = Scene(2)
    assert scene.look(100).scale_to == 4
    assert scene.condition("AbleToScale")["reason"] == "SucceededRescale"
    assert scene.condition("ScalingActive")["reason"] == "ValidMetricFound"
    text = "New size: 4; reason: cpu resource utilization (percentage of request) above target"
    assert text in [event.message for event in scene.world.events]


def test_within_a_tenth_of_the_target_nothing_moves() -> None:
    scene = Scene(4)
    assert scene.look(54).scale_to is None
    assert scene.look(46).scale_to is None


def test_the_tolerance_can_be_set_for_each_direction() -> None:
    behavior = {"scaleUp": {"tolerance": "0"}, "scaleDown": {"tolerance": "300m", "stabilizationWindowSeconds": 0}}
    scene = Scene(4, behavior=behavior)
    assert scene.look(36).scale_to is None
    assert scene.look(34).scale_to == 3
    assert Scene(4, behavior=behavior).look(51).scale_to == 5


def test_an_autoscaler_met_for_the_first_time_does_not_shrink_at_once() -> None:
    scene = Scene(8)
    assert scene.look(5).scale_to is None
    assert scene.condition("AbleToScale")["reason"] == "ScaleDownStabilized"


def test_growth_is_bounded_by_rate_and_maximum() -> None:
    scene = Scene(1)
    assert scene.look(1000).scale_to == 5
    assert scene.condition("ScalingLimited")["reason"] == "ScaleUpLimit"
    scene.world.advance(16)
    assert scene.look(1000).scale_to == 10
    assert scene.condition("ScalingLimited")["reason"] == "TooManyReplicas"


def test_shrinking_waits_for_the_window() -> None:
    scene = Scene(8)
    scene.look(50)
    scene.world.advance(60)
    assert scene.look(5).scale_to is None
    assert scene.condition("AbleToScale")["reason"] == "ScaleDownStabilized"
    scene.world.advance(301)
    assert scene.look(5).scale_to == 1


def test_pods_of_unknown_use_never_argue_for_the_bolder_move() -> None:
    scene = Scene(4)
    # Two report double the target: the silent two count as idle, so four are enough.
    assert scene.look({"p0": 100, "p1": 100}).scale_to is None
    # Two report nothing to do: the silent two count as busy.
    scene = Scene(4, behavior={"scaleDown": {"stabilizationWindowSeconds": 0}})
    assert scene.look({"p0": 0, "p1": 0}).scale_to is None


def test_a_missing_request_or_metric_changes_nothing_and_is_said() -> None:
    scene = Scene(2)
    assert scene.look({}).scale_to is None
    assert scene.condition("ScalingActive")["reason"] == "FailedGetResourceMetric"
    bare = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare"}, "spec": pod_template({})["spec"]}
    scene.world.create(bare)
    scene.world.run_pod("bare")
    assert scene.look(500).scale_to is None
    assert "missing request for cpu in container c of Pod bare" in scene.condition("ScalingActive")["message"]


def test_disabled_scale_down_stays_and_zero_replicas_disable() -> None:
    scene = Scene(4, behavior={"scaleDown": {"selectPolicy": "Disabled", "stabilizationWindowSeconds": 0}})
    assert scene.look(1).scale_to is None
    scene.scale(0)
    assert scene.look({}).scale_to is None
    assert scene.condition("ScalingActive")["reason"] == "ScalingDisabled"


def test_out_of_bounds_is_corrected_without_metrics() -> None:
    scene = Scene(12)
    assert scene.look({}).scale_to == 10


# --- metrics of other servers ----------------------------------------------------------------------------------------


def pods_metric(target: str = "10") -> dict[str, Any]:
    wanted = {"type": "AverageValue", "averageValue": target}
    return {"type": "Pods", "pods": {"metric": {"name": "requests"}, "target": wanted}}


def object_metric(**target: str) -> dict[str, Any]:
    described = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "main"}
    return {"type": "Object", "object": {"metric": {"name": "hits"}, "describedObject": described, "target": target}}


def external_metric(**target: str) -> dict[str, Any]:
    metric = {"name": "queue", "selector": {"matchLabels": {"name": "jobs"}}}
    return {"type": "External", "external": {"metric": metric, "target": target}}


def look(scene: Scene, read: Any) -> planner.Verdict:
    hpa = scene.world.view(kinds.HORIZONTAL_POD_AUTOSCALER, "web")
    answers = read if isinstance(read, dict) and all(isinstance(key, int) for key in read) else {0: read}
    verdict = planner.plan(
        hpa, scene.replicas, scene.world.pods(), lambda r, c: {}, scene.memory, scene.world.now, other=answers
    )
    scene.world.apply(verdict.actions)
    return verdict


def test_a_metric_of_pods_is_averaged_over_them() -> None:
    scene = Scene(4, metrics=[pods_metric("10")])
    verdict = look(scene, {f"p{n}": Usage(20_000, scene.world.now) for n in range(4)})
    assert verdict.scale_to == 8
    (status,) = verdict.status["currentMetrics"]
    assert status == {"type": "Pods", "pods": {"metric": {"name": "requests"}, "current": {"averageValue": "20"}}}
    assert "New size: 8; reason: pods metric requests above target" in [e.message for e in scene.world.events]


def test_a_metric_of_an_object_scales_by_its_value_or_by_each_pods_share() -> None:
    scene = Scene(4, metrics=[object_metric(type="Value", value="100")])
    assert look(scene, 150_000).scale_to == 6
    assert scene.world.view(kinds.HORIZONTAL_POD_AUTOSCALER, "web").status["currentMetrics"][0]["object"][
        "current"
    ] == {"value": "150"}
    assert "New size: 6; reason: Ingress metric hits above target" in [e.message for e in scene.world.events]
    shared = Scene(4, metrics=[object_metric(type="AverageValue", averageValue="30")])
    verdict = look(shared, 150_000)
    assert verdict.scale_to == 5
    assert verdict.status["currentMetrics"][0]["object"]["current"] == {"averageValue": "37500m"}
    assert look(Scene(4, metrics=[object_metric(type="Value", value="100")]), 105_000).scale_to is None


def test_external_values_are_added_up() -> None:
    scene = Scene(2, metrics=[external_metric(type="AverageValue", averageValue="5")])
    verdict = look(scene, [10_000, 10_000])
    assert verdict.scale_to == 4
    words = "external metric queue(&LabelSelector{MatchLabels:map[string]string{name: jobs,},"
    assert any(f"reason: {words}" in event.message for event in scene.world.events)
    assert look(Scene(2, metrics=[external_metric(type="Value", value="10")]), [20_000]).scale_to == 4


def test_the_selector_of_an_external_metric_is_told_as_upstream_prints_it() -> None:
    metric = external_metric(type="AverageValue", averageValue="5")
    metric["external"]["metric"]["selector"] = {
        "matchExpressions": [{"key": "a", "operator": "In", "values": ["b", "c"]}]
    }
    scene = Scene(2, metrics=[metric])
    look(scene, [10_000, 10_000])
    words = "MatchExpressions:[]LabelSelectorRequirement{LabelSelectorRequirement{Key:a,Operator:In,Values:[b c],},},}"
    assert any(words in event.message for event in scene.world.events)


def test_a_metric_that_nobody_answers_is_a_condition_and_forbids_to_shrink() -> None:
    scene = Scene(4, metrics=[pods_metric(), external_metric(type="Value", value="10")])
    absent = NoMetric("FailedGetPodsMetric", "unable to get metric requests: no custom metrics API registered")
    assert look(scene, {0: absent, 1: [1_000]}).scale_to is None
    assert scene.condition("ScalingActive")["reason"] == "FailedGetPodsMetric"
    assert "no custom metrics API registered" in scene.condition("ScalingActive")["message"]
    assert [(event.reason, event.message) for event in scene.world.events] == [
        ("FailedGetPodsMetric", str(absent)),
        ("FailedComputeMetricsReplicas", f"invalid metrics (1 invalid out of 2), first error is: {absent}"),
    ]
    # Nothing new is known of what is desired.
    assert scene.world.view(kinds.HORIZONTAL_POD_AUTOSCALER, "web").status["desiredReplicas"] == 0
    grows = Scene(4, metrics=[pods_metric(), external_metric(type="Value", value="10")])
    assert look(grows, {0: absent, 1: [20_000]}).scale_to == 8
    assert grows.condition("ScalingActive")["status"] == "True"
