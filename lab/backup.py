"""Back-up, restore and check of a cluster's state. The work is the store's own (`python -m storage.backup`); here it is
asked for, and the apiservers are stopped while their database is exchanged."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lab import cluster as clusters
from lab import components, process_spec, secret_keys, supervisor_client
from lab import up as upping
from lab.cluster import PROJECT_ROOT, Cluster
from lab.errors import LabError
from lab.pki import Pki

COPY_SECONDS = 3600


def backup(cluster: Cluster, file: Path, at_revision: int = 0) -> str:
    """Write the state of a live cluster, now or as of a retained revision, to a file; its revision, in words. Raises
    LabError."""
    return _run("backup", components.storage_url(cluster), str(file.absolute()), str(at_revision))


def put(cluster: Cluster, file: Path) -> str:
    """Put a back-up where the cluster keeps its state, which must be empty; its revision, in words. Raises LabError."""
    return _run("restore", str(file), components.storage_url(cluster))


def fork(cluster: Cluster, revision: int, home: Path, say: Callable[[str], None]) -> Cluster:
    """Another cluster, as large as this one and with one master, that begins with this one's state as of a retained
    revision. Raises LabError; then there is nothing in `home`."""
    if clusters.load(home) is not None or (home.exists() and any(home.iterdir())):
        raise LabError(f"{home} is not empty", "name a folder that does not exist")
    home.mkdir(parents=True, exist_ok=True)
    secret_keys.inherit(cluster, home)
    try:
        copy = home / "fork.backup"
        backup(cluster, copy, revision)
        _run("restore", str(copy), f"sqlite:///{home / 'state.db'}", _run("revision", components.storage_url(cluster)))
        copy.unlink()
        say(f"state as of revision {revision} taken")
    except LabError:
        shutil.rmtree(home)
        raise
    forked, _ = upping.up(home, node_count=len(cluster.nodes), hollow_nodes=cluster.hollow, say=say)
    return forked


def verify(cluster: Cluster) -> str:
    """What was read and that it is sound. Raises LabError with what is not."""
    return _run("verify", components.storage_url(cluster))


def restore(
    cluster: Cluster, file: Path, say: Callable[[str], None], *, ahead: int | None = None, keys: Path | None = None
) -> tuple[str, str]:
    """Exchange the cluster's state for that of a file; its revision, and where the state before is kept. `keys` are
    those of the cluster that wrote the file.

    The revision goes on beyond the file's and the present state's, by `ahead` (None: ten millions) and more the
    older the file is. Raises LabError; then the cluster goes on with the state that it had.
    """
    # Before anything is stopped: a file that can't be read costs nobody an apiserver.
    _run("verify", f"sqlite:///{file.absolute()}")
    secret_keys.admit(cluster, file, keys)
    upping.write(cluster, components.control_plane(cluster, Pki(cluster.pki)))
    running = supervisor_client.is_running(cluster.home)
    apiservers = [
        name for name, spec in process_spec.read_specs(cluster.components).items() if spec.component == "apiserver"
    ]
    if running:
        for name in apiservers:
            supervisor_client.call(cluster.home, "stop", name)
        say("apiservers stopped")
    suffix = time.strftime("%Y%m%d-%H%M%S")
    try:
        restored, kept = _exchange(cluster, file, suffix, ahead)
        say("state exchanged")
    finally:
        if running:
            for name in apiservers:
                supervisor_client.call(cluster.home, "start", name)
    if running:
        asyncio.run(upping.wait_healthy(cluster, say))
    return restored, kept


def _exchange(cluster: Cluster, file: Path, suffix: str, ahead: int | None) -> tuple[str, str]:
    url = components.storage_url(cluster)
    # Asked now, when nobody writes any more and the state is still in its place.
    arguments = [str(file.absolute()), url, _run("revision", url), *([str(ahead)] if ahead is not None else [])]
    if cluster.storage_url:
        raise LabError("this cluster's database is not its own", f"python -m storage.backup restore {file} NEW_URL")
    if cluster.masters > 1:
        return _exchange_database(cluster, arguments, suffix)
    state = cluster.home / "state.db"
    kept = cluster.home / f"state-{suffix}.db"
    # The log beside the file belongs to it.
    logs = [(state.with_name(f"state.db{end}"), kept.with_name(f"{kept.name}{end}")) for end in ("", "-wal", "-shm")]
    moved = [(old, new) for old, new in logs if old.exists()]
    for old, new in moved:
        old.replace(new)
    try:
        return _run("restore", *arguments), str(kept)
    except LabError:
        for old, new in moved:
            new.replace(old)
        raise


def _exchange_database(cluster: Cluster, arguments: list[str], suffix: str) -> tuple[str, str]:
    from lab import postgres

    kept = f"{postgres.DATABASE}-{suffix}"
    postgres.rename_database(cluster, postgres.DATABASE, kept)
    try:
        postgres.wait_ready(cluster)
        restored = _run("restore", *arguments)
    except LabError:
        postgres.rename_database(cluster, kept, postgres.DATABASE, replace=True)
        raise
    return restored, f"the database {kept}"


def _run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "storage.backup", *arguments],
        capture_output=True, text=True, timeout=COPY_SECONDS, cwd=PROJECT_ROOT,
    )  # fmt: skip
    if done.returncode != 0:
        raise LabError("; ".join(done.stderr.strip().splitlines()[-5:]) or f"storage.backup {arguments[0]} failed")
    return done.stdout.strip()
