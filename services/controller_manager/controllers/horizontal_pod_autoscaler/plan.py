"""One look at an autoscaler: what its metrics ask for, what its limits allow, and what is said about both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from machinery.api import kinds, selectors
from machinery.api.quantity import Quantity, parse_quantity
from services.controller_manager.actions import NORMAL, WARNING, Action, Emit, rfc3339, status_patch, with_condition
from services.controller_manager.controllers.horizontal_pod_autoscaler import behavior
from services.controller_manager.controllers.horizontal_pod_autoscaler.replicas import (
    NoMetric,
    Proposal,
    Usage,
    by_average,
    by_ratio,
    by_share,
    by_utilization,
)
from services.controller_manager.views.pod import Pod
from services.controller_manager.views.workloads import HorizontalPodAutoscaler

# (resource, container or "") to each pod's use.
Read = Callable[[str, str], dict[str, Usage]]

# What other servers say of a metric: each pod's use, an object's value or external values in thousandths; or why not.
Other = Mapping[int, "dict[str, Usage] | int | list[int] | NoMetric"]


@dataclass(slots=True)
class Verdict:
    """What to do: the status to write, events, and the new scale (None: leave it)."""

    status: dict[str, Any]
    actions: list[Action] = field(default_factory=list)
    scale_to: int | None = None
    # The rescaling in words; empty: there is none.
    rescale: str = ""


def failed(
    hpa: HorizontalPodAutoscaler, kind: str, reason: str, message: str, now: datetime, *, event: Emit | None = None
) -> Verdict:
    """Nothing can be decided, and a condition says why, and an event: the same words unless given."""
    status = dict(hpa.status)
    status.setdefault("currentReplicas", 0)
    status.setdefault("desiredReplicas", 0)
    status["conditions"] = with_condition(status.get("conditions") or [], kind, "False", reason, message, now)
    out = Verdict(status, [event or Emit(WARNING, reason, message)])
    out.actions += status_patch(kinds.HORIZONTAL_POD_AUTOSCALER, hpa, status)
    return out


def plan(
    hpa: HorizontalPodAutoscaler,
    current: int,
    pods: Sequence[Pod],
    read: Read,
    memory: behavior.Memory,
    now: datetime,
    *,
    other: Other = {},  # noqa: B006 - never changed
    running: int | None = None,
) -> Verdict:
    """The next step for a target of `current` replicas, whose pods these are.

    `other` by the number of the metric in the spec; `running` is how many replicas the target's status counts.
    """
    step = _Step(hpa, current, pods, read, memory, now)
    step.other = other
    step.running = current if running is None else running
    return step.run()


class _Step:
    def __init__(
        self,
        hpa: HorizontalPodAutoscaler,
        current: int,
        pods: Sequence[Pod],
        read: Read,
        memory: behavior.Memory,
        now: datetime,
    ) -> None:
        self.hpa, self.current, self.pods, self.read, self.memory, self.now = hpa, current, pods, read, memory, now
        self.conditions: list[dict[str, Any]] = list(hpa.status.get("conditions") or [])
        self.events: list[Action] = []
        self.metrics: list[dict[str, Any]] = []
        self.asked = self.broken = 0
        self.other: Other = {}
        self.running = current

    def run(self) -> Verdict:
        self._say(
            "AbleToScale", "True", "SucceededGetScale", "the HPA controller was able to get the target's current scale"
        )
        minimum, maximum = self.hpa.spec.get("minReplicas") or 1, self.hpa.spec["maxReplicas"]
        if self.current == 0 and minimum != 0:
            text = "scaling is disabled since the replica count of the target is zero"
            self._say("ScalingActive", "False", "ScalingDisabled", text)
            return self._end(0, "")
        if self.current > maximum:
            return self._end(maximum, "Current number of replicas above Spec.MaxReplicas")
        if self.current < minimum:
            return self._end(minimum, "Current number of replicas below Spec.MinReplicas")
        try:
            wanted, why = self._measure()
        except NoMetric as err:
            self._say("ScalingActive", "False", err.reason, f"the HPA was unable to compute the replica count: {err}")
            said = f"invalid metrics ({self.broken} invalid out of {self.asked}), first error is: {err}"
            self.events.append(Emit(WARNING, "FailedComputeMetricsReplicas", said))
            return self._end(self.current, "", desired=int(self.hpa.status.get("desiredReplicas") or 0))
        self.memory.begin(self.current, self.now)
        limited = behavior.limit(self.hpa.spec, self.current, wanted, self.memory, self.now)
        if limited.stabilized is not None:
            self._say("AbleToScale", "True", *limited.stabilized)
        else:
            self._say("AbleToScale", "True", "ReadyForNewScale", "recommended size matches current size")
        held = limited.limit[0] != "DesiredWithinRange"
        self._say("ScalingLimited", "True" if held else "False", *limited.limit)
        direction = "above" if limited.replicas > self.current else "below"
        reason = f"{why} {direction} target" if direction == "above" else "All metrics below target"
        return self._end(limited.replicas, reason)

    # --- metrics ------------------------------------------------------------------------------------------------------

    def _measure(self) -> tuple[int, str]:
        """The most that any metric asks for. One that can't be read forbids to shrink."""
        best: tuple[int, str] | None = None
        broken: NoMetric | None = None
        asked = self.hpa.spec.get("metrics") or ()
        self.asked = len(asked)
        for number, metric in enumerate(asked):
            try:
                proposal, name = self._one(metric, number)
            except NoMetric as err:
                broken = broken or err
                self.broken += 1
                self.events.append(Emit(WARNING, err.reason, str(err)))
                continue
            if best is None or proposal.replicas > best[0]:
                best = (proposal.replicas, name)
        if best is None:
            raise broken or NoMetric("InvalidMetricSourceType", "no metric is given")
        if broken is not None and best[0] < self.current:
            raise broken
        text = f"the HPA was able to successfully calculate a replica count from {best[1]}"
        self._say("ScalingActive", "True", "ValidMetricFound", text)
        return best

    def _one(self, metric: dict[str, Any], number: int) -> tuple[Proposal, str]:
        kind = metric.get("type")
        if kind in ("Pods", "Object", "External"):
            return self._of_others(kind, metric[kind.lower()], number)
        if kind not in ("Resource", "ContainerResource"):
            raise NoMetric("InvalidMetricSourceType", f'unknown metric source type "{kind}"')
        try:
            return self._resource(kind, metric)
        except NoMetric as err:
            raise NoMetric(err.reason.replace("GetResource", f"Get{kind}"), str(err)) from err

    def _of_others(self, kind: str, source: dict[str, Any], number: int) -> tuple[Proposal, str]:
        """A metric that another server of the cluster answers."""
        read, target, metric = self.other.get(number), source["target"], source["metric"]
        if read is None or isinstance(read, NoMetric):
            raise read or NoMetric(f"FailedGet{kind}Metric", f"metric {metric['name']} was not read")
        tolerance = behavior.tolerance(self.hpa.spec)
        status: dict[str, Any] = {"metric": metric}
        if kind == "Object":
            status["describedObject"] = source["describedObject"]
        average = target.get("averageValue")
        wanted = parse_quantity(average if average is not None else target.get("value", "0")).milli_value
        if wanted <= 0:
            text = f"invalid {kind.lower()} metric source: neither a value target nor an average value target was set"
            raise NoMetric(f"FailedGet{kind}Metric", text)
        if isinstance(read, dict):
            try:
                proposal = by_average(self.current, wanted, "", self.pods, read, self.now, tolerance)
            except NoMetric as err:
                raise NoMetric("FailedGetPodsMetric", str(err)) from err
            status["current"] = {"averageValue": _text("cpu", proposal.average_milli)}
            name = f"pods metric {metric['name']}"
        else:
            total = read if isinstance(read, int) else sum(read)
            name = f"external metric {metric['name']}({selectors.go_text(metric.get('selector'))})"
            if average is not None:
                replicas, each = by_share(self.running, total, wanted, tolerance)
                status["current"] = {"averageValue": _text("cpu", each)}
            else:
                replicas = by_ratio(self.current, total, wanted, self.pods, tolerance)
                status["current"] = {"value": _text("cpu", total)}
                if kind == "Object":
                    name = f"{source['describedObject']['kind']} metric {metric['name']}"
            proposal = Proposal(replicas, total)
        self.metrics.append({"type": kind, kind.lower(): status})
        return proposal, name

    def _resource(self, kind: str, metric: dict[str, Any]) -> tuple[Proposal, str]:
        field_name = "resource" if kind == "Resource" else "containerResource"
        source = metric[field_name]
        resource, container = source["name"], source.get("container", "")
        target = source["target"]
        tolerance = behavior.tolerance(self.hpa.spec)
        usage = self.read(resource, container)
        status: dict[str, Any] = {"name": resource}
        if container:
            status["container"] = container
        words = f"{resource} {'container ' if container else ''}resource"
        if target.get("averageUtilization") is not None:
            proposal = by_utilization(
                self.current, target["averageUtilization"], resource, self.pods, usage, container, self.now, tolerance
            )
            name = f"{words} utilization (percentage of request)"
            status["current"] = {
                "averageUtilization": proposal.utilization,
                "averageValue": _text(resource, proposal.average_milli),
            }
        else:
            milli = parse_quantity(target.get("averageValue", "0")).milli_value
            if milli <= 0:
                raise NoMetric(
                    "InvalidMetricSourceType", f"{words}: neither averageUtilization nor averageValue is given"
                )
            proposal = by_average(self.current, milli, resource, self.pods, usage, self.now, tolerance)
            name = words
            status["current"] = {"averageValue": _text(resource, proposal.average_milli)}
        self.metrics.append({"type": kind, field_name: status})
        return proposal, name

    # --- the end ------------------------------------------------------------------------------------------------------

    def _say(self, kind: str, status: str, reason: str, message: str) -> None:
        self.conditions = with_condition(self.conditions, kind, status, reason, message, self.now)

    def _end(self, wanted: int, reason: str, *, desired: int | None = None) -> Verdict:
        """`desired`: what the status calls desired, where nothing new could be worked out."""
        rescale = wanted != self.current
        if rescale:
            text = f"the HPA controller was able to update the target scale to {wanted}"
            self._say("AbleToScale", "True", "SucceededRescale", text)
            words = f"New size: {wanted}; reason: {reason}"
            self.events.append(Emit(NORMAL, "SuccessfulRescale", words))
        status: dict[str, Any] = {
            **self.hpa.status,
            "currentReplicas": self.current,
            "desiredReplicas": wanted if desired is None else desired,
            "conditions": self.conditions,
        }
        if self.metrics:
            status["currentMetrics"] = self.metrics
        if self.hpa.metadata.generation:
            status["observedGeneration"] = self.hpa.metadata.generation
        if rescale:
            status["lastScaleTime"] = rfc3339(self.now)
        actions = [*self.events, *status_patch(kinds.HORIZONTAL_POD_AUTOSCALER, self.hpa, status)]
        return Verdict(status, actions, wanted if rescale else None, words if rescale else "")


def _text(resource: str, milli: int) -> str:
    """An amount as the API writes it; memory is whole bytes."""
    if resource == "cpu":
        return f"{milli}m" if milli % 1000 else str(milli // 1000)
    return str(Quantity(milli // 1000 * 10**9))
