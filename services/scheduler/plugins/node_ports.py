"""NodePorts: a host port can be taken once on each address of a node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from services.scheduler.cluster_state import ClusterState
from services.scheduler.columns import Array
from services.scheduler.framework import SKIP, ClusterEvent, Hint, Plugin, Rows, no_reason
from services.scheduler.pod_info import HostPort, PodInfo

REASON = "node(s) didn't have free ports for the requested pod ports"
_ANY = "0.0.0.0"


class NodePorts(Plugin):
    """hostPort of containers."""

    local = True
    preemptible = True

    def events(self) -> dict[ClusterEvent, Hint | None]:
        return {ClusterEvent("Pod", "Delete"): _frees_port, ClusterEvent("Node", "Add"): None}

    def prepare(self, pod: PodInfo, state: ClusterState) -> Any:
        return pod.host_ports or SKIP

    def filter(self, data: tuple[HostPort, ...], state: ClusterState, rows: Rows) -> Array:
        taken = {row for port in data for row, holders in _holders(state, port) if _clash(port.ip, holders)}
        out = no_reason(rows, state)
        if taken:
            out[:] = [row in taken for row in state.row_numbers(rows)]
        return out

    def reasons(self, data: Any, state: ClusterState) -> Sequence[str]:
        return (REASON,)

    def remedy(self, data: tuple[HostPort, ...], state: ClusterState, row: int) -> str:
        ports = sorted(
            {p.port for p in data for r, holders in _holders(state, p) if r == row and _clash(p.ip, holders)}
        )
        return f"fits on {state.name(row)} if host port {', '.join(map(str, ports))} is freed"


def _holders(state: ClusterState, port: HostPort) -> Iterable[tuple[int, dict[str, int]]]:
    return state.ports.get((port.protocol, port.port), {}).items()


def _clash(ip: str, holders: Iterable[str]) -> bool:
    return any(ip == _ANY or holder in (_ANY, ip) for holder in holders)


def _frees_port(pod: PodInfo, old: PodInfo | None, new: PodInfo | None) -> bool:
    if old is None:
        return True
    wanted = {(p.protocol, p.port) for p in pod.host_ports}
    return any((p.protocol, p.port) in wanted for p in old.host_ports)
