"""Use of cpu, memory, disk and network, read from cgroups and the runtime when asked, never on a timer."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from cri_api.v1 import api_pb2 as cri

from protos.cutaway.v1 import kubelet_pb2
from services.kubelet import node_info
from services.kubelet.container_config import LABEL_CONTAINER, LABEL_NAME, LABEL_NAMESPACE, LABEL_UID
from services.kubelet.node import Node
from services.kubelet.runtime import RuntimeFailure

_NANO = 1_000_000_000
_RATE_SECONDS_MIN = 1.0  # a rate over less than this says little


@dataclass(slots=True)
class _Rates:
    """Turns counters into rates: the last two readings of each."""

    seen: dict[str, tuple[float, int, int]] = field(default_factory=dict)

    def rate(self, key: str, at: float, counter: int) -> int:
        """Nanocores between this reading and the one before."""
        before = self.seen.get(key)
        if before is None:
            self.seen[key] = (at, counter, 0)
            return 0
        then, old, rate = before
        if at - then < _RATE_SECONDS_MIN:
            return rate
        rate = max(0, int((counter - old) / (at - then)))
        self.seen[key] = (at, counter, rate)
        return rate


class StatsCollector:
    """Collects usage."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._rates = _Rates()

    async def response(self) -> kubelet_pb2.StatsResponse:
        """Usage of the node, its pods and their containers."""
        out = kubelet_pb2.StatsResponse(node=self._node.name, usage=self.node_usage())
        try:
            stats = await self._node.runtime.container_stats()
        except RuntimeFailure:
            return out
        pods: dict[str, kubelet_pb2.PodStats] = {}
        for item in stats:
            labels = item.attributes.labels
            uid = labels.get(LABEL_UID, "")
            if not uid or not item.HasField("cpu"):
                continue
            pod = pods.get(uid)
            if pod is None:
                pod = pods[uid] = out.pods.add(
                    namespace=labels.get(LABEL_NAMESPACE, ""), name=labels.get(LABEL_NAME, ""), uid=uid
                )
            usage = kubelet_pb2.Usage(
                cpu_usage_core_nanoseconds=item.cpu.usage_core_nano_seconds.value,
                cpu_usage_nanocores=self.rate_of(item),
                memory_working_set_bytes=item.memory.working_set_bytes.value,
                memory_usage_bytes=item.memory.usage_bytes.value,
                memory_rss_bytes=item.memory.rss_bytes.value,
                file_system_used_bytes=item.writable_layer.used_bytes.value,
            )
            pod.containers.add(name=labels.get(LABEL_CONTAINER, ""), usage=usage)
            _sum(pod.usage, usage)
        alive = {item.attributes.id for item in stats} | {"node"}
        for gone in [key for key in self._rates.seen if key not in alive]:
            del self._rates.seen[gone]
        return out

    def rate_of(self, item: cri.ContainerStats) -> int:
        """Nanocores of a container: the runtime's figure, or since the reading before."""
        told = item.cpu.usage_nano_cores.value
        used = item.cpu.usage_core_nano_seconds.value
        return told or self._rates.rate(item.attributes.id, time.monotonic(), used)

    def node_usage(self) -> kubelet_pb2.Usage:
        """Use of the whole machine."""
        now = time.monotonic()
        with open("/proc/stat", encoding="ascii") as file:
            fields = [int(word) for word in file.readline().split()[1:9]]
        # user nice system idle iowait irq softirq steal, in hundredths of a second
        busy = (sum(fields) - fields[3] - fields[4]) * (_NANO // 100)
        used = node_info.memory_bytes() - node_info.memory_available_bytes()
        total, available, _, _ = node_info.disk(str(self._node.root))
        received = sent = 0
        with open("/proc/net/dev", encoding="ascii") as file:
            for line in list(file)[2:]:
                name, _, rest = line.partition(":")
                if name.strip() != "lo":
                    numbers = rest.split()
                    received += int(numbers[0])
                    sent += int(numbers[8])
        return kubelet_pb2.Usage(
            cpu_usage_core_nanoseconds=busy,
            cpu_usage_nanocores=self._rates.rate("node", now, busy),
            memory_working_set_bytes=used,
            memory_usage_bytes=used,
            memory_rss_bytes=used,
            network_received_bytes=received,
            network_sent_bytes=sent,
            file_system_used_bytes=total - available,
        )


def _sum(total: kubelet_pb2.Usage, more: kubelet_pb2.Usage) -> None:
    for descriptor in kubelet_pb2.Usage.DESCRIPTOR.fields:
        setattr(total, descriptor.name, getattr(total, descriptor.name) + getattr(more, descriptor.name))
