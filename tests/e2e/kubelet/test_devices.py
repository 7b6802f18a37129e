"""A pod that claims a device by a template: claim, placement, preparation and the device in the container, all of it
real but the driver's hardware."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from machinery.api import errors, kinds
from machinery.client.api_client import ApiClient
from tests.support.apiserver_process import ROOT, ApiServerProcess, files
from tests.support.device_driver import DeviceDriver
from tests.support.kubelet_node import Cluster, KubeletNode, busybox
from tests.support.private_containerd import PrivateContainerd, available
from tests.support.scheduler_process import SchedulerProcess

pytestmark = pytest.mark.root
PORT = 21650
NAME = "gpu.example.com"
RESOURCE = "example.com/gpu"
SCRIPT = "echo device of $DEVICE_OF; head -c 3 /dev/gpu0 | wc -c; trap 'exit 0' TERM; while true; do sleep 0.05; done"


@pytest.fixture(scope="module")
def shim() -> Iterator[PrivateContainerd]:
    if not available():
        pytest.skip("needs root, containerd, runc and busybox")
    # containerd's own CRI plugin of Debian 12 knows no CDI names: the shim does.
    with PrivateContainerd("device-test-", "10.217.0.0/24", "kt1", shim=True) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def controllers(apiserver: ApiServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A scheduler, and the controllers that claims need."""
    directory = tmp_path_factory.mktemp("controllers")
    scheduler = SchedulerProcess(apiserver, directory)
    scheduler.start()
    identity = files(apiserver.pki.client("controller-manager", "system:kube-controller-manager"))
    config = {
        "apiserver": [apiserver.grpc],
        "tls": {name: getattr(identity, name) for name in ("ca_file", "cert_file", "key_file")},
        "controllers": ["resourceclaim-controller", "garbage-collector"],
    }
    path = directory / "controllers.yaml"
    path.write_text(yaml.safe_dump(config))
    argv = [sys.executable, "-m", "services.controller_manager", "--config", str(path)]
    with (directory / "log").open("wb") as log:
        manager = subprocess.Popen(argv, cwd=ROOT, stdout=log, stderr=log)
    yield
    manager.terminate()
    manager.wait(15)
    scheduler.stop()


@pytest_asyncio.fixture
async def cluster(apiserver: ApiServerProcess, shim: PrivateContainerd, controllers: None) -> AsyncIterator[Cluster]:
    node = KubeletNode(apiserver, shim.endpoint, Path(shim.dir) / "node", PORT, name="dev1").start()
    client = await ApiClient.connect(apiserver.grpc, files(apiserver.admin), user_agent="test")
    cluster = Cluster(apiserver, client, node)
    cluster.namespace = "devices"
    await cluster.prepare(cluster.namespace)
    await cluster.ready_node()
    # Nobody else takes taints off here.
    await client.patch(kinds.NODE, "dev1", "", {"spec": {"taints": None}})
    try:
        yield cluster
    finally:
        await client.close()
        node.stop()
        node.clean()


async def offer(client: ApiClient) -> None:
    pool = {"name": "dev1", "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": NAME, "nodeName": "dev1", "pool": pool, "devices": [{"name": "d0"}]}
    await client.create(kinds.RESOURCE_SLICE, {"metadata": {"name": "dev1-gpus"}, "spec": spec})


async def test_a_claimed_device_is_in_the_container_and_is_taken_back(
    cluster: Cluster, shim: PrivateContainerd
) -> None:
    client, ns = cluster.client, cluster.namespace
    selectors = [{"cel": {"expression": f'device.driver == "{NAME}"'}}]
    of_class = {"selectors": selectors, "extendedResourceName": RESOURCE}
    await client.create(kinds.DEVICE_CLASS, {"metadata": {"name": "gpu"}, "spec": of_class})
    devices = {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}
    template = {"metadata": {"name": "one"}, "spec": {"spec": {"devices": devices}}}
    await client.create(kinds.RESOURCE_CLAIM_TEMPLATE, template, ns)
    container = busybox("c", SCRIPT, resources={"claims": [{"name": "gpu"}]})
    claims = [{"name": "gpu", "resourceClaimTemplateName": "one"}]
    spec = {"containers": [container], "resourceClaims": claims}

    async with DeviceDriver(cluster.node.root, Path(shim.dir) / "cdi", NAME, "dev1") as driver:
        driver.broken = "not plugged in"
        await client.create(kinds.POD, {"metadata": {"name": "p"}, "spec": spec}, ns)
        await driver.wait_registered()
        await offer(client)
        await cluster.told(ns, "NodePrepareResources failed for ResourceClaim", 30)
        driver.broken = ""
        pod = await cluster.until_ready("p", ns)
        assert pod.spec.nodeName == "dev1"
        name = pod.status.resourceClaimStatuses[0].resourceClaimName
        assert cluster.kubectl("-n", ns, "logs", "p").split("\n")[:2] == [f"device of {name}", "3"]
        claim = await client.get(kinds.RESOURCE_CLAIM, name, ns)
        assert [consumer.name for consumer in claim.status.reservedFor] == ["p"]

        prepared = driver.calls.count(("prepare", name))
        cluster.node.stop()
        cluster.node.start()
        await cluster.until_ready("p", ns)
        # A kubelet that starts deletes what drivers offered, and those that are still there offer it again.
        await cluster.gone("dev1-gpus", "", kind=kinds.RESOURCE_SLICE)
        await offer(client)
        assert ("unprepare", name) not in driver.calls

        await client.delete(kinds.POD, "p", ns, grace_period_seconds=1)
        await cluster.gone("p", ns)
        assert driver.calls.count(("prepare", name)) == prepared
        assert driver.calls.count(("unprepare", name)) == 1
        with pytest.raises(errors.NotFound):
            await _gone(client, name, ns)
        assert list((Path(shim.dir) / "cdi").iterdir()) == []

        # The same device, asked for as an extended resource.
        driver.request = "container-0-request-0"
        asking = busybox("c", SCRIPT, resources={"limits": {RESOURCE: "1"}})
        bystander = busybox("other", "ls /dev/gpu0; trap 'exit 0' TERM; while true; do sleep 0.05; done")
        spec = {"containers": [asking, bystander]}
        await client.create(kinds.POD, {"metadata": {"name": "q"}, "spec": spec}, ns)
        pod = await cluster.until_ready("q", ns)
        name = pod.status.extendedResourceClaimStatus.resourceClaimName
        assert cluster.kubectl("-n", ns, "logs", "q", "-c", "c").split("\n")[:2] == [f"device of {name}", "3"]
        assert "No such file" in cluster.kubectl("-n", ns, "logs", "q", "-c", "other")
        await client.delete(kinds.POD, "q", ns, grace_period_seconds=1)
        await cluster.gone("q", ns)
        with pytest.raises(errors.NotFound):
            await _gone(client, name, ns)


async def _gone(client: ApiClient, name: str, namespace: str) -> None:
    """Raises NotFound once the claim is gone: its controller and the garbage collector work beside us."""
    async for batch in client.watch(kinds.RESOURCE_CLAIM, namespace):
        for event, claim in batch.events:
            if event == "DELETED" and claim.metadata.name == name:
                raise errors.NotFound(name)
        await client.get(kinds.RESOURCE_CLAIM, name, namespace)
