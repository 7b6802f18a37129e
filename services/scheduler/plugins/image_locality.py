"""ImageLocality.

Prefer nodes that have the pod's images already; an image that few nodes have counts less, against crowding.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from services.scheduler.cluster_state import ClusterState
from services.scheduler.columns import Array
from services.scheduler.framework import MAX_SCORE, SKIP, Plugin, Rows, count_of
from services.scheduler.objects import Node
from services.scheduler.pod_info import PodInfo

# Upstream's bounds: images below 23 MB in all are not worth a thought, beyond 1000 MB a container nothing is gained.
THRESHOLD_BYTES_MIN = 23 * 1024 * 1024
THRESHOLD_BYTES_MAX = 1000 * 1024 * 1024


def normalized_name(image: str) -> str:
    """The image with the tag that an untagged name means."""
    return image if image.rfind(":") > image.rfind("/") else f"{image}:latest"


class ImageLocality(Plugin):
    """status.images of nodes against the images of containers."""

    local = True
    static = True

    def __init__(self, arguments: dict[str, Any] | None = None, handle: Any = None) -> None:
        super().__init__(arguments, handle)
        self._nodes_version = -1
        # image name -> the rows that have it, and its size there.
        self._images: dict[str, dict[int, int]] = {}

    def prepare(self, pod: PodInfo, state: ClusterState) -> Any:
        self._index(state)
        wanted = [normalized_name(c.image) for c in pod.pod.spec.containers if c.image]
        found = [self._images[image] for image in wanted if image in self._images]
        if not found:
            return SKIP
        scores = np.zeros(state.capacity, dtype=np.int64)
        for holders in found:
            spread = len(holders) / max(1, state.node_count)
            for row, size in holders.items():
                scores[row] += int(size * spread)
        most = THRESHOLD_BYTES_MAX * len(wanted)
        bounded = np.clip(scores, THRESHOLD_BYTES_MIN, most)
        return MAX_SCORE * (bounded - THRESHOLD_BYTES_MIN) // (most - THRESHOLD_BYTES_MIN)

    def _index(self, state: ClusterState) -> None:
        """Node statuses change with every heartbeat of a kubelet; only then is this worked out again."""
        if self._nodes_version == state.nodes_version:
            return
        self._nodes_version = state.nodes_version
        self._images = {}
        for row, entry in enumerate(state.rows):
            if entry is not None and entry.node is not None:
                for name, size in _images_of(entry.node):
                    self._images.setdefault(name, {})[row] = size

    def score(self, data: Array, state: ClusterState, rows: Rows) -> Array:
        out = np.zeros(count_of(rows, state), dtype=np.int64)
        numbers = state.row_numbers(rows)
        known = numbers < len(data)
        out[known] = data[numbers[known]]
        return out


def _images_of(node: Node) -> list[tuple[str, int]]:
    return [
        (normalized_name(name), image.sizeBytes or 0)
        for image in node.status.images or ()
        for name in image.names or ()
    ]
