"""DynamicResources: devices that a pod claims (resource.k8s.io).

No driver's devices are allocated here, and no kubelet here would hand them to a container. A pod that claims some is
told so, in upstream's words for claims that can't be had: started without its devices, it would be wrong silently.
"""

from __future__ import annotations

from typing import Any

from services.scheduler.cluster_state import ClusterState
from services.scheduler.framework import SKIP, Plugin, Rejected
from services.scheduler.pod_info import PodInfo

REASON = "cannot allocate all claims"


class DynamicResources(Plugin):
    """spec.resourceClaims."""

    def prepare(self, pod: PodInfo, state: ClusterState) -> Any:
        return Rejected(REASON) if pod.pod.spec.resourceClaims else SKIP
