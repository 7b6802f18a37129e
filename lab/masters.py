"""What a cluster with several masters has besides: a database that they share, and a balancer before them.

```
 kubectl, pods ──> balancer :6443 ─┬─> apiserver   :6445 ─┬─> postgres (unix socket)
                                   └─> apiserver-2 :6447 ─┘
 components ─────> gRPC :6444, :6446: each client knows both and changes over by itself
```

Scheduler and controller-manager run as often as there are masters; the Lease decides which of them works.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from lab import process_spec, supervisor_client
from lab.cluster import Cluster
from lab.components import Component
from lab.errors import LabError
from lab.pki import Pki
from lab.progress import Say


def change(known: Cluster, wanted: int, say: Say) -> Cluster:
    """The cluster with another number of masters, and its state where that number can read it. Raises LabError; then it
    is as it was.

    One master keeps its state in SQLite, which only one process can open; several share a PostgreSQL.
    """
    changed = replace(known, masters=wanted)
    if (known.masters == 1) == (wanted == 1) or known.storage_url:
        return changed
    from lab import backup, postgres
    from lab import up as upping

    running = supervisor_client.is_running(known.home)
    apiservers = [
        name for name, spec in process_spec.read_specs(known.components).items() if spec.component == "apiserver"
    ]
    copy = known.home / "masters.backup"
    if running:
        # What is written from here on would be written to what is left behind.
        for name in apiservers:
            supervisor_client.call(known.home, "stop", name)
        say("apiservers stopped")
    try:
        copy.unlink(missing_ok=True)
        if known.masters > 1 and not running:
            upping.arrange_foundation(known, Pki(known.pki), say)
        backup.backup(known, copy, say)
        if wanted == 1:
            _set_aside(known.home / "state.db")
        else:
            upping.arrange_foundation(changed, Pki(known.pki), say)
            postgres.make_room(changed)
        # Every client of the former place is told, or sees nothing but what goes on: see storage/backup.py.
        backup.put(changed, copy, say)
        say(f"state moved to {'SQLite' if wanted == 1 else 'PostgreSQL'}; the former one is kept")
    except LabError:
        if running:
            for name in apiservers:
                supervisor_client.call(known.home, "start", name)
        raise
    finally:
        copy.unlink(missing_ok=True)
    return changed


def _set_aside(state: Path) -> None:
    """Keep what an earlier time with one master has left."""
    suffix = time.strftime("%Y%m%d-%H%M%S")
    for end in ("", "-wal", "-shm"):
        file = state.with_name(f"{state.name}{end}")
        if file.exists():
            file.replace(state.with_name(f"state-{suffix}.db{end}"))


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
