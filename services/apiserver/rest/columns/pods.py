"""Pods: the STATUS column is derived from phase, conditions and every container's state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.apiserver.rest.columns.formats import NONE, age, created, or_none
from services.apiserver.rest.columns.layout import Cells, Columns, Object


def _terminated_reason(terminated: Mapping[str, Any], prefix: str = "") -> str:
    if terminated.get("reason"):
        return f"{prefix}{terminated['reason']}"
    if terminated.get("signal"):
        return f"{prefix}Signal:{terminated['signal']}"
    return f"{prefix}ExitCode:{terminated.get('exitCode', 0)}"


class _Count:
    """Restarts seen so far, and when the last one was."""

    def __init__(self) -> None:
        self.restarts = 0
        self.last = ""

    def add(self, status: Mapping[str, Any]) -> None:
        self.restarts += status.get("restartCount") or 0
        finished = ((status.get("lastState") or {}).get("terminated") or {}).get("finishedAt") or ""
        self.last = max(self.last, finished)

    def __str__(self) -> str:
        return f"{self.restarts} ({age(self.last)} ago)" if self.restarts and self.last else str(self.restarts)


class _PodView:
    """What a pod's row says."""

    def __init__(self, pod: Object) -> None:
        self.spec, self.status = pod.get("spec") or {}, pod.get("status") or {}
        self.conditions = {item.get("type"): item for item in self.status.get("conditions") or ()}
        self.sidecars = {
            c.get("name") for c in self.spec.get("initContainers") or () if c.get("restartPolicy") == "Always"
        }
        self.total = len(self.spec.get("containers") or ()) + len(self.sidecars)
        self.ready = 0
        self.count = _Count()
        self.reason = self.status.get("reason") or self.status.get("phase") or "Unknown"
        if (self.conditions.get("PodScheduled") or {}).get("reason") == "SchedulingGated":
            self.reason = "SchedulingGated"
        initializing = self._init_containers()
        if not initializing or (self.conditions.get("Initialized") or {}).get("status") == "True":
            self._containers()
        phase = self.status.get("phase")
        if pod["metadata"].get("deletionTimestamp"):
            if self.status.get("reason") == "NodeLost":
                self.reason = "Unknown"
            elif phase not in ("Succeeded", "Failed"):
                self.reason = "Terminating"

    def _init_containers(self) -> bool:
        """Go through the init containers; whether one of them is still to finish."""
        self.sidecar_count = _Count()
        for index, status in enumerate(self.status.get("initContainerStatuses") or ()):
            self.count.add(status)
            sidecar = status.get("name") in self.sidecars
            if sidecar:
                self.sidecar_count.add(status)
            state = status.get("state") or {}
            terminated, waiting = state.get("terminated"), state.get("waiting") or {}
            if terminated is not None and not terminated.get("exitCode"):
                continue
            if sidecar and status.get("started"):
                self.ready += bool(status.get("ready"))
                continue
            if terminated is not None:
                self.reason = _terminated_reason(terminated, "Init:")
            elif waiting.get("reason") and waiting["reason"] != "PodInitializing":
                self.reason = f"Init:{waiting['reason']}"
            else:
                self.reason = f"Init:{index}/{len(self.spec.get('initContainers') or ())}"
            return True
        return False

    def _containers(self) -> None:
        self.count = self.sidecar_count
        running = False
        for status in reversed(self.status.get("containerStatuses") or ()):
            self.count.add(status)
            state = status.get("state") or {}
            waiting, terminated = state.get("waiting") or {}, state.get("terminated")
            if waiting.get("reason"):
                self.reason = waiting["reason"]
            elif terminated is not None:
                self.reason = _terminated_reason(terminated)
            elif status.get("ready") and state.get("running") is not None:
                running = True
                self.ready += 1
        if self.reason == "Completed" and running:
            ready = (self.conditions.get("Ready") or {}).get("status") == "True"
            self.reason = "Running" if ready else "NotReady"

    def readiness_gates(self) -> str:
        """How many of the gates are open: 1/2."""
        gates = self.spec.get("readinessGates") or ()
        if not gates:
            return NONE
        opened = [g for g in gates if (self.conditions.get(g.get("conditionType")) or {}).get("status") == "True"]
        return f"{len(opened)}/{len(gates)}"


def _cells(pod: Object) -> Cells:
    view = _PodView(pod)
    addresses = view.status.get("podIPs") or ()
    address = addresses[0].get("ip") if addresses else view.status.get("podIP")
    return [
        pod["metadata"]["name"],
        f"{view.ready}/{view.total}",
        view.reason,
        str(view.count),
        created(pod),
        or_none(address),
        or_none(view.spec.get("nodeName")),
        or_none(view.status.get("nominatedNodeName")),
        view.readiness_gates(),
    ]


_COMPLETED = {
    "Succeeded": {
        "type": "Completed",
        "status": "True",
        "reason": "Succeeded",
        "message": "The pod has completed successfully.",
    },
    "Failed": {"type": "Completed", "status": "True", "reason": "Failed", "message": "The pod failed."},
}


def _conditions(pod: Object) -> list[dict[str, str]]:
    mark = _COMPLETED.get((pod.get("status") or {}).get("phase") or "")
    return [mark] if mark else []


TABLES = {
    "pods": Columns(
        "Name, Ready, Status, Restarts, Age, IP*, Node*, Nominated Node*, Readiness Gates*", _cells, _conditions
    ),
}
