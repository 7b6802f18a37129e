"""The scheduler's metrics, by upstream's names."""

from __future__ import annotations

from machinery.component import metrics
from services.scheduler.queue import ACTIVE, BACKOFF, GATED, UNSCHEDULABLE, SchedulingQueue

_FINE = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)

attempts = metrics.counter(
    "scheduler_schedule_attempts_total", "Attempts to schedule a pod, by result.", ("result", "profile")
)
algorithm_seconds = metrics.histogram(
    "scheduler_scheduling_algorithm_duration_seconds", "Time to choose a node.", buckets=_FINE
)
sli_seconds = metrics.histogram(
    "scheduler_pod_scheduling_sli_duration_seconds",
    "Time from a pod's appearance in the queue to its binding.",
    ("attempts",),
)
bind_seconds = metrics.histogram("scheduler_binding_duration_seconds", "Time that a batch of bindings took.")
preemption_attempts = metrics.counter("scheduler_preemption_attempts_total", "Preemption attempts.")
preemption_victims = metrics.histogram(
    "scheduler_preemption_victims", "Victims a preemption.", buckets=(1, 2, 4, 8, 16, 32, 64)
)
pending = metrics.gauge("scheduler_pending_pods", "Pods that wait, by queue.", ("queue",))
cache_size = metrics.gauge("scheduler_cache_size", "Nodes and pods in the scheduler's state.", ("type",))


def watch_queue(queue: SchedulingQueue) -> None:
    """Export the queue's counts."""
    for name in (ACTIVE, BACKOFF, UNSCHEDULABLE, GATED):
        pending.labels(name).set_function(lambda name=name: queue.counts[name])  # type: ignore[misc]
