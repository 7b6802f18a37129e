"""Claims on a node: prepared once however many pods share them, taken back with the last, remembered over restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from lightkube.models import core_v1, resource_v1

from machinery.api.errors import NotFound
from protos.kubelet import dra_pb2, plugin_registration_pb2
from services.kubelet.devices import checkpoint
from services.kubelet.devices.checkpoint import BadCheckpoint, PreparedDevice
from services.kubelet.devices.claims import DeviceClaims, serves
from services.kubelet.devices.drivers import DeviceError, unusable

DRIVER = "gpu.example.com"


class Driver:
    """Answers as drivers do; `broken` makes it refuse."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.broken = ""
        self.silent = False

    async def prepare(self, claims: Any) -> Any:
        answer = dra_pb2.NodePrepareResourcesResponse()
        for claim in claims:
            self.calls.append(f"prepare {claim.name}")
            await asyncio.sleep(0)
            if not self.silent:
                ids = [f"example.com/gpu={claim.uid}"]
                device = dra_pb2.Device(request_names=["r"], pool_name="p", device_name="d", cdi_device_ids=ids)
                answer.claims[claim.uid].devices.append(device)
                answer.claims[claim.uid].error = self.broken
        return answer

    async def unprepare(self, claims: Any) -> Any:
        answer = dra_pb2.NodeUnprepareResourcesResponse()
        for claim in claims:
            self.calls.append(f"unprepare {claim.name}")
            answer.claims[claim.uid].error = self.broken
        return answer


class Api:
    def __init__(self) -> None:
        self.claims: dict[str, Any] = {}

    async def get(self, kind: Any, name: str, namespace: str) -> Any:
        if name not in self.claims:
            raise NotFound(f'resourceclaims "{name}" not found')
        return msgspec.convert(self.claims[name], resource_v1.ResourceClaim)

    def add(self, name: str, *pods: str, uid: str = "", **metadata: Any) -> None:
        result = {"request": "r", "driver": DRIVER, "pool": "p", "device": "d"}
        consumers = [{"resource": "pods", "name": pod, "uid": f"uid-{pod}"} for pod in pods]
        self.claims[name] = {
            "metadata": {"name": name, "namespace": "default", "uid": uid or f"uid-{name}", **metadata},
            "spec": {},
            "status": {"allocation": {"devices": {"results": [result]}}, "reservedFor": consumers},
        }


def pod(name: str, *claims: str, **status: Any) -> core_v1.Pod:
    container = {"name": "c", "resources": {"claims": [{"name": claim} for claim in claims]}}
    references = [{"name": claim, "resourceClaimName": claim} for claim in claims]
    raw = {
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"},
        "spec": {"containers": [container], "resourceClaims": references},
        "status": status,
    }
    return msgspec.convert(raw, core_v1.Pod)


class World:
    def __init__(self, root: Path) -> None:
        self.root, self.api, self.driver = root, Api(), Driver()
        self.restart()

    def restart(self) -> None:
        client: Any = self.api
        self.claims = DeviceClaims(self.root, "n1", client)
        drivers: Any = SimpleNamespace(get=self._driver)
        self.claims.drivers = drivers
        self.claims.load()

    def _driver(self, name: str) -> Any:
        if self.driver is None:
            raise DeviceError(f"DRA driver {name} is not registered")
        return self.driver


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_shared_claim_is_prepared_once_and_taken_back_with_its_last_pod(world: World) -> None:
    world.api.add("c", "a", "b")
    await asyncio.gather(world.claims.prepare(pod("a", "c")), world.claims.prepare(pod("b", "c")))
    assert world.driver.calls == ["prepare c"]
    await world.claims.unprepare("uid-a")
    assert world.driver.calls == ["prepare c"]
    await world.claims.unprepare("uid-b")
    await world.claims.unprepare("uid-b")
    assert world.driver.calls == ["prepare c", "unprepare c"]


async def test_containers_get_the_names_of_their_own_devices(world: World) -> None:
    world.api.add("c", "a")
    one = pod("a", "c")
    await world.claims.prepare(one)
    assert world.claims.cdi_devices(one, one.spec.containers[0]) == ["example.com/gpu=uid-c"]
    without = pod("x")
    assert world.claims.cdi_devices(without, without.spec.containers[0]) == []


async def test_who_requests_an_extended_resource_gets_the_devices_of_the_claim_behind_it(world: World) -> None:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "uid-a", "controller": True}
    world.api.add("c", "a", ownerReferences=[owner])
    uses = [{"containerName": "c", "resourceName": "example.com/gpu", "requestName": "r"}]
    one = pod("a", extendedResourceClaimStatus={"resourceClaimName": "c", "requestMappings": uses})
    await world.claims.prepare(one)
    (mine,) = one.spec.containers
    assert world.claims.cdi_devices(one, mine) == ["example.com/gpu=uid-c"]
    assert world.claims.cdi_devices(one, core_v1.Container(name="other")) == []
    await world.claims.unprepare("uid-a")
    assert world.driver.calls == ["prepare c", "unprepare c"]


@pytest.mark.parametrize(
    ("names", "request_name", "yes"),
    [((), "r", True), (("r",), "", True), (("r",), "r", True), (("r/small",), "r", True), (("s",), "r", False)],
)
def test_a_device_serves_the_requests_that_it_names(names: tuple[str, ...], request_name: str, yes: bool) -> None:
    assert serves(PreparedDevice("p", "d", requests=names), request_name) is yes


async def test_over_a_restart_nothing_is_prepared_again_and_all_is_taken_back(world: World) -> None:
    world.api.add("c", "a")
    one = pod("a", "c")
    await world.claims.prepare(one)
    world.restart()
    await world.claims.prepare(one)
    assert world.claims.cdi_devices(one, one.spec.containers[0]) == ["example.com/gpu=uid-c"]
    # The pod went while there was no kubelet.
    world.restart()
    await world.claims._take_back_lost(set())
    assert world.driver.calls == ["prepare c", "unprepare c"]
    assert checkpoint.read(world.root) == {}


async def test_a_kubelet_that_died_while_preparing_asks_again(world: World) -> None:
    world.api.add("c", "a")
    world.driver.broken = "no power"
    with pytest.raises(DeviceError, match="NodePrepareResources failed for ResourceClaim c: no power"):
        await world.claims.prepare(pod("a", "c"))
    world.restart()
    world.driver.broken = ""
    await world.claims.prepare(pod("a", "c"))
    assert world.driver.calls == ["prepare c", "prepare c"]
    # What was begun is taken back even if it never succeeded.
    world.api.add("d", "b")
    world.driver.silent = True
    with pytest.raises(DeviceError, match=f"driver {DRIVER} skipped ResourceClaim d"):
        await world.claims.prepare(pod("b", "d"))
    await world.claims.unprepare("uid-b")
    assert world.driver.calls[-1] == "unprepare d"


async def test_what_is_not_taken_back_is_tried_again(world: World) -> None:
    world.api.add("c", "a")
    await world.claims.prepare(pod("a", "c"))
    world.driver.broken = "busy"
    with pytest.raises(DeviceError, match="NodeUnprepareResources failed for ResourceClaim c: busy"):
        await world.claims.unprepare("uid-a")
    world.driver.broken = ""
    await world.claims.unprepare("uid-a")
    assert checkpoint.read(world.root) == {}


async def test_a_claim_that_is_not_the_pods_is_refused(world: World) -> None:
    world.api.add("c", "somebody-else")
    with pytest.raises(DeviceError, match="ResourceClaim c is not reserved for pod a"):
        await world.claims.prepare(pod("a", "c"))
    with pytest.raises(DeviceError, match="fetch ResourceClaim absent"):
        await world.claims.prepare(pod("a", "absent"))
    generated = pod("a", "c")
    generated.spec.resourceClaims[0].resourceClaimName = None  # type: ignore[index]
    with pytest.raises(DeviceError, match="has not been created yet"):
        await world.claims.prepare(generated)
    assert world.driver.calls == []


async def test_a_new_claim_of_an_old_ones_name_waits_for_that_to_be_taken_back(world: World) -> None:
    world.api.add("c", "a")
    await world.claims.prepare(pod("a", "c"))
    world.api.add("c", "b", uid="uid-new")
    with pytest.raises(DeviceError, match="an earlier ResourceClaim c"):
        await world.claims.prepare(pod("b", "c"))
    await world.claims.unprepare("uid-a")
    await world.claims.prepare(pod("b", "c"))


def test_a_checkpoint_that_can_not_be_read_stops_the_kubelet(tmp_path: Path) -> None:
    (tmp_path / checkpoint.FILE).write_text("{")
    with pytest.raises(BadCheckpoint, match="drain the node"):
        checkpoint.read(tmp_path)


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({}, ""),
        ({"type": "CSIPlugin"}, "type 'CSIPlugin'"),
        ({"name": ""}, "a driver needs one"),
        ({"endpoint": "dra.sock"}, "absolute path"),
        ({"supported_versions": ["v1alpha4"]}, "v1alpha4: this kubelet speaks v1.DRAPlugin"),
        ({"supported_versions": ["v1beta1.DRAPlugin"]}, ""),
    ],
)
def test_a_plugin_that_is_no_driver_of_devices_is_told_why(info: dict[str, Any], words: str) -> None:
    usual = {"type": "DRAPlugin", "name": "d", "endpoint": "/x", "supported_versions": ["v1.DRAPlugin"]}
    found = unusable(plugin_registration_pb2.PluginInfo(**usual | info))
    assert words in found
    assert bool(words) is bool(found)
