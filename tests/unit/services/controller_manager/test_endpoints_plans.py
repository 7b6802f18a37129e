"""Slices, Endpoints and mirrored slices."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from machinery.api import kinds
from services.controller_manager.controllers.endpoint_slice import plan as slices
from services.controller_manager.controllers.endpoint_slice_mirroring import controller as mirroring
from services.controller_manager.controllers.endpoints import plan as endpoints
from services.controller_manager.selection import selects
from tests.support.controllers import pod_template, ready_status
from tests.support.plan_world import World


def service(**spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"}]
    body = {"selector": {"app": "web"}, "ports": ports, "ipFamilies": ["IPv4"], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"}, "spec": body}


def add_pod(world: World, number: int, ready: bool = True, port: int = 80, **spec: Any) -> str:
    name = f"p{number}"
    template = pod_template({"app": "web"}, **spec)
    template["spec"]["containers"][0]["ports"][0]["containerPort"] = port
    world.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **template["metadata"]},
                  "spec": {**template["spec"], "nodeName": f"n{number % 3}"}})  # fmt: skip
    status = ready_status(f"10.0.{number // 250}.{number % 250 + 1}")
    if not ready:
        status["conditions"][-1]["status"] = "False"
    world.patch(kinds.POD, name, {"status": status}, "status")
    return name


def step(world: World) -> int:
    """One pass; how many writes it was."""
    view = world.view(kinds.SERVICE, "web")
    pods = [pod for pod in world.pods() if selects(view, pod.metadata.labels)]
    plan = slices.plan(view, pods, world.views(kinds.ENDPOINT_SLICE), {"n0": "z1"})
    world.apply(plan.actions)
    assert not world.errors, world.errors
    return len(plan.actions)


def found(world: World) -> dict[str, dict[str, Any]]:
    return {
        endpoint["targetRef"]["name"]: endpoint
        for entry in world.views(kinds.ENDPOINT_SLICE)
        for endpoint in entry.endpoints or ()
    }


def test_conditions_zone_node_and_host_name_are_the_pods() -> None:
    world = World()
    world.create(service(clusterIP="None"))
    add_pod(world, 0, hostname="zero", subdomain="web")
    add_pod(world, 1, ready=False)
    world.state.delete(kinds.POD, "default", add_pod(world, 2))
    step(world)
    endpoints_now = found(world)
    assert endpoints_now["p0"]["conditions"] == {"ready": True, "serving": True, "terminating": False}
    assert (endpoints_now["p0"]["hostname"], endpoints_now["p0"]["zone"], endpoints_now["p0"]["nodeName"]) == (
        "zero",
        "z1",
        "n0",
    )
    assert endpoints_now["p1"]["conditions"] == {"ready": False, "serving": False, "terminating": False}
    assert endpoints_now["p2"]["conditions"] == {"ready": False, "serving": True, "terminating": True}
    (entry,) = world.views(kinds.ENDPOINT_SLICE)
    assert entry.metadata.labels == {
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "service.kubernetes.io/headless": "",
    }


def test_hints_say_whom_a_ready_endpoint_is_meant_for_and_go_with_the_wish() -> None:
    zone, node = {"forZones": [{"name": "z1"}]}, {"forNodes": [{"name": "n0"}]}
    world = World()
    world.create(service())
    add_pod(world, 0)
    add_pod(world, 1)
    add_pod(world, 3, ready=False)
    for wish, at_zone, elsewhere in (
        ("PreferClose", zone, None),
        ("PreferSameZone", zone, None),
        ("PreferSameNode", zone | node, {"forNodes": [{"name": "n1"}]}),
        (None, None, None),
    ):
        world.patch(kinds.SERVICE, "web", {"spec": {"trafficDistribution": wish}})
        step(world)
        hints = {name: endpoint.get("hints") for name, endpoint in found(world).items()}
        assert hints == {"p0": at_zone, "p1": elsewhere, "p3": None}, wish


def test_not_ready_addresses_are_published_on_request() -> None:
    world = World()
    world.create(service(publishNotReadyAddresses=True))
    add_pod(world, 1, ready=False)
    step(world)
    assert found(world)["p1"]["conditions"] == {"ready": True, "serving": False, "terminating": False}


def test_a_named_port_may_be_another_number_in_each_pod() -> None:
    world = World()
    world.create(service())
    add_pod(world, 0, port=80)
    add_pod(world, 1, port=8080)
    step(world)
    assert sorted(entry.ports[0]["port"] for entry in world.views(kinds.ENDPOINT_SLICE)) == [80, 8080]


def test_no_endpoint_leaves_one_empty_slice() -> None:
    world = World()
    world.create(service())
    step(world)
    (entry,) = world.views(kinds.ENDPOINT_SLICE)
    assert list(entry.endpoints) == []
    assert step(world) == 0


def test_two_hundred_and_fifty_pods_are_three_slices_and_one_change_is_one_write() -> None:
    world = World()
    world.create(service())
    for number in range(250):
        add_pod(world, number)
    step(world)
    assert sorted(len(entry.endpoints) for entry in world.views(kinds.ENDPOINT_SLICE)) == [50, 100, 100]
    assert step(world) == 0
    world.end_pod("p7")
    assert step(world) == 1
    add_pod(world, 300)
    assert step(world) == 1
    assert len(found(world)) == 250


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.sampled_from([80, 81])), max_size=40))
def test_slices_always_hold_each_pod_once_and_settle_in_one_pass(changes: list[tuple[int, bool, int]]) -> None:
    world = World()
    world.create(service())
    present: set[int] = set()
    for number, ready, port in changes:
        if number in present:
            world.end_pod(f"p{number}")
            present.discard(number)
        else:
            add_pod(world, number, ready, port)
            present.add(number)
        step(world)
        names = [e["targetRef"]["name"] for entry in world.views(kinds.ENDPOINT_SLICE) for e in entry.endpoints or ()]
        assert sorted(names) == sorted(f"p{each}" for each in present)
        assert step(world) == 0


def test_the_older_form_groups_by_ports_and_readiness() -> None:
    world = World()
    world.create(service())
    add_pod(world, 0)
    add_pod(world, 1, ready=False)
    view = world.view(kinds.SERVICE, "web")
    world.apply(endpoints.plan(view, world.pods(), None).actions)
    current = world.view(kinds.ENDPOINTS, "web")
    (subset,) = current.subsets
    assert [entry["ip"] for entry in subset["addresses"]] == ["10.0.0.1"]
    assert [entry["ip"] for entry in subset["notReadyAddresses"]] == ["10.0.0.2"]
    assert subset["ports"] == [{"port": 80, "protocol": "TCP", "name": "http"}]
    assert endpoints.plan(view, world.pods(), current).actions == []
    world.end_pod("p0")
    world.end_pod("p1")
    world.apply(endpoints.plan(view, world.pods(), current).actions)
    assert not world.view(kinds.ENDPOINTS, "web").subsets


def test_more_than_a_thousand_addresses_are_cut_and_marked() -> None:
    world = World()
    world.create(service())
    for number in range(1005):
        add_pod(world, number)
    world.apply(endpoints.plan(world.view(kinds.SERVICE, "web"), world.pods(), None).actions)
    current = world.view(kinds.ENDPOINTS, "web")
    assert len(current.subsets[0]["addresses"]) == 1000
    assert current.metadata.annotations["endpoints.kubernetes.io/over-capacity"] == "truncated"


def test_endpoints_written_by_hand_are_mirrored_and_go_with_their_service() -> None:
    world = World()
    world.create(service(selector={}))
    subset = {"addresses": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}], "ports": [{"port": 5432, "name": "db"}]}
    meta = {"name": "web", "labels": {"team": "a"}}
    world.create({"apiVersion": "v1", "kind": "Endpoints", "metadata": meta, "subsets": [subset]})

    def mirror(with_service: bool = True) -> None:
        view = world.view(kinds.SERVICE, "web") if with_service else None
        found_slices = world.views(kinds.ENDPOINT_SLICE)
        world.apply(mirroring.plan(world.view(kinds.ENDPOINTS, "web"), view, found_slices).actions)

    mirror()
    families = {entry.addressType: entry for entry in world.views(kinds.ENDPOINT_SLICE)}
    assert families["IPv4"].endpoints[0]["addresses"] == ["192.0.2.1"]
    assert families["IPv6"].endpoints[0]["addresses"] == ["2001:db8::1"]
    assert families["IPv4"].metadata.labels["team"] == "a"
    revision = world.state.revision
    mirror()
    assert world.state.revision == revision
    mirror(with_service=False)
    assert not world.views(kinds.ENDPOINT_SLICE)
