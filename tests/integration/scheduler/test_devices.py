"""Pods that claim devices: allocated and reserved before they are bound, never a device twice, and told what lacks."""

from __future__ import annotations

import asyncio
from typing import Any

from machinery.api import kinds
from machinery.api.errors import Conflict, ServiceUnavailable

DRIVER = "gpu.example.com"


async def add_class(world: Any, name: str = "gpu", **more: Any) -> None:
    spec = {**more, "selectors": [{"cel": {"expression": f'device.driver == "{DRIVER}"'}}]}
    await world.client.create(kinds.DEVICE_CLASS, {"metadata": {"name": name}, "spec": spec})


async def add_slice(world: Any, node: str, *devices: str, **more: Any) -> None:
    spec = {
        "driver": DRIVER,
        "nodeName": node,
        "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": name, **more} for name in devices],
    }
    await world.client.create(kinds.RESOURCE_SLICE, {"metadata": {"name": f"{node}-slice"}, "spec": spec})


async def add_claim(world: Any, name: str, **exactly: Any) -> None:
    devices = {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu", **exactly}}]}
    await world.client.create(
        kinds.RESOURCE_CLAIM, {"metadata": {"name": name}, "spec": {"devices": devices}}, "default"
    )


async def add_pod(world: Any, name: str, *claims: str) -> None:
    await world.add_pod(name, resourceClaims=[{"name": claim, "resourceClaimName": claim} for claim in claims])


def status(world: Any, claim: str) -> dict[str, Any]:
    found: dict[str, Any] = world.server.state.get(kinds.RESOURCE_CLAIM, "default", claim)
    return found.get("status", {})


def devices(world: Any, claim: str) -> list[tuple[str, str]]:
    results = status(world, claim).get("allocation", {}).get("devices", {}).get("results", ())
    return [(result["pool"], result["device"]) for result in results]


async def ready(world: Any, *nodes: str) -> None:
    for node in nodes:
        await world.add_node(node)
    await add_class(world)
    await world.start()


async def test_a_pod_gets_its_device_and_the_claim_says_so_before_the_pod_is_bound(world: Any) -> None:
    await ready(world, "n0", "n1", "n2")
    await add_slice(world, "n1", "d0", "d1")
    await add_claim(world, "c")
    await add_pod(world, "p", "c")
    await world.until(lambda: bool(world.placements()["p"]))
    assert world.placements() == {"p": "n1"}
    assert devices(world, "c") == [("n1", "d0")]
    pod = world.server.state.get(kinds.POD, "default", "p")
    assert status(world, "c")["reservedFor"] == [{"resource": "pods", "name": "p", "uid": pod["metadata"]["uid"]}]
    claim = world.server.state.get(kinds.RESOURCE_CLAIM, "default", "c")
    assert claim["metadata"]["finalizers"] == ["resource.kubernetes.io/delete-protection"]


async def test_no_device_is_given_twice(world: Any) -> None:
    await ready(world, *(f"n{number}" for number in range(4)))
    for number in range(4):
        await add_slice(world, f"n{number}", "d0", "d1", "d2")
    for number in range(14):
        await add_claim(world, f"c{number}")
        await add_pod(world, f"p{number}", f"c{number}")
    await world.until(lambda: sum(map(bool, world.placements().values())) == 12)
    given = [device for number in range(14) for device in devices(world, f"c{number}")]
    assert len(given) == len(set(given)) == 12
    assert all(devices(world, f"c{n}")[0][0] == node for n in range(14) if (node := world.placements()[f"p{n}"]))
    waiting = next(name for name, node in world.placements().items() if not node)
    await world.until(
        lambda: world.message(waiting).startswith("0/4 nodes are available: 4 cannot allocate all claims.")
    )


async def test_a_pod_waits_for_its_claim_its_class_and_a_device_and_no_longer(world: Any) -> None:
    await world.add_node("n0")
    await world.start()
    await add_pod(world, "p", "c")
    await world.add_pod("plain")
    await world.until(lambda: world.placements()["plain"] == "n0")
    await world.until(lambda: world.message("p") == 'resourceclaim "c" not found')
    await add_claim(world, "c")
    await world.until(lambda: "request r: device class gpu does not exist" in world.message("p"))
    await add_class(world)
    await world.until(lambda: "1 cannot allocate all claims" in world.message("p"))
    assert world.placements()["p"] == ""
    await add_slice(world, "n0", "d0")
    await world.until(lambda: world.placements()["p"] == "n0")


async def test_pods_that_share_a_claim_go_where_its_devices_are(world: Any) -> None:
    await ready(world, "n0", "n1")
    await add_slice(world, "n1", "d0")
    await add_claim(world, "c")
    for number in range(3):
        await add_pod(world, f"p{number}", "c")
    await world.until(lambda: all(world.placements().values()))
    assert set(world.placements().values()) == {"n1"}
    assert len(status(world, "c")["reservedFor"]) == 3


async def test_a_device_that_comes_free_goes_to_who_waits(world: Any) -> None:
    await ready(world, "n0")
    await add_slice(world, "n0", "d0")
    for name in ("a", "b"):
        await add_claim(world, name)
        await add_pod(world, name, name)
    await world.until(lambda: any(world.placements().values()) and any(map(world.message, "ab")))
    (first,) = [name for name, node in world.placements().items() if node]
    # What the claim controller does once the pod is gone.
    freed = {"status": {"allocation": None, "reservedFor": None}}
    await world.client.patch(kinds.RESOURCE_CLAIM, first, "default", freed, subresource="status")
    await world.until(lambda: all(world.placements().values()))


async def test_a_write_that_is_refused_or_lost_neither_loses_nor_doubles_a_device(world: Any) -> None:
    await ready(world, "n0")
    await add_slice(world, "n0", "d0", "d1")
    trouble = [Conflict("changed"), ServiceUnavailable("lost"), ServiceUnavailable("lost"), Conflict("changed")]

    def fail(method: str, request: Any) -> Exception | None:
        if method == "Patch" and b"allocation" in request.patch and trouble:
            return trouble.pop()
        return None

    world.server.intercept = fail
    for name in ("a", "b"):
        await add_claim(world, name)
        await add_pod(world, name, name)
    await world.until(lambda: all(world.placements().values()))
    assert not trouble
    assert sorted(devices(world, "a") + devices(world, "b")) == [("n0", "d0"), ("n0", "d1")]


async def test_a_pod_that_could_not_be_bound_gives_back_its_reservation(world: Any) -> None:
    await ready(world, "n0")
    await add_slice(world, "n0", "d0")
    await add_claim(world, "c")
    refusals = [Conflict("no")] * 2
    reservations: list[int] = []

    def fail(method: str, request: Any) -> Exception | None:
        if method == "Batch" and b"Binding" in request.SerializeToString() and refusals:
            reservations.append(len(status(world, "c").get("reservedFor", ())))
            return refusals.pop()
        return None

    world.server.intercept = fail
    await add_pod(world, "p", "c")
    await world.until(lambda: world.placements()["p"] == "n0")
    await world.until(lambda: len(status(world, "c")["reservedFor"]) == 1)
    assert reservations == [1, 1]
    assert devices(world, "c") == [("n0", "d0")]


async def test_a_claim_stuck_on_a_node_that_takes_no_more_pods_is_allocated_anew(world: Any) -> None:
    await ready(world, "n0", "n1")
    await add_slice(world, "n0", "d0")
    await add_claim(world, "c")
    await add_pod(world, "first", "c")
    await world.until(lambda: world.placements()["first"] == "n0")
    await world.client.patch(kinds.NODE, "n0", "", {"spec": {"unschedulable": True}})
    empty = {"status": {"reservedFor": None}}
    await world.client.patch(kinds.RESOURCE_CLAIM, "c", "default", empty, subresource="status")
    await add_slice(world, "n1", "d1")
    await add_pod(world, "second", "c")
    await world.until(lambda: world.placements()["second"] == "n1")
    assert devices(world, "c") == [("n1", "d1")]


async def test_a_pod_waits_until_its_device_is_ready(world: Any) -> None:
    await ready(world, "n0")
    await add_slice(world, "n0", "d0", bindingConditions=["attached"], bindingFailureConditions=["broken"])
    await add_claim(world, "c")
    await add_pod(world, "p", "c")
    await world.until(lambda: bool(devices(world, "c")))
    await asyncio.sleep(0)
    assert world.placements()["p"] == ""
    moment = "2026-01-01T00:00:00Z"
    condition = {"type": "attached", "status": "True", "reason": "r", "message": "", "lastTransitionTime": moment}
    said = {"driver": DRIVER, "pool": "n0", "device": "d0", "conditions": [condition]}
    await world.client.patch(
        kinds.RESOURCE_CLAIM, "c", "default", {"status": {"devices": [said]}}, subresource="status"
    )
    await world.until(lambda: world.placements()["p"] == "n0")


async def test_after_a_restart_what_claims_hold_is_still_theirs(world: Any) -> None:
    await ready(world, "n0")
    await add_slice(world, "n0", "d0", "d1")
    await add_claim(world, "a")
    await add_pod(world, "a", "a")
    await world.until(lambda: world.placements()["a"] == "n0")
    await world.stop()
    await world.start()
    await add_claim(world, "b")
    await add_pod(world, "b", "b")
    await world.until(lambda: world.placements()["b"] == "n0")
    assert {*devices(world, "a"), *devices(world, "b")} == {("n0", "d0"), ("n0", "d1")}


async def test_a_broken_expression_is_the_pods_trouble_alone(world: Any) -> None:
    await ready(world, "n0")
    await add_slice(world, "n0", "d0")
    await add_claim(world, "c", selectors=[{"cel": {"expression": 'device.attributes["x"].absent == 1'}}])
    await add_pod(world, "p", "c")
    await world.add_pod("plain")
    await world.until(lambda: world.placements()["plain"] == "n0")
    await world.until(
        lambda: "claim default/c: selector #0: CEL runtime error: no such key: absent" in world.message("p")
    )


async def test_a_rule_keeps_pods_from_devices_until_it_goes_or_a_claim_tolerates_it(world: Any) -> None:
    await ready(world, "n0")
    await add_slice(world, "n0", "d0", "d1")
    spec = {"deviceSelector": {"driver": DRIVER}, "taint": {"key": "repair", "effect": "NoSchedule"}}
    await world.client.create(kinds.DEVICE_TAINT_RULE, {"metadata": {"name": "repair"}, "spec": spec})
    await world.until(lambda: len(world.scheduler.devices.taint_rules.lister) == 1, awake=True)
    await add_claim(world, "a")
    await add_pod(world, "a", "a")
    await world.until(lambda: "1 cannot allocate all claims" in world.message("a"))
    bears = [{"key": "repair", "operator": "Exists", "effect": "NoSchedule"}]
    await add_claim(world, "b", tolerations=bears)
    await add_pod(world, "b", "b")
    await world.until(lambda: world.placements()["b"] == "n0")
    assert world.placements()["a"] == ""
    assert status(world, "b")["allocation"]["devices"]["results"][0]["tolerations"] == bears
    await world.client.delete(kinds.DEVICE_TAINT_RULE, "repair")
    await world.until(lambda: world.placements()["a"] == "n0")


# --- extended resources -----------------------------------------------------------------------------------------------

GPU = "example.com/gpu"


async def add_asking(world: Any, name: str, count: int = 1, resource: str = GPU) -> None:
    container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": "1m", resource: str(count)}}}
    await world.add_pod(name, containers=[container])


def extended_claims(world: Any) -> dict[str, dict[str, Any]]:
    """By the pod that owns it, the claim for its extended resources."""
    claims = world.server.state.list(kinds.RESOURCE_CLAIM, "", lambda obj: True)
    return {claim["metadata"]["ownerReferences"][0]["name"]: claim for claim in claims}


async def test_an_extended_resource_is_had_from_devices_of_the_class_that_offers_it(world: Any) -> None:
    await world.add_node("n0")
    await world.add_node("n1")
    await add_class(world, extendedResourceName=GPU)
    await world.start()
    await add_slice(world, "n1", "d0", "d1", "d2")
    await add_asking(world, "p", 2)
    await world.until(lambda: world.placements()["p"] == "n1")
    pod = world.server.state.get(kinds.POD, "default", "p")
    claim = extended_claims(world)["p"]
    assert claim["metadata"]["annotations"] == {"resource.kubernetes.io/extended-resource-claim": "true"}
    assert claim["metadata"]["name"].startswith("p-extended-resources-")
    assert claim["metadata"]["ownerReferences"][0]["uid"] == pod["metadata"]["uid"]
    results = claim["status"]["allocation"]["devices"]["results"]
    assert [(result["request"], result["device"]) for result in results] == [
        ("container-0-request-1", "d0"), ("container-0-request-1", "d1"),
    ]  # fmt: skip
    assert [consumer["uid"] for consumer in claim["status"]["reservedFor"]] == [pod["metadata"]["uid"]]
    assert pod["status"]["extendedResourceClaimStatus"] == {
        "resourceClaimName": claim["metadata"]["name"],
        "requestMappings": [{"containerName": "c", "resourceName": GPU, "requestName": "container-0-request-1"}],
    }
    # One is left: two pods that ask for it do not both get it, also by the name that every class gives.
    await add_asking(world, "q", 1, "deviceclass.resource.kubernetes.io/gpu")
    await add_asking(world, "r", 1)
    await world.until(lambda: sum(map(bool, world.placements().values())) == 2)
    waiting = next(name for name, node in world.placements().items() if not node)
    await world.until(lambda: "2 cannot allocate all claims" in world.message(waiting))


async def test_a_class_that_comes_later_helps_and_what_a_node_offers_itself_is_not_claimed(world: Any) -> None:
    await world.add_node("n0")
    await world.start()
    await add_slice(world, "n0", "d0")
    await add_asking(world, "p")
    await world.until(lambda: "Insufficient example.com/gpu" in world.message("p"))
    await add_class(world, extendedResourceName=GPU)
    await world.until(lambda: world.placements()["p"] == "n0")
    await world.client.create(
        kinds.NODE,
        {
            "metadata": {"name": "n1", "labels": {}},
            "status": {"allocatable": {"cpu": "4", "pods": "110", "memory": "8Gi", GPU: "1"}},
        },
    )
    await add_asking(world, "q")
    await world.until(lambda: world.placements()["q"] == "n1")
    assert set(extended_claims(world)) == {"p"}
    await add_asking(world, "r")
    await world.until(
        lambda: "1 Insufficient example.com/gpu" in world.message("r") and "1 cannot allocate all" in world.message("r")
    )


async def test_the_claim_of_an_attempt_in_vain_is_deleted_and_its_devices_are_free_again(world: Any) -> None:
    await world.add_node("n0")
    await add_class(world, extendedResourceName=GPU)
    await world.start()
    await add_slice(world, "n0", "d0")
    trouble = [Conflict("no"), ServiceUnavailable("lost")]
    seen: set[str] = set()

    def fail(method: str, request: Any) -> Exception | None:
        if method == "Batch" and b"Binding" in request.SerializeToString() and trouble:
            seen.update(claim["metadata"]["uid"] for claim in extended_claims(world).values())
            return trouble.pop(0)
        return None

    world.server.intercept = fail
    await add_asking(world, "p")
    await world.until(lambda: world.placements()["p"] == "n0")
    assert not trouble
    claim = extended_claims(world)["p"]
    assert claim["metadata"]["uid"] not in seen
    assert len(world.server.state.list(kinds.RESOURCE_CLAIM, "", lambda obj: True)) == 1
    told = world.server.state.get(kinds.POD, "default", "p")["status"]["extendedResourceClaimStatus"]
    assert told["resourceClaimName"] == claim["metadata"]["name"]


async def test_what_a_scheduler_that_died_had_claimed_is_given_up_for_another_attempt(world: Any) -> None:
    await world.add_node("n0")
    await add_class(world, extendedResourceName=GPU)
    await add_slice(world, "n0", "d0")
    await world.client.create(kinds.POD, _asking("p"), "default")
    owner = world.server.state.get(kinds.POD, "default", "p")["metadata"]
    left = {
        "metadata": {
            "name": "p-extended-resources-left",
            "annotations": {"resource.kubernetes.io/extended-resource-claim": "true"},
            "finalizers": ["resource.kubernetes.io/delete-protection"],
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": owner["uid"], "controller": True}
            ],
        },
        "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}},
    }
    await world.client.create(kinds.RESOURCE_CLAIM, left, "default")
    held = {"devices": {"results": [{"request": "r", "driver": DRIVER, "pool": "n0", "device": "d0"}]}}
    await world.client.patch(
        kinds.RESOURCE_CLAIM,
        left["metadata"]["name"],
        "default",
        {"status": {"allocation": held}},
        subresource="status",
    )
    await world.start()
    await world.until(lambda: world.placements()["p"] == "n0")
    assert extended_claims(world)["p"]["metadata"]["name"] != left["metadata"]["name"]


def _asking(name: str) -> dict[str, Any]:
    container = {"name": "c", "image": "i", "resources": {"requests": {GPU: "1"}}}
    return {"metadata": {"name": name}, "spec": {"containers": [container]}}
