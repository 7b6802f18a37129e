"""The claim for a pod's extended resources: who needs how many devices, and whose devices init containers use."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from services.scheduler.devices.extended import ANNOTATION, by_resource, requests_for
from services.scheduler.devices.objects import DeviceClass, DeviceResourceClaim
from services.scheduler.devices.store import Devices
from services.scheduler.objects import PodSpec
from services.scheduler.pod_info import pod_requests

GPU = "example.com/gpu"


def container(name: str, gpus: int = 0, **more: Any) -> dict[str, Any]:
    requests = {"cpu": "1", **({GPU: str(gpus)} if gpus else {})}
    return {"name": name, "resources": {"requests": requests}, **more}


def sidecar(name: str, gpus: int) -> dict[str, Any]:
    return container(name, gpus, restartPolicy="Always")


def claimed(containers: list[Any], init: list[Any]) -> tuple[dict[str, int], dict[str, list[str]]]:
    """(how many devices each request is for, which requests each container uses)"""
    spec = msgspec.convert({"containers": containers, "initContainers": init}, PodSpec)
    requests, uses = requests_for(spec, {GPU: "gpu"})
    assert all(request.exactly and request.exactly.deviceClassName == "gpu" for request in requests)
    assert all(use.resourceName == GPU for use in uses)
    used: dict[str, list[str]] = {}
    for use in uses:
        used.setdefault(use.containerName, []).append(use.requestName)
    return {request.name: request.exactly.count for request in requests if request.exactly}, used


def test_each_container_has_devices_of_its_own():
    counts, used = claimed([container("a", 2), container("b"), container("c", 1)], [])
    assert counts == {"container-0-request-1": 2, "container-2-request-1": 1}
    assert used == {"a": ["container-0-request-1"], "c": ["container-2-request-1"]}


def test_init_containers_use_what_later_containers_have_and_share_what_they_need_beyond():
    counts, used = claimed([container("a", 1)], [container("i", 2), container("j", 4), sidecar("s", 1)])
    assert counts == {"container-1-request-1": 2, "container-2-request-1": 1, "container-3-request-1": 1}
    assert used["i"] == ["container-2-request-1", "container-3-request-1"]
    assert used["j"] == ["container-2-request-1", "container-3-request-1", "container-1-request-1"]


def test_a_sidecar_that_started_before_keeps_its_devices_to_itself():
    counts, used = claimed([container("a")], [sidecar("s", 1), container("i", 1)])
    assert counts == {"container-0-request-1": 1, "container-1-request-1": 1}
    assert used == {"s": ["container-0-request-1"], "i": ["container-1-request-1"]}


numbers = st.lists(st.integers(0, 3), max_size=3)


@given(main=numbers, init=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=4))
def test_as_many_devices_are_claimed_as_the_pod_is_counted_for(main: list[int], init: list[tuple[int, bool]]) -> None:
    containers = [container(f"c{at}", count) for at, count in enumerate(main)]
    inits = [(sidecar if always else container)(f"i{at}", count) for at, (count, always) in enumerate(init)]
    counts, used = claimed(containers, inits)
    spec = msgspec.convert({"containers": containers, "initContainers": inits}, PodSpec)
    assert sum(counts.values()) == pod_requests(spec).get(GPU, 0)
    for each in (*containers, *inits):
        wanted = int(each["resources"]["requests"].get(GPU, 0))
        mine = sum(counts[name] for name in used.get(each["name"], ()))
        assert mine >= wanted
        assert bool(mine) == bool(wanted)


def test_the_younger_class_of_a_resource_counts_and_of_two_of_one_age_the_lower_name():
    def of(name: str, resource: str, day: int) -> DeviceClass:
        metadata = {"name": name, "creationTimestamp": f"2026-01-0{day}T00:00:00Z"}
        return msgspec.convert({"metadata": metadata, "spec": {"extendedResourceName": resource}}, DeviceClass)

    classes = [of("new", GPU, 2), of("old", GPU, 1), of("ab", "x/y", 1), of("a", "x/y", 1), of("b", "x/y", 1)]
    found = by_resource(classes)
    assert (found[GPU], found["x/y"]) == ("new", "a")
    assert found["deviceclass.resource.kubernetes.io/old"] == "old"


def test_a_pods_new_claim_is_known_whenever_that_of_an_attempt_in_vain_goes():
    devices = Devices(None)  # type: ignore[arg-type]

    def of(name: str) -> DeviceResourceClaim:
        owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "p-uid", "controller": True}
        metadata = {"name": name, "uid": name, "annotations": {ANNOTATION: "true"}, "ownerReferences": [owner]}
        return msgspec.convert({"metadata": metadata}, DeviceResourceClaim)

    for name in ("vain", "new"):
        devices.claims.lister._put(name, of(name))
        devices.on_claim(None, of(name))
    assert {each.metadata.name for each in devices.extended_claims("p-uid")} == {"vain", "new"}
    devices.claims.lister._remove("vain")
    devices.on_claim(of("vain"), None)
    assert [each.metadata.name for each in devices.extended_claims("p-uid")] == ["new"]
