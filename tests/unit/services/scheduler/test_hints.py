"""A pod that waits is tried again when what it waits for has changed, and not before: each plugin's word to each event,
and over random clusters that no pod waits on that would fit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.scheduler import config as scheduler_config
from services.scheduler.devices.objects import DeviceClass, DeviceResourceClaim, DeviceTaintRule
from services.scheduler.framework import ClusterEvent
from services.scheduler.objects import Node, Pod, Resources
from services.scheduler.plugins import registry
from services.scheduler.pod_info import PodInfo
from services.scheduler.queue import UNSCHEDULABLE
from services.scheduler.schedule import decide
from services.scheduler.scheduler import Scheduler
from services.scheduler.volumes import Claim, CsiNode

HOST = "kubernetes.io/hostname"


def node(name: str = "n0", cpu: str = "2", labels: dict[str, str] | None = None, **spec: Any) -> Node:
    raw = {
        "metadata": {"name": name, "uid": name, "labels": {HOST: name, **(labels or {})}},
        "spec": spec,
        "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "5"}},
    }
    return msgspec.convert(raw, Node)


def pod(name: str = "p", cpu: str = "1", labels: dict[str, str] | None = None, **spec: Any) -> Pod:
    port = spec.pop("port", None)
    container: dict[str, Any] = {"name": "c", "image": "x", "resources": {"requests": {"cpu": cpu}}}
    if port:
        container["ports"] = [{"containerPort": 80, "hostPort": port}]
    metadata = {"name": name, "namespace": "default", "uid": name, "labels": labels or {"app": "a"}}
    return msgspec.convert({"metadata": metadata, "spec": {"containers": [container], **spec}}, Pod)


def affinity(kind: str, app: str = "b", key: str = "zone") -> dict[str, Any]:
    term = {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}}
    return {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def in_zone(*zones: str) -> dict[str, Any]:
    term = {"matchExpressions": [{"key": "zone", "operator": "In", "values": list(zones)}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def spread(app: str = "a") -> list[dict[str, Any]]:
    selector = {"matchLabels": {"app": app}}
    return [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}]


# --- each plugin's word -----------------------------------------------------------------------------------------------

Z1, Z2 = {"zone": "z1"}, {"zone": "z2"}
ZONE = {"topology.kubernetes.io/zone": "z"}
TAINT = [{"key": "x", "effect": "NoSchedule"}]
TOLERATION = [{"key": "x", "operator": "Exists"}]
B = {"app": "b"}
DEVICE = [{"name": "d", "resourceClaimName": "mine"}]
VOLUME = [{"name": "v", "persistentVolumeClaim": {"claimName": "mine"}}]


def pvc(name: str, phase: str = "Bound") -> Claim:
    raw = {"metadata": {"name": name, "namespace": "default"}, "spec": {"volumeName": "v"}, "status": {"phase": phase}}
    return msgspec.convert(raw, Claim)


def claim(name: str, *, allocated: bool = False) -> DeviceResourceClaim:
    status = {"allocation": {"devices": {"results": []}}} if allocated else {}
    metadata = {"name": name, "namespace": "default", "uid": name}
    return msgspec.convert({"metadata": metadata, "status": status}, DeviceResourceClaim)


def claim_of(pod_name: str) -> DeviceResourceClaim:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": pod_name, "uid": pod_name, "controller": True}
    metadata = {"name": "x", "namespace": "default", "uid": "x", "ownerReferences": [owner]}
    return msgspec.convert({"metadata": metadata}, DeviceResourceClaim)


def taint_rule(effect: str) -> DeviceTaintRule:
    return msgspec.convert(
        {"metadata": {"name": "r"}, "spec": {"taint": {"key": "k", "effect": effect}}}, DeviceTaintRule
    )


def device_class(resource: str | None, name: str = "gpu") -> DeviceClass:
    return msgspec.convert({"metadata": {"name": name}, "spec": {"extendedResourceName": resource}}, DeviceClass)


def asking(resource: str) -> Pod:
    container = {"name": "c", "resources": {"requests": {resource: "1"}}}
    return msgspec.convert({"metadata": {"name": "p", "uid": "p"}, "spec": {"containers": [container]}}, Pod)


GPU = "example.com/gpu"


def csi_node() -> CsiNode:
    return msgspec.convert({"metadata": {}}, CsiNode)


def info(**more: Any) -> PodInfo:
    return PodInfo(pod(**more))


CASES: list[tuple[str, str, str, Pod, Any, Any, bool]] = [
    # plugin, resource, action, the waiting pod, old, new, worth a try
    ("NodeUnschedulable", "Node", "Update", pod(), node(unschedulable=True), node(), True),
    ("NodeUnschedulable", "Node", "Update", pod(), node(unschedulable=True), node(unschedulable=True, cpu="9"), False),
    ("NodeUnschedulable", "Node", "Add", pod(), None, node(unschedulable=True), False),
    ("NodeUnschedulable", "Node", "Add", pod(), None, node(), True),
    ("TaintToleration", "Node", "Update", pod(), node(taints=TAINT), node(), True),
    ("TaintToleration", "Node", "Update", pod(), node(taints=TAINT), node(taints=TAINT, cpu="9"), False),
    ("TaintToleration", "Node", "Update", pod(), node(), node(cpu="9"), False),
    ("TaintToleration", "Node", "Add", pod(), None, node(taints=TAINT), False),
    ("TaintToleration", "Node", "Add", pod(tolerations=TOLERATION), None, node(taints=TAINT), True),
    ("NodeAffinity", "Node", "Update", pod(affinity=in_zone("z1")), node(labels=Z2), node(labels=Z1), True),
    ("NodeAffinity", "Node", "Update", pod(affinity=in_zone("z1")), node(labels=Z1), node(labels=Z2), False),
    ("NodeAffinity", "Node", "Update", pod(affinity=in_zone("z1")), node(), node(labels={"other": "x"}), False),
    ("NodeAffinity", "Node", "Update", pod(nodeSelector=Z1), node(), node(cpu="9"), False),
    ("NodeAffinity", "Node", "Add", pod(nodeSelector=Z1), None, node(labels=Z2), False),
    ("NodeAffinity", "Node", "Add", pod(nodeSelector=Z1), None, node(labels=Z1), True),
    ("NodePorts", "Pod", "Delete", pod(port=80), info(port=80), None, True),
    ("NodePorts", "Pod", "Delete", pod(port=80), info(port=81), None, False),
    ("NodePorts", "Pod", "Delete", pod(port=80), info(), None, False),
    ("NodePorts", "Node", "Add", pod(port=80), None, node(), True),
    ("NodeResourcesFit", "Pod", "Delete", pod(), info(), None, True),
    ("NodeResourcesFit", "Pod", "Update", pod(), info(cpu="2"), info(cpu="1"), True),
    ("NodeResourcesFit", "Pod", "Update", pod(), info(cpu="1"), info(cpu="2"), False),
    ("NodeResourcesFit", "Pod", "Update", pod(), info(), info(labels=B), False),
    ("NodeResourcesFit", "Node", "Update", pod(), node(cpu="500m"), node(cpu="2"), True),
    ("NodeResourcesFit", "Node", "Update", pod(cpu="4"), node(cpu="1"), node(cpu="2"), False),
    ("NodeResourcesFit", "Node", "Update", pod(), node(), node(labels=Z1), False),
    ("NodeResourcesFit", "Node", "Add", pod(cpu="4"), None, node(cpu="2"), False),
    ("NodeResourcesFit", "Node", "Add", pod(), None, node(), True),
    ("NodeResourcesFit", "DeviceClass", "Add", asking(GPU), None, device_class(GPU), True),
    ("NodeResourcesFit", "DeviceClass", "Add", asking(GPU), None, device_class("other.io/x"), False),
    ("NodeResourcesFit", "DeviceClass", "Add",
     asking("deviceclass.resource.kubernetes.io/gpu"), None, device_class(None), True),
    ("NodeResourcesFit", "DeviceClass", "Update", asking(GPU), device_class(None), device_class(GPU), True),
    ("NodeResourcesFit", "DeviceClass", "Update", asking(GPU), device_class(GPU), device_class(GPU), False),
    ("InterPodAffinity", "Pod", "Add", pod(affinity=affinity("podAffinity")), None, info(labels=B), True),
    ("InterPodAffinity", "Pod", "Add", pod(affinity=affinity("podAffinity")), None, info(labels={"app": "c"}), False),
    ("InterPodAffinity", "Pod", "Delete", pod(affinity=affinity("podAntiAffinity")), info(labels=B), None, True),
    ("InterPodAffinity", "Pod", "Delete", pod(affinity=affinity("podAntiAffinity")), info(), None, False),
    ("InterPodAffinity", "Pod", "Delete", pod(), info(affinity=affinity("podAntiAffinity", "a")), None, True),
    ("InterPodAffinity", "Pod", "Update", pod(affinity=affinity("podAffinity")), info(), info(labels=B), True),
    ("InterPodAffinity", "Node", "Update", pod(affinity=affinity("podAffinity")), node(), node(labels=Z1), True),
    ("InterPodAffinity", "Node", "Update", pod(affinity=affinity("podAffinity")), node(), node(cpu="9"), False),
    ("PodTopologySpread", "Pod", "Add", pod(topologySpreadConstraints=spread()), None, info(), True),
    ("PodTopologySpread", "Pod", "Add", pod(topologySpreadConstraints=spread()), None, info(labels=B), False),
    ("PodTopologySpread", "Pod", "Delete", pod(topologySpreadConstraints=spread()), info(), None, True),
    ("PodTopologySpread", "Node", "Add", pod(topologySpreadConstraints=spread()), None, node(labels=Z1), True),
    ("PodTopologySpread", "Node", "Add", pod(topologySpreadConstraints=spread()), None, node(), False),
    ("PodTopologySpread", "Node", "Delete", pod(topologySpreadConstraints=spread()), node(labels=Z1), None, True),
    ("PodTopologySpread", "Node", "Update", pod(topologySpreadConstraints=spread()), node(), node(labels=Z1), True),
    ("PodTopologySpread", "Node", "Update", pod(topologySpreadConstraints=spread()), node(), node(cpu="9"), False),
    ("VolumeBinding", "PersistentVolumeClaim", "Update", pod(volumes=VOLUME), pvc("mine", ""), pvc("mine"), True),
    ("VolumeBinding", "PersistentVolumeClaim", "Update", pod(volumes=VOLUME), pvc("its", "Pending"), pvc("its"), False),
    ("VolumeBinding", "Node", "Update", pod(volumes=VOLUME), node(), node(labels=Z1), True),
    ("VolumeBinding", "Node", "Update", pod(volumes=VOLUME), node(), node(cpu="9"), False),
    ("VolumeRestrictions", "Pod", "Delete", pod(volumes=VOLUME), info(volumes=VOLUME), None, True),
    ("VolumeRestrictions", "Pod", "Delete", pod(volumes=VOLUME), info(), None, False),
    ("VolumeZone", "Node", "Update", pod(volumes=VOLUME), node(), node(labels=ZONE), True),
    ("VolumeZone", "Node", "Update", pod(volumes=VOLUME), node(), node(cpu="9"), False),
    ("VolumeZone", "PersistentVolumeClaim", "Update", pod(volumes=VOLUME), pvc("mine", ""), pvc("mine"), True),
    ("VolumeZone", "PersistentVolumeClaim", "Update", pod(volumes=VOLUME), pvc("its", ""), pvc("its"), False),
    ("NodeVolumeLimits", "Pod", "Delete", pod(volumes=VOLUME), info(volumes=VOLUME), None, True),
    ("NodeVolumeLimits", "Pod", "Delete", pod(volumes=VOLUME), info(), None, False),
    ("NodeVolumeLimits", "CSINode", "Update", pod(volumes=VOLUME), None, csi_node(), True),
    ("DynamicResources", "ResourceClaim", "Update", pod(resourceClaims=DEVICE),
     claim("its", allocated=True), claim("its", allocated=False), True),
    ("DynamicResources", "ResourceClaim", "Update", pod(resourceClaims=DEVICE),
     claim("its", allocated=False), claim("its", allocated=True), False),
    ("DynamicResources", "ResourceClaim", "Add", pod(resourceClaims=DEVICE), None, claim("mine"), True),
    ("DynamicResources", "ResourceClaim", "Add", pod(resourceClaims=DEVICE), None, claim("its"), False),
    ("DynamicResources", "ResourceClaim", "Delete", asking(GPU), claim_of("p"), None, True),
    ("DynamicResources", "ResourceClaim", "Delete", asking(GPU), claim_of("q"), None, False),
    ("DynamicResources", "DeviceTaintRule", "Update", pod(resourceClaims=DEVICE),
     taint_rule("NoSchedule"), taint_rule("None"), True),
    ("DynamicResources", "DeviceTaintRule", "Update", pod(resourceClaims=DEVICE),
     taint_rule("NoSchedule"), taint_rule("NoSchedule"), False),
    ("DynamicResources", "ResourceSlice", "Add", pod(resourceClaims=DEVICE), None, None, True),
    ("DynamicResources", "DeviceClass", "Add", pod(resourceClaims=DEVICE), None, None, True),
    ("DynamicResources", "Node", "Update", pod(resourceClaims=DEVICE), node(), node(cpu="9"), False),
    ("DynamicResources", "Node", "Update", pod(resourceClaims=DEVICE), node(), node(labels=Z1), True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("plugin", "resource", "action", "waiting", "old", "new", "yes"),
    CASES,
    ids=[f"{number}-{case[0]}-{case[1]}-{case[2]}" for number, case in enumerate(CASES)],
)
def test_what_a_plugin_says_to_an_event(
    plugin: str, resource: str, action: str, waiting: Pod, old: Any, new: Any, yes: bool
) -> None:
    events = registry.BY_NAME[plugin](None, None).events()
    hint = events[ClusterEvent(resource, action)]
    assert (hint is None or hint(PodInfo(waiting), old, new)) is yes


def test_every_plugin_that_refuses_says_what_may_help() -> None:
    silent = {"SchedulingGates", "NodeName", "NodeResourcesBalancedAllocation", "ImageLocality", "DefaultPreemption"}
    told = {case[0] for case in CASES}
    assert told | silent == set(registry.BY_NAME)
    for name in told:
        events = registry.BY_NAME[name](None, None).events()
        for yes in (True, False):
            asked = {events[ClusterEvent(case[1], case[2])] for case in CASES if case[0] == name and case[6] is yes}
            missing = {hint for hint in events.values() if hint is not None} - asked
            assert not missing, f"{name}: no case in which {missing} says {yes}"


# --- nobody waits in vain ---------------------------------------------------------------------------------------------


class World:
    """A scheduler without a client: its watches are called by hand."""

    def __init__(self) -> None:
        configuration = scheduler_config.read("")
        client: Any = SimpleNamespace()
        recorder: Any = SimpleNamespace(record=lambda *_: None)
        self.now = 0.0
        self.scheduler = Scheduler(
            client, lambda handle: scheduler_config.build_profiles(configuration, {}, handle), recorder,
            clock=lambda: self.now, random=np.random.default_rng(1),
        )  # fmt: skip
        self.nodes: dict[str, Node] = {}
        self.pods: dict[str, Pod] = {}

    def set_node(self, name: str, new: Node | None) -> None:
        old = self.nodes.pop(name, None)
        if new is not None:
            self.nodes[name] = new
        if old is not None or new is not None:
            self.scheduler._on_node(old, new)

    def set_pod(self, name: str, new: Pod | None) -> None:
        old = self.pods.pop(name, None)
        if new is not None:
            self.pods[name] = new
        if old is not None or new is not None:
            self.scheduler._on_pod(old, new)

    def schedule(self) -> None:
        """What the loop does, until nobody can be placed. The binding is seen at once."""
        self.now += 20.0
        for _ in range(40):
            bindings = self.scheduler._decide_some()
            for binding in bindings:
                self.scheduler.queue.remove(binding.pod.uid)
                placed = msgspec.structs.replace(binding.pod.pod)
                placed.spec = msgspec.structs.replace(placed.spec, nodeName=binding.node)
                self.set_pod(placed.metadata.name, placed)
            if not bindings and not self.scheduler.queue.counts["active"]:
                return

    def forgotten(self) -> list[str]:
        """Pods that nobody will try again before the net under the hints does, though they fit."""
        scheduler = self.scheduler
        profile = scheduler.profiles["default-scheduler"]
        out = []
        for waiting in scheduler.queue.waiting():
            if waiting.queue == UNSCHEDULABLE:
                decision = decide(waiting.pod, scheduler.state, profile, np.random.default_rng(1))
                if decision.row is not None:
                    out.append(f"{waiting.pod.key} ({', '.join(waiting.plugins)})")
        return out


NODES = st.builds(
    lambda name, cpu, labels, taints, off: node(name, cpu, labels, **({"taints": taints} if taints else {}), **off),
    st.sampled_from(["n0", "n1", "n2"]),
    st.sampled_from(["1", "2", "4"]),
    st.sampled_from([{}, {"zone": "z1"}, {"zone": "z2"}, {"zone": "z1", "disk": "ssd"}]),
    st.sampled_from([None, None, TAINT, [{"key": "y", "effect": "NoExecute"}]]),
    st.sampled_from([{}, {}, {}, {"unschedulable": True}]),
)
SPECS = st.sampled_from(
    [
        {},
        {"nodeSelector": {"disk": "ssd"}},
        {"affinity": in_zone("z2")},
        {"affinity": affinity("podAffinity", "b")},
        {"affinity": affinity("podAntiAffinity", "a")},
        {"affinity": affinity("podAntiAffinity", "b", HOST)},
        {"topologySpreadConstraints": spread()},
        {"topologySpreadConstraints": [{**spread()[0], "nodeTaintsPolicy": "Honor", "minDomains": 2}]},
        {"tolerations": TOLERATION},
        {"port": 80},
    ]
)
PODS = st.builds(
    lambda name, cpu, app, spec: pod(name, cpu, {"app": app}, **dict(spec)),
    st.sampled_from([f"p{number}" for number in range(6)]),
    st.sampled_from(["500m", "1", "3"]),
    st.sampled_from(["a", "b"]),
    SPECS,
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("node"), NODES),
        st.tuples(st.just("pod"), PODS),
        st.tuples(st.just("node gone"), st.sampled_from(["n0", "n1", "n2"])),
        st.tuples(st.just("pod gone"), st.sampled_from([f"p{number}" for number in range(6)])),
        st.tuples(st.just("shrink"), st.sampled_from([f"p{number}" for number in range(6)])),
        st.tuples(st.just("label"), st.sampled_from([f"p{number}" for number in range(6)])),
    ),
    min_size=4,
    max_size=25,
)


def resized(old: Pod) -> Pod:
    container = msgspec.structs.replace(old.spec.containers[0], resources=Resources(requests={"cpu": "100m"}))
    return msgspec.structs.replace(old, spec=msgspec.structs.replace(old.spec, containers=[container]))


@given(STEPS)
@settings(max_examples=120, deadline=None)
def test_no_pod_waits_that_would_fit(steps: list[tuple[str, Any]]) -> None:
    world = World()
    for what, value in steps:
        if what == "node":
            world.set_node(value.metadata.name, value)
        elif what == "pod" and value.metadata.name not in world.pods:
            world.set_pod(value.metadata.name, value)
        elif what == "node gone":
            for name, each in list(world.pods.items()):
                if each.spec.nodeName == value:
                    world.set_pod(name, None)
            world.set_node(value, None)
        elif what == "pod gone":
            world.set_pod(value, None)
        elif what == "label" and value in world.pods:
            old = world.pods[value]
            changed = msgspec.structs.replace(old, metadata=msgspec.structs.replace(old.metadata, labels=B))
            world.set_pod(value, changed)
        elif what == "shrink" and value in world.pods:
            world.set_pod(value, resized(world.pods[value]))
        assert world.forgotten() == [], f"after {what}"
        world.schedule()
        assert world.forgotten() == [], f"after scheduling, following {what}"
