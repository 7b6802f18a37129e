"""The kubelet's own metrics, by upstream's names.

Counters are counted where things happen; gauges when they are read.
"""

from __future__ import annotations

from collections.abc import Iterable

from machinery.component import metrics
from services.kubelet import pod_spec
from services.kubelet.pod_worker import PodWorker
from services.kubelet.runtime_state import State

_STATES = {State.CREATED: "created", State.RUNNING: "running", State.EXITED: "exited", State.UNKNOWN: "unknown"}
_RUNNING_PODS = metrics.gauge("kubelet_running_pods", "Number of pods that have a running pod sandbox")
_CONTAINERS = metrics.gauge("kubelet_running_containers", "Number of containers", ["container_state"])
_DESIRED = metrics.gauge("kubelet_desired_pods", "Number of pods that the kubelet is to run", ["static"])
_NODE = metrics.gauge("kubelet_node_name", "The node's name. The count is always 1", ["node"])


def observe(node: str, workers: Iterable[PodWorker]) -> None:
    """Set the gauges to what there is now."""
    _NODE.labels(node).set(1)
    sandboxes, static, states = 0, [0, 0], dict.fromkeys(_STATES.values(), 0)
    for worker in workers:
        sandboxes += worker.runtime.ready_sandbox is not None
        static[pod_spec.is_static(worker.pod)] += 1
        for record in worker.runtime.containers:
            states[_STATES[record.state]] += 1
    _RUNNING_PODS.set(sandboxes)
    for count, label in zip(static, ("", "true"), strict=True):
        _DESIRED.labels(label).set(count)
    for state, count in states.items():
        _CONTAINERS.labels(state).set(count)
