"""Between versions that share a storage: events of both groups, autoscalers of both versions."""

from __future__ import annotations

from typing import Any

# core/v1 Event -> events.k8s.io/v1 Event; the other way by the same table.
_EVENT_FIELDS = {
    "involvedObject": "regarding",
    "reportingComponent": "reportingController",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
}


class EventConversion:
    """The same event, its fields named for the other group."""

    def to_stored(self, obj: dict[str, Any]) -> dict[str, Any]:
        return _renamed(obj, {new: old for old, new in _EVENT_FIELDS.items()})

    def to_served(self, obj: dict[str, Any]) -> dict[str, Any]:
        return _renamed(obj, _EVENT_FIELDS)


def _renamed(obj: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in obj.items()}


_METRICS = "autoscaling.alpha.kubernetes.io/metrics"
_BEHAVIOR = "autoscaling.alpha.kubernetes.io/behavior"
_CONDITIONS = "autoscaling.alpha.kubernetes.io/conditions"
_CURRENT_METRICS = "autoscaling.alpha.kubernetes.io/current-metrics"


class AutoscalerConversion:
    """autoscaling/v1 knows one cpu target; what else v2 says it carries in annotations, as upstream does."""

    def to_stored(self, obj: dict[str, Any]) -> dict[str, Any]:
        import orjson

        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        annotations = obj["metadata"].get("annotations") or {}
        metrics = orjson.loads(annotations.pop(_METRICS, "[]"))
        target = spec.pop("targetCPUUtilizationPercentage", None)
        if target is not None:
            metrics.insert(0, _cpu(target))
        if metrics:
            spec["metrics"] = metrics
        if _BEHAVIOR in annotations:
            spec["behavior"] = orjson.loads(annotations.pop(_BEHAVIOR))
        current = status.pop("currentCPUUtilizationPercentage", None)
        current_metrics = orjson.loads(annotations.pop(_CURRENT_METRICS, "[]"))
        if current is not None:
            value = {"averageUtilization": current, "averageValue": "0"}
            current_metrics.insert(0, {"type": "Resource", "resource": {"name": "cpu", "current": value}})
        if current_metrics:
            status["currentMetrics"] = current_metrics
        if _CONDITIONS in annotations:
            status["conditions"] = orjson.loads(annotations.pop(_CONDITIONS))
        if not annotations:
            obj["metadata"].pop("annotations", None)
        return obj

    def to_served(self, obj: dict[str, Any]) -> dict[str, Any]:
        import orjson

        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        extra: dict[str, str] = {}
        target, others = _cpu_target(spec.pop("metrics", None) or [])
        if target is not None:
            spec["targetCPUUtilizationPercentage"] = target
        if others:
            extra[_METRICS] = orjson.dumps(others).decode()
        for holder, field, name in (
            (spec, "behavior", _BEHAVIOR),
            (status, "conditions", _CONDITIONS),
            (status, "currentMetrics", _CURRENT_METRICS),
        ):
            value = holder.pop(field, None)
            if value:
                extra[name] = orjson.dumps(value).decode()
        if extra:
            obj["metadata"]["annotations"] = {**(obj["metadata"].get("annotations") or {}), **extra}
        return obj


def _cpu(percent: int) -> dict[str, Any]:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


def _cpu_target(metrics: list[dict[str, Any]]) -> tuple[int | None, list[dict[str, Any]]]:
    for index, metric in enumerate(metrics):
        resource = metric.get("resource") or {}
        target = resource.get("target") or {}
        if metric.get("type") == "Resource" and resource.get("name") == "cpu" and "averageUtilization" in target:
            return target["averageUtilization"], metrics[:index] + metrics[index + 1 :]
    return None, metrics
