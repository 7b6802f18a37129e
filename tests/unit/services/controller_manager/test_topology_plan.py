"""Endpoints shared out among zones: every zone has enough, nobody is overloaded, and nothing moves without need."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import msgspec
from hypothesis import assume, given
from hypothesis import strategies as st

from machinery.api import kinds
from services.controller_manager.controllers.endpoint_slice import plan as planner
from services.controller_manager.controllers.endpoint_slice.topology import Endpoint, Zones, apportion
from services.controller_manager.views.pod import Node
from tests.support.controllers import pod_template
from tests.support.plan_world import World

ZONES = ("a", "b", "c")
cpus = st.lists(st.integers(1, 20), min_size=2, max_size=3)
places = st.lists(st.sampled_from(ZONES), min_size=1, max_size=40)


def shares_of(milli: list[int]) -> dict[str, float]:
    return {zone: each / sum(milli) for zone, each in zip(ZONES, milli, strict=False)}


@given(milli=cpus, zones=places, kept=st.lists(st.sampled_from((*ZONES, "", "gone")), max_size=40))
def test_every_zone_gets_its_share_within_a_fifth_and_a_second_look_moves_nothing(
    milli: list[int], zones: list[str], kept: list[str]
) -> None:
    shares = shares_of(milli)
    assume(all(zone in shares for zone in zones))
    meant = [*kept, *[""] * len(zones)]
    endpoints = {f"e{n:02}": Endpoint(zone, meant[n]) for n, zone in enumerate(zones)}
    found = apportion(endpoints, shares)
    if isinstance(found, str):
        # Rounded as upstream rounds it: what is whole on paper may be a little more here.
        needed = sum(math.ceil(share * len(zones) * (1 / 1.2)) for share in shares.values())
        assert len(zones) < len(shares) or needed > len(zones)
        return
    least = {zone: math.ceil(share * len(zones) / 1.2 - 1e-9) for zone, share in shares.items()}
    assert found.keys() == endpoints.keys()
    held = Counter(found.values())
    assert held.keys() <= shares.keys()
    assert all(held[zone] >= least[zone] for zone in shares)
    again = apportion({key: Endpoint(each.zone, found[key]) for key, each in endpoints.items()}, shares)
    assert again == found


def test_a_zone_with_too_few_is_given_some_of_the_fullest() -> None:
    zones = {f"e{n}": Endpoint("a") for n in range(4)}
    found = apportion(zones, {"a": 0.5, "b": 0.5})
    assert sorted(found.values()) == ["a", "a", "b", "b"]  # type: ignore[union-attr]


def test_a_small_zone_gets_its_least_of_one_that_has_hardly_more_than_its_share() -> None:
    four = {f"e{n}": Endpoint("b") for n in range(4)}
    assert Counter(apportion(four, {"a": 0.1, "b": 0.9}).values()) == {"a": 1, "b": 3}  # type: ignore[union-attr]
    # b has no more than it needs, and d no more than its share: still a is not left without.
    many = {f"e{n:02}": Endpoint("d" if n < 11 else "b") for n in range(12)}
    found = apportion(many, {"a": 0.0375, "b": 0.0375, "d": 0.925})
    assert Counter(found.values()) == {"a": 1, "b": 1, "d": 10}  # type: ignore[union-attr]


def test_what_is_lacking_is_said() -> None:
    two = {"a": 0.5, "b": 0.5}
    assert str(apportion({"e": Endpoint("a")}, None)).startswith("Insufficient Node information")
    assert apportion({"e": Endpoint("a")}, two) == "Insufficient number of endpoints (1 endpoints, 2 zones)"
    assert "do not have a zone" in str(apportion({"e": Endpoint("a"), "f": Endpoint("")}, two))
    skewed = {"a": 0.9, "b": 0.05, "c": 0.05}
    assert "without exceeding overload threshold (3 endpoints, 3 zones)" in str(
        apportion({f"e{n}": Endpoint("a") for n in range(3)}, skewed)
    )


def node(name: str, zone: str = "a", cpu: str = "2", ready: str = "True", **labels: str) -> Node:
    labels |= {"topology.kubernetes.io/zone": zone} if zone else {}
    conditions = [{"type": "Ready", "status": ready}]
    raw = {
        "metadata": {"name": name, "labels": labels},
        "status": {"conditions": conditions, "allocatable": {"cpu": cpu}},
    }
    return msgspec.convert(raw, Node)


def test_only_ready_nodes_that_work_count_and_each_of_them_has_to_tell() -> None:
    zones = Zones()
    assert zones.set("n0", node("n0"))
    assert not zones.set("n0", node("n0"))
    assert zones.shares() is None, "one zone"
    zones.set("n1", node("n1", "b", "6"))
    assert zones.shares() == {"a": 0.25, "b": 0.75}
    zones.set("n2", node("n2", "", ready="False"))
    zones.set("n3", node("n3", "", **{"node-role.kubernetes.io/control-plane": ""}))
    assert zones.shares() == {"a": 0.25, "b": 0.75}
    zones.set("n4", node("n4", ""))
    assert zones.shares() is None
    assert zones.set("n4", None)
    assert zones.by_node == {"n0": "a", "n1": "b"}
    assert zones.shares() == {"a": 0.25, "b": 0.75}


def service(**annotations: str) -> dict[str, Any]:
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80}], "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"]}
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "annotations": annotations}, "spec": spec,
    }  # fmt: skip


def look(world: World) -> list[list[str]]:
    """One reconcile; the zones that each endpoint is meant for."""
    slices = world.views(kinds.ENDPOINT_SLICE)
    by_node = {"n0": "a", "n1": "b"}
    plan = planner.plan(world.view(kinds.SERVICE, "web"), world.pods(), slices, by_node, "", {"a": 0.5, "b": 0.5})
    world.apply(plan.actions)
    endpoints = [each for entry in world.views(kinds.ENDPOINT_SLICE) for each in entry.endpoints or ()]
    return sorted([hint["name"] for hint in (each.get("hints") or {}).get("forZones", ())] for each in endpoints)


def test_a_service_that_asks_for_it_gets_hints_until_it_does_not() -> None:
    world = World()
    world.create(service(**{"service.kubernetes.io/topology-mode": "Auto"}))
    for number in range(4):
        spec = {**pod_template({})["spec"], "nodeName": "n0" if number < 3 else "n1"}
        metadata = {"name": f"p{number}", "labels": {"app": "web"}}
        world.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        ip = f"10.1.0.{number + 1}"
        world.run_pod(f"p{number}", podIP=ip, podIPs=[{"ip": ip}])
    assert look(world) == [["a"], ["a"], ["b"], ["b"]]
    assert look(world) == [["a"], ["a"], ["b"], ["b"]]
    assert [(event.reason, event.message) for event in world.events] == [
        ("TopologyAwareHintsEnabled", "Topology Aware Hints has been enabled, addressType: IPv4")
    ]
    world.events.clear()
    world.patch(kinds.SERVICE, "web", {"metadata": {"annotations": {"service.kubernetes.io/topology-mode": None}}})
    assert look(world) == [[], [], [], []]
    assert [event.reason for event in world.events] == ["TopologyAwareHintsDisabled"]
