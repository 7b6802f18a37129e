"""Explain and Simulate: the scheduler's own judgement put into words and what-ifs.

Pure, apart from the message types.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from protos.cutaway.v1 import scheduler_pb2
from services.scheduler.cluster_state import ClusterState
from services.scheduler.diagnosis import diagnose, reasons_of
from services.scheduler.framework import PluginError
from services.scheduler.pod_info import PodInfo
from services.scheduler.profile import Profile
from services.scheduler.schedule import decide

REMEDIES_MAX = 10


def explain(
    pod: PodInfo, state: ClusterState, profile: Profile, random: np.random.Generator
) -> scheduler_pb2.ExplainResponse:
    """Every node, every plugin's verdict and score. Raises PluginError."""
    response = scheduler_pb2.ExplainResponse(bound_node=pod.pod.spec.nodeName or "")
    judgement = profile.judge(pod, state)
    if judgement.rejected is not None:
        plugin, reason = judgement.rejected
        response.summary = diagnose(pod, state, profile).message
        response.remedies.append(f"{plugin.name}: {reason}")
        return response
    feasible = judgement.feasible
    verdicts = profile.verdicts(pod, state, every_plugin=True)
    scores = profile.score_details(pod, state, feasible)
    rows = [row for row in range(state.size) if state.valid[row]]
    rows.sort(key=lambda row: (not feasible[row], state.name(row)))
    remedies: list[tuple[int, str]] = []
    for row in rows:
        node = response.nodes.add(node=state.name(row), fits=bool(feasible[row]))
        words = []
        for plugin, data, bits in verdicts:
            verdict = node.plugins.add(plugin=plugin.name, fits=not bits[row])
            if bits[row]:
                verdict.reason = ", ".join(reasons_of(plugin, data, int(bits[row]), state))
                verdict.remedy = plugin.remedy(data, state, row)
                words.append(verdict.remedy or f"{plugin.name} agrees: {verdict.reason}")
        if feasible[row]:
            for plugin, weight, values in scores:
                score = int(values[row])
                node.total_score += score * weight
                entry = next((p for p in node.plugins if p.plugin == plugin.name), None) or node.plugins.add(
                    plugin=plugin.name, fits=True
                )
                entry.score, entry.weight = score, weight
        elif words:
            remedies.append((len(words), _joined(words)))
    fitting = [node for node in response.nodes if node.fits]
    if fitting:
        response.chosen_node = max(fitting, key=lambda node: node.total_score).node
        response.summary = f"{len(fitting)}/{state.node_count} nodes are available."
    else:
        diagnosis = diagnose(pod, state, profile)
        for plugin in profile.with_point("post_filter"):
            candidate = plugin.post_filter(pod, state, profile, diagnosis, random)  # type: ignore[attr-defined]
            if candidate is not None:
                names = ", ".join(victim.key for victim in candidate.victims)
                response.remedies.append(f"fits on {state.name(candidate.row)} after the eviction of {names}")
        response.summary = diagnosis.message
        # What is nearest to fitting comes first: the nodes with the fewest refusals.
        response.remedies.extend(text for _, text in sorted(remedies)[:REMEDIES_MAX])
    return response


def _joined(words: list[str]) -> str:
    """Several remedies of one node as one sentence: "fits on n3 if … and …"."""
    first, *rest = words
    return " and ".join([first, *(word.partition(" if ")[2] or word for word in rest)])


def simulate(
    pods: list[PodInfo], more_max: int, state: ClusterState, profiles: dict[str, Profile], random: np.random.Generator
) -> scheduler_pb2.SimulateResponse:
    """Place the pods one after the other, as if they were created now, then undo it all.

    Nothing else may run meanwhile.
    """
    response = scheduler_pb2.SimulateResponse()
    assumed: list[str] = []
    by_node: Counter[str] = Counter()

    def place(pod: PodInfo) -> tuple[str, str]:
        profile = profiles.get(pod.pod.spec.schedulerName or "default-scheduler")
        if profile is None:
            return "", f"no profile serves spec.schedulerName {pod.pod.spec.schedulerName!r}"
        try:
            decision = decide(pod, state, profile, random)
        except PluginError as err:
            return "", str(err)
        if decision.row is None:
            assert decision.diagnosis is not None
            return "", decision.diagnosis.message
        state.assume(pod, decision.row)
        assumed.append(pod.uid)
        return state.name(decision.row), ""

    try:
        for pod in pods:
            node, reason = place(pod)
            response.placements.add(pod=pod.key, node=node, reason=reason)
        for number in range(more_max if pods else 0):
            node, _ = place(_copy(pods[-1], number))
            if not node:
                break
            by_node[node] += 1
    finally:
        for uid in assumed:
            state.forget(uid)
    response.more_of_last = sum(by_node.values())
    for node, count in sorted(by_node.items()):
        response.more_of_last_by_node[node] = count
    return response


def _copy(pod: PodInfo, number: int) -> PodInfo:
    """The same pod under another uid."""
    import msgspec

    metadata = msgspec.structs.replace(pod.pod.metadata, uid=f"{pod.uid}+{number}", name=f"{pod.name}-{number}")
    return PodInfo(msgspec.structs.replace(pod.pod, metadata=metadata))
