"""Probes and hooks of simulated containers: they go as the annotations say, and no packet is sent."""

from __future__ import annotations

from collections.abc import Sequence

from lightkube.models import core_v1

from services.kubelet.handlers import Outcome
from services.kubelet.hollow.behaviour import probe_fails
from services.kubelet.hollow.runtime import HollowRuntime
from services.kubelet.runtime import RuntimeNotFound


class HollowHandlers:
    """Stands in for `services.kubelet.handlers.Handlers`."""

    def __init__(self, runtime: HollowRuntime) -> None:
        self._runtime = runtime

    async def probe(
        self,
        pod: core_v1.Pod,
        container: core_v1.Container,
        probe: core_v1.Probe,
        container_id: str,
        ips: Sequence[str],
    ) -> Outcome:
        """By the annotation of the probe's kind."""
        try:
            age, annotations = self._runtime.age_seconds(container_id)
        except RuntimeNotFound:
            return Outcome(False, "container not found", unknown=True)
        kind = next((k for k in ("startup", "liveness", "readiness") if getattr(container, f"{k}Probe") is probe), "")
        if probe_fails({**annotations, **(pod.metadata.annotations or {})}, kind, container.name, age):
            return Outcome(False, f"simulated {kind} failure")
        return Outcome(True)

    async def hook(
        self,
        container: core_v1.Container,
        handler: core_v1.LifecycleHandler,
        container_id: str,
        ips: Sequence[str],
        timeout: float,
    ) -> Outcome:
        """Hooks succeed at once."""
        return Outcome(True)
