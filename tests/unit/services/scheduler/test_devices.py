"""Devices for claims: the search, against a reading of its own of what claims ask for, and its rules one by one."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machinery.api.quantity import parse_quantity
from services.scheduler.cluster_state import ClusterState
from services.scheduler.devices.allocation import allocation
from services.scheduler.devices.allocator import AllocationError, Budget, InvalidPool, Search, Taken, options_of
from services.scheduler.devices.catalog import SliceViews
from services.scheduler.devices.objects import DeviceClass, DeviceResourceClaim, ResourceSlice, Result
from services.scheduler.devices.shortage import shortage
from services.scheduler.objects import decode_node

DRIVER = "gpu.example.com"
CLASSES = {
    "gpu": {
        "metadata": {"name": "gpu"},
        "spec": {"selectors": [{"cel": {"expression": f'device.driver == "{DRIVER}"'}}]},
    },
    "any": {"metadata": {"name": "any"}},
}


def device(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, **more}


def slice_of(*devices: dict[str, Any], name: str = "", node: str = "n0", pool: str = "", **spec: Any) -> dict[str, Any]:
    where = {"nodeName": node} if node else {}
    pool = pool or node or "shared"
    count = spec.pop("count", 1)
    generation = spec.pop("generation", 1)
    return {
        "metadata": {"name": name or f"{pool}-slice"},
        "spec": {
            "driver": spec.pop("driver", DRIVER),
            "pool": {"name": pool, "generation": generation, "resourceSliceCount": count},
            "devices": list(devices),
            **where,
            **spec,
        },
    }


def request(name: str = "r", cls: str = "gpu", **exactly: Any) -> dict[str, Any]:
    return {"name": name, "exactly": {"deviceClassName": cls, **exactly}}


def claim(*requests: dict[str, Any], name: str = "c", **devices: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"devices": {"requests": list(requests), **devices}},
    }


class World:
    """One search, as the plugin makes it."""

    def __init__(self, *slices: dict[str, Any], nodes: int = 1, classes: dict[str, Any] = CLASSES) -> None:
        self.state = ClusterState()
        for number in range(nodes):
            labels = {"kubernetes.io/hostname": f"n{number}", "rack": f"r{number % 2}"}
            raw = {"metadata": {"name": f"n{number}", "labels": labels}, "status": {"allocatable": {"pods": "9"}}}
            self.state.set_node(decode_node(msgspec.json.encode(raw)))
        self.views = SliceViews()
        for each in slices:
            self.views.set(None, msgspec.convert(each, ResourceSlice))
        self.classes = {name: msgspec.convert(each, DeviceClass) for name, each in classes.items()}
        self.taken = Taken()

    def take(self, *devices: str, pool: str = "n0", **more: Any) -> None:
        self.taken.add([Result(driver=DRIVER, pool=pool, device=name, **more) for name in devices])

    def find(self, *claims: dict[str, Any], node: str = "n0") -> list[list[tuple[str, str]]] | None:
        """(request, device) of each claim."""
        found = self.search(*claims, node=node)
        return found and [[(each.request, each.view.id.device) for each in chosen] for chosen in found]

    def search(self, *claims: dict[str, Any], node: str = "n0") -> Any:
        decoded = [msgspec.convert(each, DeviceResourceClaim) for each in claims]
        options = options_of(decoded, self.classes)
        return Search(decoded, options, self.views.catalog(self.state), self.state.row_of[node], self.taken).run()

    def allocations(self, *claims: dict[str, Any], node: str = "n0") -> list[dict[str, Any]]:
        decoded = [msgspec.convert(each, DeviceResourceClaim) for each in claims]
        found = self.search(*claims, node=node)
        assert found is not None
        return [
            allocation(c, chosen, self.classes, node, lambda: "share") for c, chosen in zip(decoded, found, strict=True)
        ]

    def lacks(self, *claims: dict[str, Any], node: str = "n0") -> str:
        decoded = [msgspec.convert(each, DeviceResourceClaim) for each in claims]
        options = options_of(decoded, self.classes)
        catalog = self.views.catalog(self.state)
        return shortage(decoded, options, catalog, self.state.row_of[node], self.taken)


MODELS = [device(f"d{n}", attributes={"model": {"string": m}, "index": {"int": n}}) for n, m in enumerate("aabb")]
IS_B = {"selectors": [{"cel": {"expression": f'device.attributes["{DRIVER}"].model == "b"'}}]}


def test_the_first_free_device_of_the_class_is_taken():
    world = World(slice_of(*MODELS), slice_of(device("nic"), pool="nics", driver="nic.example.com"))
    world.take("d0")
    assert world.find(claim(request())) == [[("r", "d1")]]
    assert world.find(claim(request(count=3))) == [[("r", "d1"), ("r", "d2"), ("r", "d3")]]
    assert world.find(claim(request(count=4))) is None


def test_selectors_of_the_request_and_of_the_class_both_hold():
    world = World(slice_of(*MODELS), slice_of(device("nic"), pool="nics", driver="nic.example.com"))
    assert world.find(claim(request(**IS_B))) == [[("r", "d2")]]
    other = {"selectors": [{"cel": {"expression": 'device.driver == "nic.example.com"'}}]}
    assert world.find(claim(request(**other))) is None
    assert world.find(claim(request(cls="any", **other))) == [[("r", "nic")]]


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        (f'device.capacity["{DRIVER}"].memory.compareTo(quantity("16Gi")) >= 0', True),
        (f'device.capacity["{DRIVER}"].memory.compareTo(quantity("64Gi")) >= 0', False),
        (f'device.attributes["{DRIVER}"].driverVersion.isGreaterThan(semver("1.2.0"))', True),
        (f'device.attributes["{DRIVER}"].driverVersion.isGreaterThan(semver("2.0.0"))', False),
        ('device.attributes["other.com"].vendor == "x"', True),
        ('has(device.attributes["absent.com"].vendor)', False),
        (f'cel.bind(a, device.attributes["{DRIVER}"], a.healthy && a.cores == 8)', True),
        ('"other.com" in device.attributes', True),
    ],
)
def test_expressions_see_attributes_capacities_and_versions(expression, fits):
    attributes = {
        "healthy": {"bool": True},
        f"{DRIVER}/cores": {"int": 8},
        "driverVersion": {"version": "1.10.0"},
        "other.com/vendor": {"string": "x"},
    }
    world = World(slice_of(device("d0", attributes=attributes, capacity={"memory": {"value": "40Gi"}})))
    found = world.find(claim(request(selectors=[{"cel": {"expression": expression}}])))
    assert (found is not None) is fits


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("device.driver ==", "claim default/c: selector #0: CEL compile error"),
        (f'device.attributes["{DRIVER}"].absent == 1', "claim default/c: selector #0: CEL runtime error: no such key"),
        ('"text"', "could not be converted to bool"),
    ],
)
def test_a_broken_expression_is_an_error_that_names_it(expression, words):
    world = World(slice_of(*MODELS))
    with pytest.raises(AllocationError, match=words.replace("(", r"\(")):
        world.find(claim(request(selectors=[{"cel": {"expression": expression}}])))


def test_all_devices_that_match_or_none():
    world = World(slice_of(*MODELS))
    everything = claim(request(allocationMode="All", **IS_B))
    assert world.find(everything) == [[("r", "d2"), ("r", "d3")]]
    world.take("d3")
    assert world.find(everything) is None


def test_alternatives_are_tried_in_their_order():
    first = {"name": "big", "deviceClassName": "gpu", "count": 3}
    second = {"name": "small", "deviceClassName": "gpu", "count": 1, **IS_B}
    world = World(slice_of(*MODELS))
    wanted = claim({"name": "r", "firstAvailable": [first, second]})
    assert world.find(wanted) == [[("r/big", "d0"), ("r/big", "d1"), ("r/big", "d2")]]
    world.take("d0", "d1")
    assert world.find(wanted) == [[("r/small", "d2")]]


def test_an_early_choice_is_undone_for_a_later_request():
    # The first request would take d2, which alone satisfies the second.
    only = {"selectors": [{"cel": {"expression": f'device.attributes["{DRIVER}"].index == 2'}}]}
    world = World(slice_of(*MODELS))
    found = world.find(claim(request("any", **IS_B), request("exact", **only)))
    assert found == [[("any", "d3"), ("exact", "d2")]]


def test_devices_of_one_claim_match_or_differ_in_an_attribute():
    world = World(slice_of(*MODELS))
    world.take("d0")
    same = {"constraints": [{"matchAttribute": f"{DRIVER}/model"}]}
    assert world.find(claim(request(count=2), **same)) == [[("r", "d2"), ("r", "d3")]]
    differ = {"constraints": [{"distinctAttribute": f"{DRIVER}/model", "requests": ["x", "y"]}]}
    assert world.find(claim(request("x"), request("y"), **differ)) == [[("x", "d1"), ("y", "d2")]]
    three = [request(name) for name in "xyz"]
    assert world.find(claim(*three, constraints=[{"distinctAttribute": f"{DRIVER}/model"}])) is None
    # Devices without the attribute satisfy no constraint about it.
    assert world.find(claim(request(), constraints=[{"matchAttribute": f"{DRIVER}/absent"}])) is None


def test_administrators_use_devices_that_are_taken_and_take_none():
    world = World(slice_of(*MODELS[:1]))
    world.take("d0")
    admin = claim(request(adminAccess=True))
    assert world.find(admin) == [[("r", "d0")]]
    world.taken.add([Result(driver=DRIVER, pool="n0", device="d0")], -1)
    world.take("d0", adminAccess=True)
    assert world.find(claim(request())) == [[("r", "d0")]]


def test_a_tainted_device_needs_a_toleration():
    taint = {"key": "broken", "effect": "NoSchedule", "value": "yes"}
    world = World(slice_of(device("d0", taints=[taint])))
    assert world.find(claim(request())) is None
    for toleration in (
        {"key": "broken", "operator": "Exists"},
        {"key": "broken", "value": "yes"},
        {"operator": "Exists"},
        {"key": "broken", "operator": "Exists", "effect": "NoSchedule"},
    ):
        assert world.find(claim(request(tolerations=[toleration]))) is not None, toleration
    for toleration in (
        {"key": "broken", "value": "no"},
        {"key": "broken", "operator": "Exists", "effect": "NoExecute"},
    ):
        assert world.find(claim(request(tolerations=[toleration]))) is None, toleration
    harmless = World(slice_of(device("d0", taints=[{"key": "x", "effect": "None"}])))
    assert harmless.find(claim(request())) is not None


def test_partitions_of_one_device_share_its_counters():
    sets = slice_of(name="sets", count=2, sharedCounters=[{"name": "gpu0", "counters": {"memory": {"value": "40Gi"}}}])

    def part(name: str, memory: str) -> dict[str, Any]:
        return device(name, consumesCounters=[{"counterSet": "gpu0", "counters": {"memory": {"value": memory}}}])

    parts = slice_of(part("whole", "40Gi"), part("half", "20Gi"), part("quarter", "10Gi"), name="parts", count=2)
    world = World(sets, parts)
    assert world.find(claim(request(count=2))) == [[("r", "half"), ("r", "quarter")]]
    assert world.find(claim(request(count=3))) is None
    world.take("half")
    assert world.find(claim(request())) == [[("r", "quarter")]]
    world.take("quarter")
    assert world.find(claim(request())) is None


def test_a_device_is_shared_as_far_as_its_capacity_goes():
    policy = {"default": "10Gi", "validRange": {"min": "10Gi", "step": "5Gi", "max": "30Gi"}}
    shared = device(
        "d0", allowMultipleAllocations=True, capacity={"memory": {"value": "40Gi", "requestPolicy": policy}}
    )
    world = World(slice_of(shared))

    def wants(memory: str | None) -> dict[str, Any]:
        return request(capacity={"requests": {"memory": memory}}) if memory else request()

    (found,) = world.allocations(claim(wants("12Gi")))
    (result,) = found["devices"]["results"]
    assert result["consumedCapacity"] == {"memory": "15Gi"}
    assert result["shareID"]
    world.take("d0", shareID="s1", consumedCapacity={"memory": "15Gi"})
    assert world.find(claim(wants("25Gi"))) is not None
    assert world.find(claim(wants("30Gi"))) is None
    assert world.find(claim(wants("31Gi"))) is None  # Beyond what the policy allows one share.
    world.take("d0", shareID="s2", consumedCapacity={"memory": "20Gi"})
    assert world.find(claim(request())) is None  # The default, 10Gi, is not left.
    assert world.find(claim(request(capacity={"requests": {"absent": "1"}}))) is None


# --- pools and nodes --------------------------------------------------------------------------------------------------


def test_slices_name_one_node_all_nodes_a_selector_or_leave_it_to_the_device():
    rack = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "rack", "operator": "In", "values": ["r1"]}]}]}
    per_device = [device("on-n1", nodeName="n1"), device("on-r1", nodeSelector=rack)]
    world = World(
        slice_of(device("mine")),
        slice_of(device("everywhere"), node="", pool="all", allNodes=True),
        slice_of(device("rack"), node="", pool="rack", nodeSelector=rack),
        slice_of(*per_device, node="", pool="per-device", perDeviceNodeSelection=True),
        nodes=4,
    )
    everything = claim(request(allocationMode="All"))
    on = {node: {d for _, d in (world.find(everything, node=node) or [[]])[0]} for node in ("n0", "n1", "n3")}
    assert on == {
        "n0": {"mine", "everywhere"},
        "n1": {"everywhere", "rack", "on-n1", "on-r1"},
        "n3": {"everywhere", "rack", "on-r1"},
    }


def test_an_allocation_says_where_its_devices_can_be_used():
    rack = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "rack", "operator": "In", "values": ["r0"]}]}]}
    local, anywhere = slice_of(device("d")), slice_of(device("d"), node="", pool="all", allNodes=True)
    by_rack = slice_of(device("d"), node="", pool="rack", nodeSelector=rack)
    only = {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n0"]}]}]}
    assert World(local).allocations(claim(request()))[0]["nodeSelector"] == only
    assert "nodeSelector" not in World(anywhere).allocations(claim(request()))[0]
    assert World(by_rack).allocations(claim(request()))[0]["nodeSelector"] == rack
    bound = slice_of(device("d", bindsToNode=True), node="", pool="all", allNodes=True)
    assert World(bound).allocations(claim(request()))[0]["nodeSelector"] == only


def test_only_the_newest_complete_generation_of_a_pool_counts():
    old, new = slice_of(device("old"), name="a"), slice_of(device("new"), name="b", generation=2)
    assert World(old, new).find(claim(request())) == [[("r", "new")]]
    half = slice_of(device("half"), name="b", generation=2, count=2)
    assert World(old, half).find(claim(request())) is None
    with pytest.raises(AllocationError, match=r"asks for all devices, but resource pool .* is currently being updated"):
        World(old, half).find(claim(request(allocationMode="All")))


def test_a_pool_that_contradicts_itself_is_not_used():
    twice = slice_of(device("d"), device("d"))
    with pytest.raises(InvalidPool):
        World(twice).find(claim(request()))
    fine = slice_of(device("e"), pool="fine")
    assert World(twice, fine).find(claim(request())) == [[("r", "e")]]
    unknown = [{"counterSet": "absent", "counters": {"x": {"value": "1"}}}]
    with pytest.raises(InvalidPool):
        World(slice_of(device("d", consumesCounters=unknown))).find(claim(request()))


def test_configuration_of_the_class_comes_once_and_then_the_claims_own():
    opaque = {"opaque": {"driver": DRIVER, "parameters": {"a": 1}}}
    classes = CLASSES | {"gpu": {"metadata": {"name": "gpu"}, "spec": {"config": [opaque]}}}
    world = World(slice_of(*MODELS), classes=classes)
    mine = [{"requests": ["y"], **opaque}, {"requests": ["absent"], **opaque}, opaque]
    (found,) = world.allocations(claim(request("x"), request("y"), config=mine))
    assert found["devices"]["config"] == [
        {"source": "FromClass", "requests": ["x", "y"], **opaque},
        {"source": "FromClaim", "requests": ["y"], **opaque},
        {"source": "FromClaim", **opaque},
    ]


def test_what_is_missing_is_said_in_numbers():
    world = World(slice_of(*MODELS))
    world.take("d3")
    words = world.lacks(claim(request(count=2, **IS_B)))
    assert words == "request r of claim default/c finds 1 more of class gpu (2 match, 1 of them taken)"


# --- the search against every combination -----------------------------------------------------------------------------


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str], int]:
    devices = []
    budget = draw(st.integers(1, 6))
    for number in range(draw(st.integers(1, 5))):
        more: dict[str, Any] = {"attributes": {"model": {"string": draw(st.sampled_from("ab"))}}}
        if draw(st.booleans()):
            amount = str(draw(st.integers(1, 4)))
            more["consumesCounters"] = [{"counterSet": "s", "counters": {"c": {"value": amount}}}]
        if draw(st.integers(0, 4)) == 0:
            more["taints"] = [{"key": "t", "effect": "NoSchedule"}]
        devices.append(device(f"d{number}", **more))
    taken = draw(st.lists(st.sampled_from([each["name"] for each in devices]), max_size=2, unique=True))
    claims = []
    for number in range(draw(st.integers(1, 2))):
        requests = []
        for name in draw(st.sampled_from([["x"], ["x", "y"]])):
            selector = draw(st.sampled_from([None, "a", "b"]))
            more = {"count": draw(st.integers(1, 2))}
            if selector:
                expression = f'device.attributes["{DRIVER}"].model == "{selector}"'
                more["selectors"] = [{"cel": {"expression": expression}}]
            if draw(st.booleans()):
                more["tolerations"] = [{"operator": "Exists"}]
            requests.append(request(name, **more))
        constraint = draw(st.sampled_from([[], [{"matchAttribute": f"{DRIVER}/model"}],
                                           [{"distinctAttribute": f"{DRIVER}/model"}]]))  # fmt: skip
        claims.append(claim(*requests, name=f"c{number}", constraints=constraint))
    return devices, claims, taken, budget


def _valid(choice: list[tuple[int, dict[str, Any], dict[str, Any]]], claims: Any, used: int, budget: int) -> bool:
    """Whether (claim, request, device) choices together are what the claims ask for: a reading of its own."""
    names = [each["name"] for _, _, each in choice]
    if len(set(names)) != len(names):
        return False
    for _, wanted, each in choice:
        text = (wanted["exactly"].get("selectors") or [{"cel": {"expression": ""}}])[0]["cel"]["expression"]
        if text and not text.endswith(f'"{each["attributes"]["model"]["string"]}"'):
            return False
        if "taints" in each and "tolerations" not in wanted["exactly"]:
            return False
    for number, one in enumerate(claims):
        models = [each["attributes"]["model"]["string"] for of, _, each in choice if of == number]
        for constraint in one["spec"]["devices"]["constraints"]:
            if "matchAttribute" in constraint and len(set(models)) > 1:
                return False
            if "distinctAttribute" in constraint and len(set(models)) < len(models):
                return False
    return used + sum(_weight(each) for _, _, each in choice) <= budget or not any(_weight(e) for _, _, e in choice)


def _weight(each: dict[str, Any]) -> int:
    return sum(parse_quantity(c["counters"]["c"]["value"]).value for c in each.get("consumesCounters", ()))


@given(problems())
@settings(max_examples=300, deadline=None)
def test_the_search_finds_a_valid_choice_whenever_there_is_one(problem):
    devices, claims, taken, budget = problem
    counters = slice_of(name="sets", count=2, sharedCounters=[{"name": "s", "counters": {"c": {"value": str(budget)}}}])
    world = World(counters, slice_of(*devices, name="devices", count=2))
    world.take(*taken)
    by_name = {each["name"]: each for each in devices}
    free = [each for each in devices if each["name"] not in taken]
    used = sum(_weight(by_name[name]) for name in taken)
    wanted = [
        (number, one)
        for number, each in enumerate(claims)
        for one in each["spec"]["devices"]["requests"]
        for _ in range(one["exactly"]["count"])
    ]
    solvable = any(
        _valid([(number, one, each) for (number, one), each in zip(wanted, choice, strict=True)], claims, used, budget)
        for choice in itertools.permutations(free, len(wanted))
    )
    found = world.find(*claims)
    assert (found is not None) is solvable
    if found is not None:
        chosen = [
            (number, next(r for r in claims[number]["spec"]["devices"]["requests"] if r["name"] == name), by_name[each])
            for number, one in enumerate(found)
            for name, each in one
        ]
        assert sorted((n, r["name"]) for n, r, _ in chosen) == sorted((n, r["name"]) for n, r in wanted)
        assert not {each["name"] for _, _, each in chosen} & set(taken)
        assert _valid(chosen, claims, used, budget)


def test_a_claim_that_would_be_searched_for_ever_is_given_up(monkeypatch):
    monkeypatch.setattr(Budget, "__init__", lambda self: setattr(self, "steps", 2000))
    many = [device(f"d{n}", attributes={"model": {"string": "a"}, "n": {"int": n}}) for n in range(40)]
    world = World(slice_of(*many))
    impossible = {"constraints": [{"matchAttribute": f"{DRIVER}/absent", "requests": ["last"]}]}
    requests = [request(f"r{n}", count=3) for n in range(5)]
    with pytest.raises(AllocationError, match="gave up"):
        world.find(claim(*requests, request("last"), **impossible))
