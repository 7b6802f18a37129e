"""9. A node that is cut off: ten seconds cost nothing, a minute costs its pods, and no identity is ever there twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from cri_api.v1 import api_pb2 as cri
from cri_api.v1 import api_pb2_grpc

from lab import cluster as clusters
from tests.support import lab_cluster
from tests.support.lab_cluster import LabCluster, eventually
from tests.support.torture import FULL, figure, full_only

pytestmark = [pytest.mark.root, full_only]

NODE = "node2"
SHORT_SECONDS = 10
EVICTED_SECONDS_MAX = 75
"""The node lease's grace is 50 s, as upstream's, then come the taint and the pods' own toleration of 5 s."""

TEMPLATE = """
    metadata: {labels: {app: NAME}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 5}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 5}
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: ScheduleAnyway
        labelSelector: {matchLabels: {app: NAME}}
      containers: [{name: web, image: "IMAGE"}]
""".replace("IMAGE", lab_cluster.WEB_IMAGE)
MANIFEST = f"""
apiVersion: v1
kind: Service
metadata: {{name: db}}
spec: {{clusterIP: None, selector: {{app: db}}, ports: [{{port: 80}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db}}
spec:
  serviceName: db
  replicas: 2
  podManagementPolicy: Parallel
  selector: {{matchLabels: {{app: db}}}}
  template: {TEMPLATE.replace("NAME", "db")}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 4
  selector: {{matchLabels: {{app: web}}}}
  template: {TEMPLATE.replace("NAME", "web")}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabCluster]:
    if reason := FULL and lab_cluster.why_not():
        pytest.skip(f"no real nodes on this machine: {reason}")
    with lab_cluster.running(tmp_path_factory.mktemp("c"), nodes=2) as running:
        lab_cluster.load_web_image(running)
        running.kubectl("apply", "-f", "-", stdin=MANIFEST)
        for name in ("statefulset/db", "deployment/web"):
            running.kubectl("rollout", "status", name, "--timeout=120s", timeout=130)
        yield running


class Identities:
    """Asks both nodes' runtimes all the time which containers run as each pod of the StatefulSet."""

    def __init__(self, cluster: LabCluster) -> None:
        described = clusters.require(cluster.home)
        channels = [grpc.insecure_channel(f"unix://{described.node_paths(n).cri_socket}") for n in described.nodes]
        self.runtimes = [api_pb2_grpc.RuntimeServiceStub(channel) for channel in channels]
        self.twice: list[str] = []
        self.looks = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._look_on)

    def _look_on(self) -> None:
        running = cri.ContainerFilter(state=cri.ContainerStateValue(state=cri.CONTAINER_RUNNING))
        while not self.ended.wait(0.2):
            uids: dict[str, set[str]] = {}
            for runtime in self.runtimes:
                answer = runtime.ListContainers(cri.ListContainersRequest(filter=running), timeout=5)
                for container in answer.containers:
                    labels = container.labels
                    if labels["io.kubernetes.pod.name"].startswith("db-"):
                        uids.setdefault(labels["io.kubernetes.pod.name"], set()).add(labels["io.kubernetes.pod.uid"])
            self.looks += 1
            self.twice += [f"{name} runs as {found}" for name, found in uids.items() if len(found) > 1]

    def __enter__(self) -> Identities:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()


def pods(cluster: LabCluster, node: str = "") -> dict[str, Any]:
    found = cluster.get("pods")["items"]
    return {pod["metadata"]["name"]: pod for pod in found if not node or pod["spec"].get("nodeName") == node}


def ready(cluster: LabCluster) -> str:
    conditions = cluster.get("node", NODE)["status"]["conditions"]
    return str(next(condition["status"] for condition in conditions if condition["type"] == "Ready"))


def test_ten_seconds_cost_nothing_and_a_minute_costs_the_pods(cluster: LabCluster) -> None:
    there = {name: pod["metadata"]["uid"] for name, pod in pods(cluster).items()}
    with Identities(cluster) as identities:
        cluster.cutaway("node", "cut", NODE)
        time.sleep(SHORT_SECONDS)
        cluster.cutaway("node", "heal", NODE)
        time.sleep(SHORT_SECONDS)
        assert {name: pod["metadata"]["uid"] for name, pod in pods(cluster).items()} == there
        assert ready(cluster) == "True"

        lost = set(pods(cluster, NODE))
        began = time.monotonic()
        cluster.cutaway("node", "cut", NODE)
        try:
            eventually(lambda: ready(cluster) == "Unknown", seconds=EVICTED_SECONDS_MAX, what="the node is not ready")
            unready = time.monotonic() - began
            assert unready > SHORT_SECONDS
            taints = eventually(lambda: cluster.get("node", NODE)["spec"].get("taints"), what="the node is tainted")
            assert {"node.kubernetes.io/unreachable"} <= {taint["key"] for taint in taints}
            eventually(
                lambda: all("deletionTimestamp" in pod["metadata"] for pod in pods(cluster, NODE).values()),
                seconds=30,
                what="its pods are evicted",
            )
            evicted = time.monotonic() - began
            eventually(
                lambda: cluster.get("deployment", "web")["status"].get("readyReplicas") == 4, what="others took over"
            )
            # The StatefulSet waits: nobody knows whether its pod there still runs.
            held = {name for name in pods(cluster, NODE) if name.startswith("db-")}
            assert held == {name for name in lost if name.startswith("db-")}
        finally:
            cluster.cutaway("node", "heal", NODE)
        eventually(lambda: ready(cluster) == "True", what="the node is back")
        eventually(
            lambda: (
                cluster.get("statefulset", "db")["status"].get("readyReplicas") == 2
                and not (lost & set(pods(cluster)) - held)
            ),
            seconds=90,
            what="everything is there again",
        )
    assert identities.looks > 50
    assert identities.twice == []
    figure(
        9,
        f"cut {SHORT_SECONDS} s: no eviction; cut for longer: not ready after {unready:.0f} s, evicted after "
        f"{evicted:.0f} s; in {identities.looks} looks no identity of the StatefulSet ran twice",
    )
