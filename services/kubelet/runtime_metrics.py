"""How often and how long the runtime was called, by upstream's names of the operations."""

from __future__ import annotations

import re
from functools import cache

from machinery.component import metrics

_TOTAL = metrics.counter(
    "kubelet_runtime_operations_total", "Cumulative number of runtime operations by type", ["operation_type"]
)
_ERRORS = metrics.counter(
    "kubelet_runtime_operations_errors_total", "Cumulative number of runtime operation errors", ["operation_type"]
)
_SECONDS = metrics.histogram(
    "kubelet_runtime_operations_duration_seconds", "Duration in seconds of runtime operations", ["operation_type"]
)


@cache
def operation(method: str) -> str:
    """`run_podsandbox` for RunPodSandbox: words by underscores, a sandbox being one word."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", method.replace("PodSandbox", "Podsandbox")).lower()


def observe(method: str, seconds: float, *, failed: bool) -> None:
    name = operation(method)
    _TOTAL.labels(name).inc()
    _SECONDS.labels(name).observe(seconds)
    if failed:
        _ERRORS.labels(name).inc()
