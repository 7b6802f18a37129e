"""Extended resources that devices stand behind (KEP-5004): a pod requests `example.com/gpu: 2` as it would of a device
plugin, and gets a claim for two devices of the class that offers this name. Pure.

The scheduler writes that claim itself, when it knows the node: what the node's own allocatable offers is not claimed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from services.scheduler.devices.objects import DeviceClass, Exact, Request
from services.scheduler.objects import Container, PodSpec
from services.scheduler.pod_info import amount

ANNOTATION = "resource.kubernetes.io/extended-resource-claim"
"""Marks the claim that stands for a pod's extended resources."""
IMPLICIT = "deviceclass.resource.kubernetes.io/"
"""Before a class's name: the extended resource that every class offers."""


class Use(NamedTuple):
    """Which request of the claim gives a container its resource: ContainerExtendedResourceRequest."""

    containerName: str
    resourceName: str
    requestName: str


def by_resource(classes: Iterable[DeviceClass]) -> dict[str, str]:
    """The name of the class behind each extended resource.

    Of two classes that give the same name the younger counts, so that one can be replaced by another.
    """
    out: dict[str, str] = {}
    for each in sorted(classes, key=_older_first):
        out[IMPLICIT + each.metadata.name] = each.metadata.name
        if each.spec.extendedResourceName:
            out[each.spec.extendedResourceName] = each.metadata.name
    return out


def _older_first(each: DeviceClass) -> tuple[float, tuple[int, ...]]:
    made = each.metadata.creationTimestamp
    # Of two of one age the lower name counts.
    return (made.timestamp() if made else 0.0, (*(-ord(letter) for letter in each.metadata.name), 1))


def requests_for(spec: PodSpec, resources: Mapping[str, str]) -> tuple[list[Request], list[Use]]:
    """The claim's requests, and who uses them. `resources`: the class of each that is to be had from devices.

    Containers and sidecars have devices of their own. Init containers run before what comes later, and one at a time:
    they use the devices of those, and where these are too few, more that they share among them.
    """
    containers = [*(spec.initContainers or ()), *spec.containers]
    inits = len(spec.initContainers or ())
    short = [at for at, each in enumerate(containers[:inits]) if each.restartPolicy != "Always"]
    requests: list[Request] = []
    uses: list[Use] = []
    for resource in sorted(resources):
        lasting: dict[int, Request] = {}
        for at, container in enumerate(containers):
            count = 0 if at in short else _count(container, resource)
            if count:
                lasting[at] = _request(at, container, resource, resources[resource], count)
                uses.append(Use(container.name, resource, lasting[at].name))
        extra = _extra(containers, short, resource, resources[resource], lasting)
        for at in short:
            missing = _count(containers[at], resource)
            for later in sorted(lasting):
                if later > at and missing > 0:
                    uses.append(Use(containers[at].name, resource, lasting[later].name))
                    missing -= _wanted(lasting[later])
            if missing > 0 and extra is not None:
                uses.append(Use(containers[at].name, resource, extra.name))
        requests += [*([extra] if extra else ()), *lasting.values()]
    return sorted(requests, key=lambda request: request.name), uses


def _extra(
    containers: list[Container], short: list[int], resource: str, of_class: str, lasting: Mapping[int, Request]
) -> Request | None:
    """The largest of what single init containers need beyond the devices of those that run later."""
    most: Request | None = None
    for at in short:
        later = sum(_wanted(request) for position, request in lasting.items() if position > at)
        missing = _count(containers[at], resource) - later
        if missing > 0 and (most is None or missing > _wanted(most)):
            most = _request(at, containers[at], resource, of_class, missing)
    return most


def _wanted(request: Request) -> int:
    assert request.exactly is not None
    return request.exactly.count


def _count(container: Container, resource: str) -> int:
    text = ((container.resources.requests if container.resources else None) or {}).get(resource)
    return amount(resource, text) if text is not None else 0


def _request(at: int, container: Container, resource: str, of_class: str, count: int) -> Request:
    assert container.resources is not None
    names = sorted(container.resources.requests or ())
    name = f"container-{at}-request-{names.index(resource)}"
    return Request(name=name, exactly=Exact(deviceClassName=of_class, count=count))


def claim_body(pod: Any, requests: Iterable[Request]) -> dict[str, Any]:
    """The claim as it is created: the pod's own, which goes with it."""
    meta = pod.metadata
    owner = {"apiVersion": "v1", "kind": "Pod", "name": meta.name, "uid": meta.uid, "controller": True}
    devices = [
        {
            "name": request.name,
            "exactly": {
                "deviceClassName": request.exactly.deviceClassName,
                "allocationMode": "ExactCount",
                "count": request.exactly.count,
            },
        }
        for request in requests
        if request.exactly is not None
    ]
    return {
        "metadata": {
            "generateName": f"{meta.name}-extended-resources-",
            "namespace": meta.namespace,
            "annotations": {ANNOTATION: "true"},
            "ownerReferences": [owner],
        },
        "spec": {"devices": {"requests": devices}},
    }
