"""ComponentStatuses: whether the other parts of the control plane are at work, as of the moment of the question.

Upstream asks their health endpoints at fixed ports. Ours are wherever their configuration has them, on any machine, so
their leader leases tell: who leads renews its lease. The store has answered if anything is answered at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from machinery.api.objects import parse_time

NAMESPACE, LEASES = "kube-system", "leases.coordination.k8s.io"
LED = {"controller-manager": "kube-controller-manager", "scheduler": "kube-scheduler"}
STORE = "etcd-0"
"""By the name that clients know: no client looks for another."""

Get = Callable[[str, str, str], Mapping[str, Any] | None]


def names() -> Iterable[str]:
    """The components, in order."""
    return sorted([*LED, STORE])


def status_of(name: str, get: Get, now: datetime) -> bytes:
    """One component's status. `get` finds stored objects by (storage, namespace, name)."""
    error = "" if name == STORE else trouble(get(LEASES, NAMESPACE, LED[name]), LED[name], now)
    condition = {"type": "Healthy", "status": "False" if error else "True"}
    condition |= {"error": error} if error else {"message": "ok"}
    return orjson.dumps(
        {"apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": name}, "conditions": [condition]}
    )


def trouble(lease: Mapping[str, Any] | None, name: str, now: datetime) -> str:
    """What a leader's lease says against its health; empty if nothing."""
    where = f"Lease {NAMESPACE}/{name}"
    spec = (lease or {}).get("spec") or {}
    if not spec.get("holderIdentity") or not spec.get("renewTime"):
        return f"nobody leads: {where} has no holder"
    renewed = parse_time(spec["renewTime"])
    age = (now.astimezone(UTC) - renewed).total_seconds()
    if age > spec.get("leaseDurationSeconds", 15):
        return f"nobody leads: {where} was renewed {age:.0f} s ago, by {spec['holderIdentity']}"
    return ""
