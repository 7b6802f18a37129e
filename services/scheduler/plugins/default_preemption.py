"""DefaultPreemption: when nothing fits, evict less important pods.

The plan is `services/scheduler/preempt.py`; this plugs it in.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from services.scheduler.cluster_state import ClusterState
from services.scheduler.diagnosis import Diagnosis
from services.scheduler.framework import Plugin
from services.scheduler.pod_info import PodInfo
from services.scheduler.preempt import Candidate, plan
from services.scheduler.profile import Profile


class DefaultPreemption(Plugin):
    """PostFilter."""

    def post_filter(
        self, pod: PodInfo, state: ClusterState, profile: Profile, diagnosis: Diagnosis, random: np.random.Generator
    ) -> Candidate | None:
        """Whom to evict where, or None with `diagnosis.preemption` saying why not."""
        budgets: Any = getattr(self.handle, "budgets", None)
        return plan(pod, state, profile, diagnosis, budgets() if budgets else (), random)
