"""Every node that the scheduler calls fit, and each that it refuses, against an independent reading of the rules."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.scheduler import config as scheduler_config
from services.scheduler.cluster_state import ClusterState
from services.scheduler.objects import decode_node, decode_pod
from services.scheduler.pod_info import PodInfo
from services.scheduler.profile import Profile
from services.scheduler.schedule import decide
from tests.support.placement_checker import World

HOST, ZONE = "kubernetes.io/hostname", "zone"
APPS = st.sampled_from(["a", "b"])
SELECTORS = st.one_of(
    st.builds(lambda app: {"matchLabels": {"app": app}}, APPS),
    st.just({"matchExpressions": [{"key": "app", "operator": "Exists"}]}),
    st.just({}),
)
TAINTS = st.lists(
    st.fixed_dictionaries(
        {
            "key": st.sampled_from(["x", "y"]),
            "effect": st.sampled_from(["NoSchedule", "NoExecute", "PreferNoSchedule"]),
        },
        optional={"value": st.sampled_from(["1", "2"])},
    ),
    max_size=2,
    unique_by=lambda taint: (taint["key"], taint["effect"]),
)
TOLERATIONS = st.lists(
    st.one_of(
        st.fixed_dictionaries({"key": st.sampled_from(["x", "y"]), "operator": st.just("Exists")}),
        st.fixed_dictionaries({"key": st.sampled_from(["x", "y"]), "value": st.sampled_from(["1", "2"])}),
        st.just({"operator": "Exists", "effect": "NoSchedule"}),
    ),
    max_size=2,
)


# What the pods of one cluster are choosy about. Where everything is drawn at once hardly a pod finds a place, and then
# nothing is there that the rules about other pods could be broken by.
THEMES = ("resources", "ports", "taints", "nodes", "affinity", "anti-affinity", "spread")
ALL = frozenset(THEMES)


@st.composite
def nodes(draw: st.DrawFn, themes: frozenset[str] = ALL) -> list[dict[str, Any]]:
    out = []
    for number in range(draw(st.integers(1, 5))):
        found = {HOST: f"n{number}"}
        zone = draw(st.sampled_from(["z1", "z2", None]))
        if zone:
            found[ZONE] = zone
        if draw(st.booleans()):
            found["size"] = draw(st.sampled_from(["1", "5", "9", "big"]))
        spec: dict[str, Any] = {"taints": draw(TAINTS) if "taints" in themes else []}
        if "taints" in themes and draw(st.integers(0, 9)) == 0:
            spec["unschedulable"] = True
        status = {"allocatable": {"cpu": draw(st.sampled_from(["1", "2500m"])), "memory": "2Gi", "pods": "4"}}
        out.append({"metadata": {"name": f"n{number}", "labels": found}, "spec": spec, "status": status})
    return out


@st.composite
def node_affinity(draw: st.DrawFn) -> dict[str, Any]:
    one = st.one_of(
        st.just({"key": ZONE, "operator": "In", "values": ["z1"]}),
        st.just({"key": ZONE, "operator": "NotIn", "values": ["z1"]}),
        st.just({"key": "size", "operator": "Gt", "values": ["4"]}),
        st.just({"key": "size", "operator": "Exists"}),
        st.just({"key": "size", "operator": "DoesNotExist"}),
    )
    terms = [{"matchExpressions": draw(st.lists(one, min_size=1, max_size=2))} for _ in range(draw(st.integers(1, 2)))]
    if draw(st.integers(0, 4)) == 0:
        terms.append({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n0"]}]})
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}


TERMS = st.lists(
    st.fixed_dictionaries({"topologyKey": st.sampled_from([HOST, ZONE]), "labelSelector": SELECTORS}),
    min_size=1,
    max_size=2,
)


@st.composite
def pods(draw: st.DrawFn, themes: frozenset[str] = ALL) -> dict[str, Any]:
    rarely = len(themes) > 1

    def chosen(theme: str) -> bool:
        return theme in themes and draw(st.integers(0, 3 if rarely else 1)) == 0

    container: dict[str, Any] = {"name": "c", "image": "i"}
    cpus = ["100m", "1", "0", "999m", "1001m"] if "resources" in themes else ["0"]
    memory = ["512Mi", "1Gi"] if "resources" in themes and not rarely else ["64Mi"]
    container["resources"] = {"requests": {"cpu": draw(st.sampled_from(cpus)), "memory": draw(st.sampled_from(memory))}}
    if chosen("ports"):
        port = {"containerPort": 80, "hostPort": draw(st.sampled_from([80, 81]))}
        ip = draw(st.sampled_from(["", "127.0.0.1", "127.0.0.2"]))
        container["ports"] = [port | ({"hostIP": ip} if ip else {})]
    spec: dict[str, Any] = {"containers": [container], "tolerations": draw(TOLERATIONS) if "taints" in themes else []}
    affinity: dict[str, Any] = {}
    if chosen("nodes"):
        affinity["nodeAffinity"] = draw(node_affinity())
    for kind, theme in (("podAffinity", "affinity"), ("podAntiAffinity", "anti-affinity")):
        if chosen(theme):
            affinity[kind] = {"requiredDuringSchedulingIgnoredDuringExecution": draw(TERMS)}
    if affinity:
        spec["affinity"] = affinity
    if chosen("nodes"):
        spec["nodeSelector"] = {ZONE: "z1"}
    if chosen("spread"):
        constraint = st.fixed_dictionaries(
            {
                "maxSkew": st.integers(1, 2), "topologyKey": st.sampled_from([HOST, ZONE]),
                "whenUnsatisfiable": st.sampled_from(["DoNotSchedule", "DoNotSchedule", "ScheduleAnyway"]),
                "labelSelector": SELECTORS,
            },
        )  # fmt: skip
        unique = st.lists(
            constraint, min_size=1, max_size=2, unique_by=lambda c: (c["topologyKey"], c["whenUnsatisfiable"])
        )
        spec["topologySpreadConstraints"] = draw(unique)
    return {"metadata": {"namespace": draw(st.sampled_from(["s", "t"])), "labels": {"app": draw(APPS)}}, "spec": spec}


def profile() -> Profile:
    return scheduler_config.build_profiles(scheduler_config.read(""))["default-scheduler"]


@pytest.mark.parametrize("theme", [*THEMES, "all"])
@settings(max_examples=30, deadline=None)
@given(data=st.data(), chance=st.randoms(use_true_random=False))
def test_the_scheduler_and_the_checker_agree_about_every_node_and_pod(
    theme: str, data: st.DataObject, chance: Any
) -> None:
    themes = ALL if theme == "all" else frozenset([theme])
    offered = data.draw(nodes(themes))
    wanted = data.draw(st.lists(pods(themes), max_size=12))
    state, world, plugins, random = ClusterState(), World(offered), profile(), np.random.default_rng(1)
    for node in offered:
        state.set_node(decode_node(msgspec.json.encode(node)))
    for number, pod in enumerate(wanted):
        pod["metadata"] |= {"name": f"p{number}", "uid": f"u{number}"}
        info = PodInfo(decode_pod(msgspec.json.encode(pod)))
        feasible = plugins.judge(info, state).feasible
        for name in world.nodes:
            assert bool(feasible[state.row_of[name]]) == (not world.why_not(pod, name)), (
                name,
                world.why_not(pod, name),
            )
        decision = decide(info, state, plugins, random)
        assert (decision.row is None) == (not feasible.any())
        if decision.row is None:
            assert decision.diagnosis is not None
            assert decision.diagnosis.message.startswith(f"0/{len(offered)} nodes are available: ")
            counted = sum(decision.diagnosis.reasons.values())
            assert counted >= len(offered)
        else:
            name = state.name(decision.row)
            state.assume(info, decision.row)
            world.place(pod, name)
            if chance.random() < 0.2:  # Something leaves again.
                gone, _ = world.pods.pop(0)
                state.remove_pod(gone["metadata"]["uid"])
    state.validate()


@settings(max_examples=30, deadline=None)
@given(nodes(), st.lists(pods(), min_size=1, max_size=8), st.data())
def test_nodes_that_change_and_vanish_leave_nothing_behind(
    offered: list[dict[str, Any]], wanted: list[dict[str, Any]], data: st.DataObject
) -> None:
    state, plugins, random = ClusterState(), profile(), np.random.default_rng(1)
    present: dict[str, dict[str, Any]] = {}
    for number, pod in enumerate(wanted):
        for node in offered:
            name = node["metadata"]["name"]
            if data.draw(st.booleans()):
                state.set_node(decode_node(msgspec.json.encode(node)))
                present[name] = node
            elif data.draw(st.booleans()):
                state.remove_node(name)
                present.pop(name, None)
        pod["metadata"] |= {"name": f"p{number}", "uid": f"u{number}"}
        info = PodInfo(decode_pod(msgspec.json.encode(pod)))
        decision = decide(info, state, plugins, random)
        if decision.row is not None:
            assert state.name(decision.row) in present
            state.assume(info, decision.row)
        state.validate()
    for uid in [f"u{number}" for number in range(len(wanted))]:
        state.forget(uid)
    for name in list(present):
        state.remove_node(name)
    assert (state.node_count, state.pod_count, state.row_of) == (0, 0, {})
    assert not state.requested.any()
