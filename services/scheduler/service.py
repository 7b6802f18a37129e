"""The Scheduler gRPC service: Explain, Simulate, Queue."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from machinery.api import errors
from protos.cutaway.v1 import scheduler_pb2, scheduler_pb2_grpc
from services.scheduler.explain import explain, simulate
from services.scheduler.framework import PluginError
from services.scheduler.objects import decode_pod
from services.scheduler.pod_info import PodInfo
from services.scheduler.queue import BACKOFF, POPPED
from services.scheduler.scheduler import Scheduler

NAME = "cutaway.v1.Scheduler"
SIMULATED_PODS_MAX = 10_000


class SchedulerService(scheduler_pb2_grpc.SchedulerServicer):
    """See scheduler.proto. Every answer is made without waiting in between, so that it is about one state."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    async def Explain(self, request: Any, context: Any) -> scheduler_pb2.ExplainResponse:
        """Judge one pod against every node."""
        pod = self._scheduler.pods.lister.get(request.namespace, request.pod)
        if pod is None:
            raise errors.not_found("", "pods", request.pod)
        info = PodInfo(pod)
        profile = self._scheduler.profiles.get(pod.spec.schedulerName or "default-scheduler")
        if profile is None:
            raise errors.BadRequest(
                f"pod {info.key} is for the scheduler {pod.spec.schedulerName!r}, which this one is not"
            )
        state = self._scheduler.state
        bound = pod.spec.nodeName or ""
        # A pod that runs somewhere is judged as if it were to be placed now: without its own weight and its own name
        # for a node.
        loaded, node = state.pod(info.uid), state.node_of(info.uid)
        assumed = state.is_assumed(info.uid)
        if loaded is not None:
            state.remove_pod(info.uid)
        try:
            free = PodInfo(msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, nodeName=None)))
            response = explain(free, state, profile, self._scheduler.random)
        except PluginError as err:
            raise errors.InternalError(str(err)) from err
        finally:
            if loaded is not None and node is not None:
                if assumed:
                    state.assume(loaded, state.row_of[node])
                else:
                    state.set_pod(loaded, node)
        response.bound_node = bound or node or ""
        return response

    async def Simulate(self, request: Any, context: Any) -> scheduler_pb2.SimulateResponse:
        """Place pods as if they were created now."""
        if len(request.pods) + request.more_of_last_max > SIMULATED_PODS_MAX:
            raise errors.BadRequest(f"at most {SIMULATED_PODS_MAX} pods can be simulated at once")
        pods = []
        for number, raw in enumerate(request.pods):
            try:
                pod = decode_pod(raw)
            except msgspec.DecodeError as err:
                raise errors.BadRequest(f"pods[{number}]: {err}") from err
            pod.metadata.uid = str(uuid.uuid4())
            pod.metadata.namespace = pod.metadata.namespace or "default"
            pods.append(PodInfo(pod))
        scheduler = self._scheduler
        return simulate(pods, request.more_of_last_max, scheduler.state, scheduler.profiles, scheduler.random)

    async def Queue(self, request: Any, context: Any) -> scheduler_pb2.QueueResponse:
        """The pods that wait."""
        now = self._scheduler.clock()
        response = scheduler_pb2.QueueResponse()
        for waiting in sorted(self._scheduler.queue.waiting(), key=lambda w: w.added_at):
            response.pods.add(
                namespace=waiting.pod.namespace, pod=waiting.pod.name,
                queue="active" if waiting.queue == POPPED else waiting.queue, attempts=waiting.attempts,
                waited_seconds=now - waiting.added_at,
                backoff_seconds=max(0.0, waiting.ready_at - now) if waiting.queue == BACKOFF else 0.0,
                waits_for_plugins=waiting.plugins, message=waiting.message,
            )  # fmt: skip
        return response
