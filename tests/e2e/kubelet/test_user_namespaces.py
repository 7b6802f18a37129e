"""Pods with `hostUsers: false`: over a runtime that can, and over one that can't."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from machinery.api import kinds
from tests.support.kubelet_node import Cluster, busybox

pytestmark = pytest.mark.root


async def _can(cluster: Cluster) -> bool:
    node = await cluster.ready_node()
    handlers = {h.name: h.features for h in node.status.runtimeHandlers or ()}
    return bool("" in handlers and handlers[""].userNamespaces)


def _range(cluster: Cluster, pod: Any) -> int:
    record = json.loads((Path(cluster.node.root) / "pods" / pod.metadata.uid / "userns").read_text())
    assert record["uidMappings"] == record["gidMappings"]
    return int(record["uidMappings"][0]["hostId"])


async def test_users_of_a_pod_are_nobody_on_the_node_and_volumes_show_its_own(cluster: Cluster) -> None:
    ns = cluster.namespace
    await cluster.client.create(
        kinds.CONFIG_MAP,
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": ns}, "data": {"k": "v"}},
        ns,
    )
    checks = [
        'test "$(stat -c %u /config/k)" = 0',
        "touch /empty/made && chown 1000:1000 /empty/made",
        'test "$(stat -c %g /shared)" = 4000',
        "cat /var/run/secrets/kubernetes.io/serviceaccount/token > /dev/null",
        "echo said > /dev/termination-log",
    ]
    container = busybox(
        script=f"{' && '.join(checks)} && cat /proc/self/uid_map; sleep 600",
        volumeMounts=[
            {"name": "config", "mountPath": "/config"},
            {"name": "empty", "mountPath": "/empty"},
            {"name": "shared", "mountPath": "/shared"},
        ],
    )
    volumes = [
        {"name": "config", "configMap": {"name": "m"}},
        {"name": "empty", "emptyDir": {}},
        {"name": "shared", "emptyDir": {"medium": "Memory"}},
    ]
    spec = {"hostUsers": False, "containers": [container], "volumes": volumes, "securityContext": {"fsGroup": 4000}}
    await cluster.pod("one", ns, spec)
    if not await _can(cluster):
        await cluster.told(ns, 'RuntimeClassHandler "" does not support user namespaces')
        return
    one = await cluster.until_ready("one", ns)
    await cluster.pod("two", ns, {"hostUsers": False, "containers": [busybox()]})
    two = await cluster.until_ready("two", ns)
    first, second = _range(cluster, one), _range(cluster, two)
    assert first != second
    assert cluster.kubectl("exec", "-n", ns, "one", "--", "cat", "/proc/self/uid_map").split() == [
        "0", str(first), "65536",
    ]  # fmt: skip
    assert cluster.kubectl("logs", "-n", ns, "one").split() == ["0", str(first), "65536"]
    # On disk a file that the pod gave to its user 1000 is user 1000's: the mount maps, nothing is given away.
    made = Path(cluster.node.root) / "pods" / one.metadata.uid / "volumes/kubernetes.io~empty-dir/empty/made"
    assert made.stat().st_uid == 1000
    assert _owners_of_sleepers() == {first}

    cluster.node.stop()
    cluster.node.start()
    await cluster.ready_node()
    await cluster.pod("three", ns, {"hostUsers": False, "containers": [busybox()]})
    three = await cluster.until_ready("three", ns)
    assert _range(cluster, three) not in (first, second)
    again = await cluster.client.get(kinds.POD, "one", ns)
    assert again.status.containerStatuses[0].restartCount == 0


def _owners_of_sleepers() -> set[int]:
    return {Path(f"/proc/{name}").stat().st_uid for name in os.listdir("/proc") if name.isdigit() and _sleeps(name)}


def _sleeps(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x00600\x00"
    except OSError:
        return False
