"""What pods of one template, node or second have in common is kept once.

Each pod arrives as JSON of its own, and so its owner, labels, containers and conditions would be copies of those of
thousands of others: more than half of what a pod takes. Views are never changed in place, so they may share.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, TypeVar

import msgspec
from msgspec.structs import force_setattr

from services.controller_manager.views.meta import nothing
from services.controller_manager.views.pod import Pod, PodIP

T = TypeVar("T", bound=Hashable)

KNOWN_MAX = 16_384
"""So many different parts are remembered; then all are forgotten, and what comes next is shared anew."""

_encode = msgspec.msgpack.Encoder().encode


class Sharing:
    """Makes equal parts of pods the same objects."""

    def __init__(self, known_max: int = KNOWN_MAX) -> None:
        self._known: dict[Any, Any] = {}
        self._known_max = known_max

    def __call__(self, pod: Pod) -> Pod:
        """The same pod, lighter. It must be fresh from the decoder: nobody else may have seen it."""
        if len(self._known) > self._known_max:
            self._known.clear()
        one, alike, meta, spec, status = self._one, self._alike, pod.metadata, pod.spec, pod.status
        force_setattr(meta, "namespace", one(meta.namespace))
        force_setattr(meta, "generateName", one(meta.generateName))
        force_setattr(meta, "labels", alike(meta.labels) if meta.labels else nothing())
        force_setattr(meta, "ownerReferences", one(meta.ownerReferences))
        force_setattr(meta, "creationTimestamp", one(meta.creationTimestamp))
        force_setattr(spec, "nodeName", one(spec.nodeName))
        force_setattr(spec, "restartPolicy", one(spec.restartPolicy))
        force_setattr(spec, "containers", alike(spec.containers))
        force_setattr(spec, "initContainers", alike(spec.initContainers) if spec.initContainers else ())
        force_setattr(spec, "tolerations", one(spec.tolerations))
        # Of other volumes nobody reads more than that they are there, and their names are often unique.
        claims = tuple(each for each in spec.volumes if each.persistentVolumeClaim or each.ephemeral is not None)
        force_setattr(spec, "volumes", claims)
        force_setattr(status, "phase", one(status.phase))
        force_setattr(status, "startTime", one(status.startTime))
        force_setattr(status, "conditions", one(tuple(map(one, status.conditions))))
        force_setattr(status, "containerStatuses", one(status.containerStatuses))
        if len(status.podIPs) == 1 and status.podIPs[0].ip == status.podIP:
            force_setattr(status, "podIPs", (PodIP(status.podIP),))
        return pod

    def _one(self, value: T) -> T:
        return self._known.setdefault(value, value)  # type: ignore[no-any-return]

    def _alike(self, value: Any) -> Any:
        """As `_one`, for what holds maps."""
        return self._known.setdefault(_encode(value), value)
