"""Persistent volumes, sub paths by expression, resizing in place, limits in cgroups, and eviction over a size limit."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machinery.api import kinds
from machinery.client.api_client import PatchType
from tests.support import cgroups
from tests.support.kubelet_node import Cluster, busybox

pytestmark = pytest.mark.root
LIVE = "trap 'exit 0' TERM; while true; do sleep 0.05; done"


def cgroup_value(uid: str, controller: str, name: str) -> str:
    """A setting of the pod's only container, on cgroup v1."""
    found = [path for path in cgroups.below(cgroups.ROOT / controller) if path.parent.name == f"pod{uid}"]
    values = {(path / name).read_text().strip() for path in found}
    # The sandbox's own cgroup has no limit.
    return sorted(values, key=len)[0]


async def bind_local(cluster: Cluster, claim_name: str, path: str, mode: str = "Filesystem") -> None:
    """A claim of the test's namespace, bound to a volume at this path of the node."""
    ns, shared = cluster.namespace, {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeMode": mode}
    volume_name = f"{ns}-{claim_name}"
    required = {
        "nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]}
        ]
    }
    claim = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim_name, "namespace": ns},
        "spec": {**shared, "resources": {"requests": {"storage": "1Mi"}}, "volumeName": volume_name},
    }  # fmt: skip
    made = await cluster.client.create(kinds.PERSISTENT_VOLUME_CLAIM, claim, ns)
    reference = {"kind": "PersistentVolumeClaim", "namespace": ns, "name": claim_name, "uid": made.metadata.uid}
    volume = {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume_name},
        "spec": {
            **shared, "capacity": {"storage": "1Mi"}, "local": {"path": path},
            "nodeAffinity": {"required": required}, "claimRef": reference,
        },
    }  # fmt: skip
    await cluster.client.create(kinds.PERSISTENT_VOLUME, volume)
    bound = {"status": {"phase": "Bound"}}
    await cluster.client.patch(kinds.PERSISTENT_VOLUME_CLAIM, claim_name, ns, bound, subresource="status")


@pytest.fixture
def loop_device(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """(file, block device over it)."""
    if not Path("/dev/loop-control").exists():
        pytest.skip("needs loop devices")
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(1 << 20)
    made = subprocess.run(["losetup", "-f", "--show", str(image)], capture_output=True, text=True, check=True)
    yield image, made.stdout.strip()
    subprocess.run(["losetup", "-d", made.stdout.strip()], check=True)


async def test_a_raw_block_volume_is_a_device_in_the_container(cluster: Cluster, loop_device: tuple[Path, str]) -> None:
    image, device = loop_device
    await bind_local(cluster, "raw", device, "Block")
    script = f"test -b /dev/xvda && echo straight | dd of=/dev/xvda bs=512 conv=sync,fsync 2>/dev/null; {LIVE}"
    devices = [{"name": "d", "devicePath": "/dev/xvda"}]
    probe = {"exec": {"command": ["sh", "-c", "head -c 8 /dev/xvda | grep straight"]}, "periodSeconds": 1}
    container = busybox(script=script, volumeDevices=devices, readinessProbe=probe)
    volumes = [{"name": "d", "persistentVolumeClaim": {"claimName": "raw"}}]
    await cluster.pod("p", cluster.namespace, {"containers": [container], "volumes": volumes})
    await cluster.until_ready("p", cluster.namespace)
    assert image.read_bytes().startswith(b"straight\n")


async def test_a_local_persistent_volume_keeps_its_files(cluster: Cluster) -> None:
    ns = cluster.namespace
    disk = cluster.node.directory / "disk"
    disk.mkdir(exist_ok=True)
    await bind_local(cluster, "data", str(disk))
    mounts = [{"name": "d", "mountPath": "/d"}, {"name": "d", "mountPath": "/own", "subPathExpr": "$(NAME)"}]
    env = [{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    for name, script in (("w", f"echo kept > /d/f; echo mine > /own/f; {LIVE}"), ("r", f"cat /d/f /d/w/f; {LIVE}")):
        spec = {
            "securityContext": {"fsGroup": 3456},
            "containers": [busybox(script=script, volumeMounts=mounts, env=env)],
            "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}],
        }
        await cluster.pod(name, ns, spec)
        await cluster.until_ready(name, ns)
        if name == "w":
            await cluster.client.delete(kinds.POD, name, ns, grace_period_seconds=1)
            await cluster.gone(name, ns)
    assert cluster.kubectl("-n", ns, "logs", "r") == "kept\nmine\n"
    assert disk.stat().st_gid == 3456


async def test_limits_reach_the_cgroup_and_change_in_place(cluster: Cluster) -> None:
    ns = cluster.namespace

    def sized(cpu: str, memory: str) -> dict[str, Any]:
        amounts = {"cpu": cpu, "memory": memory}
        return {"requests": amounts, "limits": amounts}

    await cluster.pod("p", ns, {"containers": [busybox(resources=sized("100m", "32Mi"))]})
    pod = await cluster.until_ready("p", ns)
    uid = pod.metadata.uid
    assert cgroup_value(uid, "memory", "memory.limit_in_bytes") == str(32 << 20)
    assert cgroup_value(uid, "cpu", "cpu.cfs_quota_us") in ("10000", "-1")
    patch = {"spec": {"containers": [{"name": "c", "resources": sized("200m", "64Mi")}]}}
    await cluster.client.patch(kinds.POD, "p", ns, patch, type=PatchType.STRATEGIC, subresource="resize")

    def resized(found: Any) -> bool:
        allocated = found.status.containerStatuses[0].allocatedResources or {}
        return str(allocated.get("memory")) == "64Mi"

    after = await cluster.wait(kinds.POD, "p", ns, resized, 10)
    assert after.status.containerStatuses[0].restartCount == 0
    assert cgroup_value(uid, "memory", "memory.limit_in_bytes") == str(64 << 20)


async def test_burstable_pods_together_weigh_what_they_request(cluster: Cluster) -> None:
    ns = cluster.namespace
    root = cgroups.ROOT / "cpu" / cluster.node.settings["cgroup_root"].strip("/") / "kubepods"

    def shares(name: str) -> int:
        return int((root / name / "cpu.shares").read_text())

    others = shares("burstable") if shares("burstable") > 2 else 0
    for name, cpu in (("a", "250m"), ("b", "500m")):
        await cluster.pod(name, ns, {"containers": [busybox(resources={"requests": {"cpu": cpu}})]})
    same = {"cpu": "125m", "memory": "16Mi"}
    await cluster.pod("g", ns, {"containers": [busybox(resources={"requests": same, "limits": same})]})
    await cluster.pod("best-effort", ns, {"containers": [busybox()]})
    for name in ("a", "b", "g", "best-effort"):
        await cluster.until_ready(name, ns)
    assert shares("burstable") == others + 768
    assert shares("besteffort") == 2
    patch = {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]}}
    await cluster.client.patch(kinds.POD, "a", ns, patch, type=PatchType.STRATEGIC, subresource="resize")

    def resized(found: Any) -> bool:
        return (found.status.containerStatuses[0].allocatedResources or {}).get("cpu") == "500m"

    await cluster.wait(kinds.POD, "a", ns, resized, 10)
    assert shares("burstable") == others + 1024


async def test_running_out_of_memory_is_said(cluster: Cluster) -> None:
    ns = cluster.namespace
    script = "dd if=/dev/zero of=/dev/null bs=200M count=1; exit $?"
    container = busybox(script=script, resources={"limits": {"memory": "16Mi"}})
    await cluster.pod("p", ns, {"restartPolicy": "Never", "containers": [container]})
    pod = await cluster.wait(kinds.POD, "p", ns, lambda p: bool(p.status and p.status.phase == "Failed"), 15)
    assert pod.status.containerStatuses[0].state.terminated.reason == "OOMKilled"


async def test_a_pod_over_its_volume_limit_is_evicted(cluster: Cluster) -> None:
    ns = cluster.namespace
    script = f"dd if=/dev/zero of=/e/big bs=1M count=4; {LIVE}"
    spec = {
        "containers": [busybox(script=script, volumeMounts=[{"name": "e", "mountPath": "/e"}])],
        "volumes": [{"name": "e", "emptyDir": {"sizeLimit": "1Mi"}}],
    }
    await cluster.pod("p", ns, spec)
    pod = await cluster.wait(kinds.POD, "p", ns, lambda p: bool(p.status and p.status.phase == "Failed"), 20)
    assert pod.status.reason == "Evicted"
    assert 'EmptyDir volume "e" exceeds the limit "1Mi"' in pod.status.message
    # It outgrew its own limit: nobody disrupted it.
    assert not any(c.type == "DisruptionTarget" for c in pod.status.conditions)


async def test_a_pod_over_its_limit_of_ephemeral_storage_is_evicted(cluster: Cluster) -> None:
    container = busybox(
        script=f"dd if=/dev/zero of=/big bs=1k count=3000 2>/dev/null; {LIVE}",
        resources={"limits": {"ephemeral-storage": "2Mi"}},
    )
    await cluster.pod("p", cluster.namespace, {"containers": [container]})
    pod = await cluster.wait(
        kinds.POD, "p", cluster.namespace, lambda p: p.status is not None and p.status.reason == "Evicted", 40
    )
    assert pod.status.message == "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "
