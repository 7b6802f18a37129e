"""`cutaway simulate`: where the pods of a manifest would go, and how many more of a workload would fit.

It creates nothing. The apiserver completes and judges each pod as if it were created (a dry run), so defaults,
priorities, quotas and admission count; then the scheduler places them in a copy of what it knows.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import yaml

from lab import admin
from lab.cluster import Cluster
from lab.errors import LabError
from machinery.api import errors, kinds, objects
from machinery.client.api_client import ApiClient, WriteOptions
from machinery.component import tls
from protos.cutaway.v1 import scheduler_pb2, scheduler_pb2_grpc

ASK_SECONDS = 30.0
# What the scheduler places in one answer.
PODS_MAX = 5_000
MORE_MAX = 5_000

_WORKLOADS = {"Deployment", "ReplicaSet", "StatefulSet", "ReplicationController", "Job", "CronJob", "Pod", "DaemonSet"}
_SPREAD = {"Deployment", "ReplicaSet", "StatefulSet", "ReplicationController"}

Object = dict[str, Any]


@dataclass(slots=True)
class Placed:
    """What became of one workload's pods: on which node how many, and of those that fit nowhere how many for each
    reason."""

    subject: str
    wanted: int
    nodes: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Simulation:
    """The answer: each workload, and where how many more pods of the last one would fit (at most `more_max`)."""

    workloads: list[Placed]
    more: dict[str, int]
    more_max: int

    def lines(self) -> Iterator[str]:
        """For people to read."""
        for each in self.workloads:
            if each.wanted:
                yield f"{each.subject}: {each.nodes.total()} of {each.wanted} pods fit{_by_node(each.nodes)}"
            for reason, count in each.refused.most_common():
                yield f"  {count} can't be placed: {reason}"
        total = sum(self.more.values())
        if self.more_max:
            at_least = "at least " if total >= self.more_max else ""
            yield f"{self.workloads[-1].subject}: {at_least}{total} more would fit{_by_node(self.more)}"

    def to_dict(self) -> Object:
        """For programs to read."""
        workloads = [
            {"subject": w.subject, "wanted": w.wanted, "nodes": dict(w.nodes), "refused": dict(w.refused)}
            for w in self.workloads
        ]
        return {"workloads": workloads, "more": self.more}


def _by_node(nodes: Counter[str] | dict[str, int]) -> str:
    return f": {', '.join(f'{count} on {node}' for node, count in sorted(nodes.items()))}" if nodes else ""


def read(path: Path, namespace: str) -> list[Object]:
    """The workloads of a manifest. Raises LabError if it can't be read, or has none."""
    try:
        documents = [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each]
    except (OSError, yaml.YAMLError) as err:
        raise LabError(f"{path}: {err}") from err
    flat = [item for each in documents for item in (each.get("items") or () if each.get("kind") == "List" else [each])]
    workloads = [each for each in flat if each.get("kind") in _WORKLOADS]
    if not workloads:
        raise LabError(f"{path} has no workload", f"one of {', '.join(sorted(_WORKLOADS))}")
    for each in workloads:
        each.setdefault("metadata", {}).setdefault("namespace", namespace)
    return workloads


def pods_of(workload: Object, replicas: int | None = None) -> tuple[int, Object]:
    """(how many pods, what one of them is like). Raises LabError for what has no such number."""
    kind, spec = workload["kind"], workload.get("spec") or {}
    name = workload["metadata"].get("name", "pod")
    if kind == "DaemonSet":
        raise LabError(f"daemonset {name}: its pods go to the nodes that it names, whatever the scheduler thinks")
    if kind == "CronJob":
        return pods_of({**(spec.get("jobTemplate") or {}), "kind": "Job", "metadata": workload["metadata"]}, replicas)
    if kind == "Pod":
        count, template = 1, {"metadata": workload["metadata"], "spec": spec}
    elif kind == "Job":
        parallel, completions = spec.get("parallelism"), spec.get("completions")
        count = 1 if parallel is None else parallel
        count, template = min(count, completions or count), spec.get("template") or {}
    else:
        count, template = 1 if spec.get("replicas") is None else spec["replicas"], spec.get("template") or {}
    given = template.get("metadata") or {}
    metadata = {key: given[key] for key in ("labels", "annotations") if given.get(key)}
    metadata["namespace"] = workload["metadata"].get("namespace", "default")
    pod_spec = copy.deepcopy(template.get("spec") or {})
    pod_spec.pop("nodeName", None)
    if kind == "Job":
        pod_spec.setdefault("restartPolicy", "Never")
    if kind in _SPREAD and spec.get("selector") and not pod_spec.get("topologySpreadConstraints"):
        pod_spec["topologySpreadConstraints"] = [_spread(spec["selector"])]
    # A StatefulSet's claims come with its pods; until they exist nothing can be said of their volumes.
    claims = {each["metadata"]["name"] for each in spec.get("volumeClaimTemplates") or ()}
    for container in (*pod_spec.get("containers", ()), *pod_spec.get("initContainers", ())) if claims else ():
        container["volumeMounts"] = [m for m in container.get("volumeMounts") or () if m.get("name") not in claims]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**metadata, "name": name}, "spec": pod_spec}
    return count if replicas is None else replicas, pod


def _spread(selector: Object) -> Object:
    """What the scheduler does of itself for pods of one controller, which a simulated pod can't name."""
    if "matchLabels" not in selector and "matchExpressions" not in selector:
        selector = {"matchLabels": selector}
    hosts = {"maxSkew": 3, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    return {**hosts, "labelSelector": selector}


async def simulate(cluster: Cluster, workloads: list[Object], replicas: int | None, more_max: int) -> Simulation:
    """Place what the workloads ask for, one after the other. `replicas` overrides what they say. Raises LabError."""
    request = scheduler_pb2.SimulateRequest(more_of_last_max=more_max)
    placed: list[Placed] = []
    client = await admin.client(cluster)
    try:
        for workload in workloads:
            count, pod = pods_of(workload, replicas)
            subject = f"{workload['kind'].lower()}/{workload['metadata'].get('name', '')}"
            placed.append(Placed(subject, count))
            if len(request.pods) + count > PODS_MAX:
                raise LabError(f"{subject}: more than {PODS_MAX} pods", "--replicas asks for fewer")
            completed = await _completed(client, pod, subject)
            for number in range(count):
                completed["metadata"]["name"] = f"{len(placed) - 1}/{number}"
                request.pods.append(json.dumps(completed).encode())
        if not request.pods and more_max:
            # Nothing is wanted, only how much more there is room for: the one that is placed counts as well.
            request.pods.append(json.dumps(completed).encode())
            answer = await _ask(cluster, request)
            more = Counter(answer.more_of_last_by_node)
            more.update(p.node for p in answer.placements if p.node)
            return Simulation(placed, dict(more), more_max)
    except errors.ServiceUnavailable as err:
        raise LabError(f"the apiserver does not answer ({err})", "`cutaway status` shows what is ill") from err
    finally:
        await client.close()
    answer = await _ask(cluster, request)
    numbers = [index for index, each in enumerate(placed) for _ in range(each.wanted)]
    for index, placement in zip(numbers, answer.placements, strict=True):
        if placement.node:
            placed[index].nodes[placement.node] += 1
        else:
            placed[index].refused[placement.reason] += 1
    return Simulation(placed, dict(answer.more_of_last_by_node), more_max)


async def _completed(client: ApiClient, pod: Object, subject: str) -> Object:
    """The pod as the apiserver would store it. Raises LabError with its refusal."""
    pod = {**pod, "metadata": {**pod["metadata"], "name": "", "generateName": "simulated-"}}
    del pod["metadata"]["name"]
    try:
        out = await client.create(kinds.POD, pod, pod["metadata"]["namespace"], options=WriteOptions(dry_run=True))
    except errors.ServiceUnavailable:
        raise
    except errors.ApiError as err:
        raise LabError(f"{subject}: its pods would be refused: {err.message}") from err
    return objects.to_dict(out)


async def existing(cluster: Cluster, word: str, namespace: str, name: str) -> Object:
    """A workload that the cluster has, by a word such as "deploy". Raises LabError."""
    from lab.explain import kind_of

    kind = kind_of(word)
    if kind.kind not in _WORKLOADS:
        raise LabError(f"{word!r} has no pods of its own", f"one of {', '.join(sorted(_WORKLOADS))}")
    client = await admin.client(cluster)
    try:
        found = objects.to_dict(await client.get(kind, name, namespace))
    except errors.NotFound as err:
        raise LabError(f"{kind.kind.lower()} {namespace}/{name} does not exist") from err
    finally:
        await client.close()
    return {**found, "kind": kind.kind}


async def _ask(cluster: Cluster, request: scheduler_pb2.SimulateRequest) -> scheduler_pb2.SimulateResponse:
    mine = admin.identity(cluster)
    files = tls.TlsFiles(ca_file=str(mine.ca_file), cert_file=str(mine.cert_file), key_file=str(mine.key_file))
    async with grpc.aio.secure_channel(f"127.0.0.1:{cluster.port(10359)}", tls.channel_credentials(files)) as channel:
        stub: Any = scheduler_pb2_grpc.SchedulerStub(channel)  # type: ignore[no-untyped-call]
        try:
            answer: scheduler_pb2.SimulateResponse = await stub.Simulate(request, timeout=ASK_SECONDS)
        except grpc.aio.AioRpcError as err:
            raise LabError(f"the scheduler does not answer: {err.details()}", "`cutaway status` shows why") from err
        return answer
