"""Looks at every autoscaler each fifteen seconds, and moves its target's scale subresource."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from machinery.api import errors, kinds, objects
from machinery.api.kinds import Kind
from machinery.api.selectors import LabelSelector, from_label_selector, parse_label_selector
from services.controller_manager.actions import WARNING, Emit, Plan
from services.controller_manager.controllers.horizontal_pod_autoscaler import plan as planner
from services.controller_manager.controllers.horizontal_pod_autoscaler.behavior import Memory
from services.controller_manager.controllers.horizontal_pod_autoscaler.metrics import PodMetrics, usage
from services.controller_manager.controllers.horizontal_pod_autoscaler.other_metrics import OtherMetrics, Unavailable
from services.controller_manager.controllers.horizontal_pod_autoscaler.replicas import NoMetric
from services.controller_manager.reconciler import OfKind
from services.controller_manager.views.pod import Pod
from services.controller_manager.views.workloads import HorizontalPodAutoscaler

_REMEMBER = timedelta(hours=1)


class HorizontalPodAutoscalerController(OfKind):
    """horizontal-pod-autoscaler"""

    name = "horizontal-pod-autoscaler"
    component = "horizontal-pod-autoscaler"
    kind = kinds.HORIZONTAL_POD_AUTOSCALER

    def watch(self) -> None:
        """Autoscalers; pods and nodes are read."""
        self._memory: dict[str, Memory] = {}
        # What the target of each autoscaler selects, as far as it was looked at.
        self._selectors: dict[str, LabelSelector] = {}
        self._metrics = PodMetrics(self.env.client, self.env.config.tls)
        self._others = OtherMetrics(self.env.config.rest, self.env.config.tls)
        self.on(self.kind, self._on_autoscaler)
        for kind in (kinds.POD, kinds.NODE):
            self.informers.of(kind)

    def _on_autoscaler(self, old: HorizontalPodAutoscaler | None, new: HorizontalPodAutoscaler | None) -> None:
        if new is None:
            assert old is not None
            self._memory.pop(old.metadata.uid, None)
            self._selectors.pop(old.metadata.key, None)
        elif old is None or old.spec != new.spec:
            self.add(new.metadata.key)

    async def reconcile(self, key: str) -> Plan | None:
        """One look."""
        hpa: HorizontalPodAutoscaler | None = self.lister(self.kind).by_key(key)
        if hpa is None:
            return None
        verdict = await self._judge(hpa)
        if verdict.scale_to is not None and not await self._scale(key, hpa, verdict):
            return Plan(requeue_after=self.env.config.autoscaler_seconds)
        outcome = await self.apply(key, self.subject(key), verdict.actions)
        if outcome.error is not None and not isinstance(outcome.error, errors.Conflict):
            said = Emit(WARNING, "FailedUpdateStatus", outcome.error.message)
            await self.apply(key, self.subject(key), [said])
            outcome.check()
        return Plan(requeue_after=self.env.config.autoscaler_seconds)

    async def _judge(self, hpa: HorizontalPodAutoscaler) -> planner.Verdict:
        now = self.env.now()
        try:
            scale = await self._get_scale(hpa)
        except errors.ApiError as err:
            text = f"the HPA controller was unable to get the target's current scale: {err.message}"
            return planner.failed(hpa, "AbleToScale", "FailedGetScale", text, now)
        selector = scale["status"].get("selector") or ""
        if not selector:
            text = "the HPA target's scale is missing a selector"
            event = Emit(WARNING, "SelectorRequired", "selector is required")
            return planner.failed(hpa, "ScalingActive", "InvalidSelector", text, now, event=event)
        parsed = self._selectors[hpa.metadata.key] = parse_label_selector(selector)
        pods: list[Pod] = self.lister(kinds.POD).list(hpa.metadata.namespace, parsed)
        if rivals := self._rivals(hpa, pods):
            text = f"pods by selector {selector} are controlled by multiple HPAs: {', '.join(rivals)}"
            return planner.failed(hpa, "ScalingActive", "AmbiguousSelector", text, now)
        other = await self._read_others(hpa, selector)
        sample = await self._metrics.read(hpa.metadata.namespace, pods, self.lister(kinds.NODE))
        memory = self._memory.setdefault(hpa.metadata.uid, Memory())
        memory.forget(now - _REMEMBER)
        current = int(scale["spec"].get("replicas") or 0)
        verdict = planner.plan(
            hpa, current, pods, lambda resource, container: usage(sample, resource, container), memory, now,
            other=other, running=int(scale["status"].get("replicas") or 0),
        )  # fmt: skip
        if verdict.scale_to is not None:
            memory.changes.append((now, verdict.scale_to - current))
        return verdict

    async def _read_others(self, hpa: HorizontalPodAutoscaler, selector: str) -> dict[int, Any]:
        """Metrics that other servers answer, by their number in the spec; NoMetric where one does not."""
        out: dict[int, Any] = {}
        for number, metric in enumerate(hpa.spec.get("metrics") or ()):
            kind = metric.get("type")
            if kind in ("Pods", "Object", "External"):
                try:
                    out[number] = await self._read_other(hpa.metadata.namespace, kind, metric[kind.lower()], selector)
                except Unavailable as err:
                    name = metric[kind.lower()]["metric"]["name"]
                    text = f"unable to get metric {name}: {err}"
                    if kind == "External":
                        text = f"failed to get {name} external metric value: {text}"
                    out[number] = NoMetric(f"FailedGet{kind}Metric", text)
        return out

    async def _read_other(self, namespace: str, kind: str, source: dict[str, Any], selector: str) -> Any:
        name, given = source["metric"]["name"], source["metric"].get("selector")
        narrowed = str(from_label_selector(given)) if given else ""
        if kind == "Pods":
            return await self._others.of_pods(namespace, name, selector, narrowed)
        if kind == "Object":
            return await self._others.of_object(namespace, source["describedObject"], name, narrowed)
        return await self._others.external(namespace, name, narrowed)

    def _rivals(self, hpa: HorizontalPodAutoscaler, pods: list[Pod]) -> list[str]:
        """All autoscalers that these pods are of, if they are of more than one: each would undo what another does."""
        own, prefix = hpa.metadata.key, f"{hpa.metadata.namespace}/"
        others = [
            key
            for key, selector in self._selectors.items()
            if key != own and key.startswith(prefix) and any(selector.matches(pod.metadata.labels) for pod in pods)
        ]
        return sorted([own, *others]) if others else []

    def _target(self, hpa: HorizontalPodAutoscaler) -> tuple[Kind, str]:
        ref: dict[str, Any] = hpa.spec["scaleTargetRef"]
        group, _, version = ref.get("apiVersion", "").rpartition("/")
        kind = kinds.find(ref.get("apiVersion", ""), ref["kind"])
        return kind or Kind(group, version, ref["kind"], ref["kind"].lower() + "s"), ref["name"]

    async def _get_scale(self, hpa: HorizontalPodAutoscaler) -> dict[str, Any]:
        kind, name = self._target(hpa)
        scale = objects.to_dict(await self.env.client.get(kind, name, hpa.metadata.namespace, subresource="scale"))
        scale.setdefault("spec", {})
        scale.setdefault("status", {})
        return scale

    async def _scale(self, key: str, hpa: HorizontalPodAutoscaler, verdict: planner.Verdict) -> bool:
        kind, name = self._target(hpa)
        patch = {"spec": {"replicas": verdict.scale_to}}
        try:
            await self.env.client.patch(kind, name, hpa.metadata.namespace, patch, subresource="scale")
        except errors.ApiError as err:
            text = f"the HPA controller was unable to update the target scale: {err.message}"
            event = Emit(WARNING, "FailedRescale", f"{verdict.rescale}; error: {err.message}")
            said = planner.failed(hpa, "AbleToScale", "FailedUpdateScale", text, self.env.now(), event=event)
            await self.apply(key, self.subject(key), said.actions)
            return False
        return True
