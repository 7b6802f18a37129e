"""What a cluster with several masters has besides: a database that they share, and a balancer before them.

```
 kubectl, pods ──> balancer :6443 ─┬─> apiserver   :6445 ─┬─> postgres (unix socket)
                                   └─> apiserver-2 :6447 ─┘
 components ─────> gRPC :6444, :6446: each client knows both and changes over by itself
```

Scheduler and controller-manager run as often as there are masters; the Lease decides which of them works.
"""

from __future__ import annotations

from lab import process_spec
from lab.cluster import Cluster
from lab.components import Component
from lab.errors import LabError
from lab.pki import Pki


def refuse_change(known: Cluster, wanted: int) -> None:
    """Raise LabError if a cluster's state lies where this number of masters could not read it."""
    if (known.masters == 1) != (wanted == 1) and not known.storage_url:
        kept = "SQLite, which only one apiserver can open" if known.masters == 1 else "its own PostgreSQL"
        raise LabError(
            f"this cluster keeps its state in {kept}; it has {known.masters} master{'s' * (known.masters > 1)}",
            "`cutaway backup FILE`, `cutaway down --purge`, `cutaway up --masters N`, `cutaway restore FILE`",
        )


def foundation(cluster: Cluster, pki: Pki) -> list[Component]:
    """What has to be there before the first apiserver; empty for one master. Raises LabError if a program is
    missing."""
    if cluster.masters == 1:
        return []
    from lab import balancer, postgres  # a driver and more, of which one master needs nothing

    everywhere = "127.0.0.1" if cluster.hollow else "0.0.0.0"
    backends = {
        cluster.replica("apiserver", index): f"127.0.0.1:{cluster.rest_port(index)}" for index in range(cluster.masters)
    }
    parts = [balancer.component(cluster, f"{everywhere}:{cluster.port(6443)}", backends, pki.ca_file)]
    if not cluster.storage_url:
        parts.insert(0, postgres.component(cluster))
    return parts


def forget_removed(cluster: Cluster) -> bool:
    """Take away the specs of masters that a smaller number leaves over; whether there were any."""
    replicated = ("apiserver", "scheduler", "controller-manager")
    wanted = {cluster.replica(component, index) for component in replicated for index in range(cluster.masters)}
    if cluster.masters > 1:
        wanted |= {"postgres", "balancer"}
    removed = [
        name
        for name, spec in process_spec.read_specs(cluster.components).items()
        if spec.component in (*replicated, "postgres", "balancer") and name not in wanted
    ]
    for name in removed:
        (cluster.components / f"{name}{process_spec.SPEC_SUFFIX}").unlink()
    return bool(removed)
