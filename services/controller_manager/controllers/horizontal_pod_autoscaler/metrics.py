"""Where use comes from: the metrics.k8s.io API if it is served, else the kubelets themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import grpc

from machinery.api import errors, objects
from machinery.api.kinds import Kind
from machinery.api.quantity import parse_quantity
from machinery.client.api_client import ApiClient
from machinery.component import logs, tls
from protos.cutaway.v1 import kubelet_pb2, kubelet_pb2_grpc
from services.controller_manager.controllers.horizontal_pod_autoscaler.replicas import Usage
from services.controller_manager.views.pod import Node, Pod

POD_METRICS = Kind("metrics.k8s.io", "v1beta1", "PodMetrics", "pods")
_ADDRESS = "cutaway.dev/kubelet-grpc"
_TIMEOUT_SECONDS = 5.0

log = logs.get("pod_metrics")

# Pod name to container name to (cpu in thousandths, memory in thousandths of a byte, when).
Sample = dict[str, dict[str, tuple[int, int, datetime]]]


def usage(sample: Sample, resource: str, container: str) -> dict[str, Usage]:
    """Each pod's use of a resource, of one container or of all."""
    out: dict[str, Usage] = {}
    for pod, containers in sample.items():
        chosen = [values for name, values in containers.items() if container in ("", name)]
        if chosen:
            total = sum(cpu if resource == "cpu" else memory for cpu, memory, _ in chosen)
            out[pod] = Usage(total, min(at for _, _, at in chosen))
    return out


class PodMetrics:
    """Reads samples. Connections to kubelets are kept for as long as their nodes are asked for."""

    def __init__(self, client: ApiClient, files: tls.TlsFiles) -> None:
        self._client = client
        self._files = files
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._served: bool | None = None

    async def read(self, namespace: str, pods: Sequence[Pod], nodes: Iterable[Node]) -> Sample:
        """What these pods use now; those of which nobody knows are absent."""
        if self._served is not False:
            try:
                return _parse((await self._client.list(POD_METRICS, namespace, decode=objects.decode_dict)).items, pods)
            except (errors.NotFound, errors.MethodNotAllowed):
                self._served = False
            except errors.ApiError as err:
                log.info("metrics API does not answer, asking kubelets", error=err.message)
        wanted = {pod.spec.nodeName for pod in pods}
        addresses = {
            node.metadata.name: node.metadata.annotations[_ADDRESS]
            for node in nodes
            if node.metadata.name in wanted and _ADDRESS in node.metadata.annotations
        }
        answers = await asyncio.gather(*(self._ask(address) for address in addresses.values()))
        names = {(pod.metadata.namespace, pod.metadata.name) for pod in pods}
        now = datetime.now(UTC)
        sample: Sample = {}
        for answer in answers:
            for pod in answer.pods if answer is not None else ():
                if (pod.namespace, pod.name) in names:
                    sample[pod.name] = {
                        each.name: (
                            each.usage.cpu_usage_nanocores // 1_000_000,
                            each.usage.memory_working_set_bytes * 1000,
                            now,
                        )
                        for each in pod.containers
                    }
        return sample

    async def _ask(self, address: str) -> kubelet_pb2.StatsResponse | None:
        channel = self._channels.get(address)
        if channel is None:
            credentials = tls.channel_credentials(self._files)
            channel = self._channels[address] = grpc.aio.secure_channel(address, credentials)
        try:
            stub: Any = kubelet_pb2_grpc.KubeletStub(channel)  # type: ignore[no-untyped-call]
            response: kubelet_pb2.StatsResponse = await stub.Stats(kubelet_pb2.StatsRequest(), timeout=_TIMEOUT_SECONDS)
        except grpc.RpcError as err:
            log.info("kubelet does not tell its stats", address=address, error=str(err.details()))
            return None
        return response


def _parse(items: Iterable[dict[str, Any]], pods: Sequence[Pod]) -> Sample:
    names = {pod.metadata.name for pod in pods}
    sample: Sample = {}
    for item in items:
        name = item["metadata"]["name"]
        if name not in names:
            continue
        at = objects.parse_time(item["timestamp"])
        sample[name] = {
            each["name"]: (
                parse_quantity(each["usage"].get("cpu", "0")).milli_value,
                parse_quantity(each["usage"].get("memory", "0")).milli_value,
                at,
            )
            for each in item.get("containers") or ()
        }
    return sample
