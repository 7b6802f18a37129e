"""What pods and containers went through, counted where it happens, by upstream's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightkube.models import core_v1

from machinery.component import metrics

_KINDS = {
    "containerStatuses": "container",
    "initContainerStatuses": "init_container",
    "ephemeralContainerStatuses": "ephemeral_container",
}
_STARTED_PODS = metrics.counter("kubelet_started_pods_total", "Cumulative number of pods started")
_STARTED_PODS_ERRORS = metrics.counter("kubelet_started_pods_errors_total", "Cumulative number of errors starting pods")
_USER_PODS = metrics.counter(
    "kubelet_started_user_namespaced_pods_total", "Cumulative number of pods with user namespaces started"
)
_USER_PODS_ERRORS = metrics.counter(
    "kubelet_started_user_namespaced_pods_errors_total",
    "Cumulative number of errors starting pods with user namespaces",
)
_STARTED = metrics.counter(
    "kubelet_started_containers_total", "Cumulative number of containers started", ["container_type"]
)
_START_ERRORS = metrics.counter(
    "kubelet_started_containers_errors_total", "Cumulative number of errors starting containers",
    ["container_type", "code"],
)  # fmt: skip
_TERMINATED = metrics.counter(
    "kubelet_terminated_containers_total", "Cumulative number of container terminations",
    ["container_type", "exit_code", "reason"],
)  # fmt: skip
# Upstream's name has no `_total`, which a counter's would get.
_EVICTIONS = metrics.gauge(
    "kubelet_evictions", "Cumulative number of pod evictions by eviction signal", ["eviction_signal"]
)
for _kind in _KINDS.values():
    _STARTED.labels(_kind)


def pod_started(pod: core_v1.Pod, error: str = "") -> None:
    """A sandbox was made, or could not be."""
    if error:
        _STARTED_PODS_ERRORS.inc()
        _user_pod_failed(pod)
        return
    _STARTED_PODS.inc()
    if pod.spec.hostUsers is False:
        _USER_PODS.inc()


def container_started(pod: core_v1.Pod, name: str, error: str = "") -> None:
    """A container was started, or could not be, for the reason that its status shows."""
    kind = _kind_of(pod, name)
    _STARTED.labels(kind).inc()
    if error:
        _START_ERRORS.labels(kind, error).inc()
        _user_pod_failed(pod)


def _user_pod_failed(pod: core_v1.Pod) -> None:
    if pod.spec.hostUsers is False:
        _USER_PODS_ERRORS.inc()


def _kind_of(pod: core_v1.Pod, name: str) -> str:
    if any(c.name == name for c in pod.spec.initContainers or ()):
        return "init_container"
    return "container" if any(c.name == name for c in pod.spec.containers) else "ephemeral_container"


def evicted(signal: str) -> None:
    """A pod was ended because of this signal."""
    _EVICTIONS.labels(signal).inc()


def status_changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Count the containers that are shown as terminated and were not before."""
    for group, kind in _KINDS.items():
        old = {entry["name"]: entry.get("state") or {} for entry in before.get(group) or ()}
        for entry in after.get(group) or ():
            ended = (entry.get("state") or {}).get("terminated")
            if ended is not None and "terminated" not in old.get(entry["name"], {}):
                _TERMINATED.labels(kind, str(ended.get("exitCode", 0)), ended.get("reason") or "").inc()
