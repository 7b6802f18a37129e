"""How fast the scheduler decides, alone in its process: all nodes are looked at for each pod.

    python -m benchmarks.scheduler [--nodes 5000] [--pods 10000] [--rounds 3]

Prints decisions a second for each kind of workload (the middle of the rounds); the state validates itself afterwards.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from services.scheduler import config as scheduler_config
from services.scheduler.cluster_state import ClusterState
from services.scheduler.objects import (
    Affinity,
    Container,
    LabelSelector,
    Metadata,
    Node,
    NodeStatus,
    Pod,
    PodAffinity,
    PodAffinityTerm,
    PodSpec,
    Resources,
    SpreadConstraint,
    WeightedPodAffinityTerm,
)
from services.scheduler.pod_info import PodInfo
from services.scheduler.schedule import decide

HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
SELF = LabelSelector(matchLabels={"app": "web"})
REQUESTS = Resources(requests={"cpu": "100m", "memory": "500Mi"})


def near(key: str) -> PodAffinityTerm:
    return PodAffinityTerm(topologyKey=key, labelSelector=SELF)


def affinity(kind: str, key: str) -> dict[str, Any]:
    return {"affinity": Affinity(**{kind: PodAffinity(requiredDuringSchedulingIgnoredDuringExecution=[near(key)])})}


def spread(key: str, when: str) -> dict[str, Any]:
    constraint = SpreadConstraint(maxSkew=1, topologyKey=key, whenUnsatisfiable=when, labelSelector=SELF)
    return {"topologySpreadConstraints": [constraint]}


def preferred(kind: str, key: str) -> dict[str, Any]:
    term = WeightedPodAffinityTerm(weight=1, podAffinityTerm=near(key))
    return {"affinity": Affinity(**{kind: PodAffinity(preferredDuringSchedulingIgnoredDuringExecution=[term])})}


WORKLOADS: dict[str, tuple[float, Callable[[int], dict[str, Any]]]] = {
    # name: (share of --pods, what the n-th pod's specification adds)
    "plain pods": (1.0, lambda n: {}),
    "plain pods of 100 kinds": (1.0, lambda n: {"nodeSelector": {ZONE: f"zone{n % 3}"}, "priority": n % 34}),
    "required anti-affinity, host": (0.2, lambda n: affinity("podAntiAffinity", HOST)),
    "required affinity, zone": (0.2, lambda n: affinity("podAffinity", ZONE)),
    "preferred anti-affinity, host": (0.2, lambda n: preferred("podAntiAffinity", HOST)),
    "topology spread, zone": (0.2, lambda n: spread(ZONE, "DoNotSchedule")),
    "preferred spread, zone": (0.2, lambda n: spread(ZONE, "ScheduleAnyway")),
}


def node(number: int) -> Node:
    labels = {HOST: f"node{number}", ZONE: f"zone{number % 3}"}
    status = NodeStatus(allocatable={"cpu": "4", "memory": "32Gi", "pods": "110"})
    return Node(metadata=Metadata(name=f"node{number}", labels=labels), status=status)


def pod(number: int, extra: dict[str, Any]) -> PodInfo:
    metadata = Metadata(name=f"pod{number}", namespace="bench", uid=f"uid{number}", labels={"app": "web"})
    spec = PodSpec(containers=[Container(name="c", resources=REQUESTS)], **extra)
    return PodInfo(Pod(metadata=metadata, spec=spec))


def one_round(nodes: int, pods: int, extra: Callable[[int], dict[str, Any]]) -> float:
    """Decisions a second."""
    state = ClusterState()
    for number in range(nodes):
        state.set_node(node(number))
    profile = scheduler_config.build_profiles(scheduler_config.read(""))["default-scheduler"]
    random = np.random.default_rng(1)
    waiting = [pod(number, extra(number)) for number in range(pods)]
    placed = 0
    begin = time.perf_counter()
    for info in waiting:
        decision = decide(info, state, profile, random)
        if decision.row is not None:
            state.assume(info, decision.row)
            placed += 1
    seconds = time.perf_counter() - begin
    state.validate()
    assert placed == pods, f"only {placed} of {pods} placed"
    return pods / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{arguments.nodes} nodes, all of them considered for each pod")
    for name, (share, extra) in WORKLOADS.items():
        pods = max(1, int(arguments.pods * share))
        figures = [one_round(arguments.nodes, pods, extra) for _ in range(arguments.rounds)]
        print(f"{name:32} {pods:6} pods {statistics.median(figures):9.0f} /s  ({min(figures):.0f}-{max(figures):.0f})")


if __name__ == "__main__":
    main()
