"""Pods whose claims wait for a consumer: the scheduler names the node, a controller binds the claim, the pod goes."""

from __future__ import annotations

from typing import Any

from machinery.api import kinds


def storage_class(name: str, provisioner: str, mode: str = "WaitForFirstConsumer") -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": provisioner, "volumeBindingMode": mode,
    }  # fmt: skip


def claim(name: str, storage: str) -> dict[str, Any]:
    spec = {
        "storageClassName": storage,
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def local_volume(name: str, storage: str, node: str) -> dict[str, Any]:
    wanted = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    affinity = {"required": {"nodeSelectorTerms": [{"matchExpressions": [wanted]}]}}
    spec = {
        "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": storage,
        "nodeAffinity": affinity, "local": {"path": "/mnt"},
    }  # fmt: skip
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}


USES_DATA = {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}


def said(world: Any, name: str) -> str:
    conditions = world.server.state.get(kinds.POD, "default", name).get("status", {}).get("conditions", [])
    return next((c["message"] for c in conditions if c["status"] == "False"), "")


async def test_a_delayed_claim_gets_the_node_before_the_pod_does(world: Any) -> None:
    await world.client.create(kinds.STORAGE_CLASS, storage_class("local-path", "example.com/local"))
    await world.client.create(kinds.PERSISTENT_VOLUME_CLAIM, claim("data", "local-path"), "default")
    await world.add_node("n0")
    await world.start()
    await world.add_pod("p", **USES_DATA)

    def selected() -> str:
        obj = world.server.state.get(kinds.PERSISTENT_VOLUME_CLAIM, "default", "data")
        return obj["metadata"].get("annotations", {}).get("volume.kubernetes.io/selected-node", "")

    await world.until(lambda: selected() == "n0")
    assert world.placements()["p"] == ""
    volume = local_volume("made", "local-path", "n0")
    await world.client.create(kinds.PERSISTENT_VOLUME, volume)
    await world.client.patch(kinds.PERSISTENT_VOLUME_CLAIM, "data", "default", {"spec": {"volumeName": "made"}})
    await world.client.patch(
        kinds.PERSISTENT_VOLUME_CLAIM, "data", "default", {"status": {"phase": "Bound"}}, subresource="status"
    )
    await world.until(lambda: world.placements()["p"] == "n0")


async def test_an_existing_local_volume_decides_the_node(world: Any) -> None:
    await world.client.create(kinds.STORAGE_CLASS, storage_class("local", "kubernetes.io/no-provisioner"))
    await world.client.create(kinds.PERSISTENT_VOLUME_CLAIM, claim("data", "local"), "default")
    await world.client.create(kinds.PERSISTENT_VOLUME, local_volume("disk", "local", "n1"))
    for name in ("n0", "n1", "n2"):
        await world.add_node(name)
    await world.start()
    await world.add_pod("p", **USES_DATA)

    def claimed() -> str:
        return world.server.state.get(kinds.PERSISTENT_VOLUME, "", "disk")["spec"].get("claimRef", {}).get("name", "")

    await world.until(lambda: claimed() == "data")
    await world.client.patch(kinds.PERSISTENT_VOLUME_CLAIM, "data", "default", {"spec": {"volumeName": "disk"}})
    await world.client.patch(
        kinds.PERSISTENT_VOLUME_CLAIM, "data", "default", {"status": {"phase": "Bound"}}, subresource="status"
    )
    await world.until(lambda: world.placements()["p"] == "n1")


async def test_a_missing_or_unbound_claim_is_named_and_waited_for(world: Any) -> None:
    await world.add_node("n0")
    await world.start()
    await world.add_pod("p", **USES_DATA)
    await world.until(
        lambda: said(world, "p").startswith('0/1 nodes are available: 1 persistentvolumeclaim "data" not found.')
    )
    await world.client.create(kinds.STORAGE_CLASS, storage_class("now", "example.com/x", "Immediate"))
    await world.client.create(kinds.PERSISTENT_VOLUME_CLAIM, claim("data", "now"), "default")
    await world.until(lambda: "unbound immediate PersistentVolumeClaims" in said(world, "p"))
    await world.client.create(kinds.PERSISTENT_VOLUME, local_volume("disk", "now", "n0"))
    await world.client.patch(kinds.PERSISTENT_VOLUME_CLAIM, "data", "default", {"spec": {"volumeName": "disk"}})
    await world.client.patch(
        kinds.PERSISTENT_VOLUME_CLAIM, "data", "default", {"status": {"phase": "Bound"}}, subresource="status"
    )
    await world.until(lambda: world.placements()["p"] == "n0")
