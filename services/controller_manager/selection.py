"""Services and the pods that they select: which of the one a change of the other concerns."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from machinery.api import kinds
from services.controller_manager.actions import rfc3339
from services.controller_manager.informers import Informers
from services.controller_manager.views.cluster import Service
from services.controller_manager.views.pod import Pod


def selects(service: Service, labels: dict[str, str]) -> bool:
    """Whether the Service's selector chooses these labels.

    No selector chooses nothing: somebody else makes its endpoints.
    """
    selector = service.spec.selector
    return bool(selector) and selector.items() <= labels.items()


def pods_of(informers: Informers, service: Service) -> list[Pod]:
    """The pods that a Service selects."""
    pods: Iterable[Pod] = informers.lister(kinds.POD).list(service.metadata.namespace)
    return [pod for pod in pods if selects(service, pod.metadata.labels)]


def pod_handler(informers: Informers, add: Callable[[str], None]) -> Callable[[Pod | None, Pod | None], None]:
    """A handler that queues every Service whose endpoints a pod's change may concern."""

    def on_pod(old: Pod | None, new: Pod | None) -> None:
        if old is not None and new is not None and _endpoint_state(old) == _endpoint_state(new):
            return
        pod = new or old
        assert pod is not None
        labels = [each.metadata.labels for each in (old, new) if each is not None]
        for service in informers.lister(kinds.SERVICE).list(pod.metadata.namespace):
            if any(selects(service, each) for each in labels):
                add(service.metadata.key)

    return on_pod


def _endpoint_state(pod: Pod) -> tuple[object, ...]:
    """All of a pod that its endpoints show."""
    ready = next((entry.status for entry in pod.status.conditions if entry.type == "Ready"), "")
    return (
        pod.metadata.labels,
        pod.metadata.deletionTimestamp is None,
        pod.status.phase in ("Failed", "Succeeded"),
        pod.status.podIPs,
        pod.spec.nodeName,
        ready,
    )


def trigger_time(service: Service, pods: Iterable[Pod]) -> str:
    """When the last cause of a change happened: the youngest readiness change, else the Service itself."""
    moments = [
        entry.lastTransitionTime
        for pod in pods
        for entry in pod.status.conditions
        if entry.type == "Ready" and entry.lastTransitionTime is not None
    ]
    if service.metadata.creationTimestamp is not None:
        moments.append(service.metadata.creationTimestamp)
    return rfc3339(max(moments)) if moments else ""
