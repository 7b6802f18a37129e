"""Back-up, restore and check of a cluster's state. The work is the store's own (`python -m storage.backup`); here it is
asked for, and the apiservers are stopped while their database is exchanged."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from lab import cluster as clusters
from lab import components, process_spec, secret_keys, supervisor_client
from lab import up as upping
from lab.cluster import PROJECT_ROOT, Cluster
from lab.errors import LabError
from lab.pki import Pki
from lab.progress import Say, Waiting

# How the store's own command begins a line about what it is doing.
PROGRESS = "... "
# How long it may take: it reads or writes the whole state.
COPY_SECONDS = 3600.0


def backup(cluster: Cluster, file: Path, say: Say, at_revision: int = 0) -> str:
    """Write the state of a live cluster, now or as of a retained revision, to a file; its revision, in words. Raises
    LabError."""
    return _run("backup", components.storage_url(cluster), str(file.absolute()), str(at_revision), say=say)


def put(cluster: Cluster, file: Path, say: Say) -> str:
    """Put a back-up where the cluster keeps its state, which must be empty; its revision, in words. Raises LabError."""
    return _run("restore", str(file), components.storage_url(cluster), say=say)


def fork(cluster: Cluster, revision: int, home: Path, say: Say) -> Cluster:
    """Another cluster, as large as this one and with one master, that begins with this one's state as of a retained
    revision. Raises LabError; then there is nothing in `home`."""
    if clusters.load(home) is not None or (home.exists() and any(home.iterdir())):
        raise LabError(f"{home} is not empty", "name a folder that does not exist")
    home.mkdir(parents=True, exist_ok=True)
    secret_keys.inherit(cluster, home)
    try:
        copy = home / "fork.backup"
        backup(cluster, copy, say, revision)
        newest = _run("revision", components.storage_url(cluster))
        _run("restore", str(copy), f"sqlite:///{home / 'state.db'}", newest, say=say)
        copy.unlink()
        say(f"state as of revision {revision} taken")
    except LabError:
        shutil.rmtree(home)
        raise
    forked, _ = upping.up(home, node_count=len(cluster.nodes), hollow_nodes=cluster.hollow, say=say)
    return forked


def verify(cluster: Cluster, say: Say) -> str:
    """What was read and that it is sound. Raises LabError with what is not."""
    try:
        return _run("verify", components.storage_url(cluster), say=say)
    except LabError as error:
        if "damaged" not in str(error):
            raise
        raise LabError(str(error), "`cutaway restore FILE` puts a back-up in its place") from error


def restore(
    cluster: Cluster, file: Path, say: Say, *, ahead: int | None = None, keys: Path | None = None
) -> tuple[str, str]:
    """Exchange the cluster's state for that of a file; its revision, and where the state before is kept. `keys` are
    those of the cluster that wrote the file.

    The revision goes on beyond the file's and the present state's, by `ahead` (None: ten millions) and more the
    older the file is. Raises LabError; then the cluster goes on with the state that it had.
    """
    # Before anything is stopped: a file that can't be read costs nobody an apiserver.
    _run("verify", f"sqlite:///{file.absolute()}", say=say)
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
        restored, kept = _exchange(cluster, file, suffix, ahead, say)
        say("state exchanged")
    finally:
        if running:
            for name in apiservers:
                supervisor_client.call(cluster.home, "start", name)
    if running:
        asyncio.run(upping.wait_healthy(cluster, say))
    return restored, kept


def _exchange(cluster: Cluster, file: Path, suffix: str, ahead: int | None, say: Say) -> tuple[str, str]:
    url = components.storage_url(cluster)
    # Asked now, when nobody writes any more and the state is still in its place.
    arguments = [str(file.absolute()), url, _run("revision", url), *([str(ahead)] if ahead is not None else [])]
    if cluster.storage_url:
        raise LabError("this cluster's database is not its own", f"python -m storage.backup restore {file} NEW_URL")
    if cluster.masters > 1:
        return _exchange_database(cluster, arguments, suffix, say)
    state = cluster.home / "state.db"
    kept = cluster.home / f"state-{suffix}.db"
    # The log beside the file belongs to it.
    logs = [(state.with_name(f"state.db{end}"), kept.with_name(f"{kept.name}{end}")) for end in ("", "-wal", "-shm")]
    moved = [(old, new) for old, new in logs if old.exists()]
    for old, new in moved:
        old.replace(new)
    try:
        return _run("restore", *arguments, say=say), str(kept)
    except LabError:
        for old, new in moved:
            new.replace(old)
        raise


def _exchange_database(cluster: Cluster, arguments: list[str], suffix: str, say: Say) -> tuple[str, str]:
    from lab import postgres

    kept = f"{postgres.DATABASE}-{suffix}"
    postgres.rename_database(cluster, postgres.DATABASE, kept)
    try:
        postgres.wait_ready(cluster)
        restored = _run("restore", *arguments, say=say)
    except LabError:
        postgres.rename_database(cluster, kept, postgres.DATABASE, replace=True)
        raise
    return restored, f"the database {kept}"


def _run(*arguments: str, say: Say = lambda _: None) -> str:
    """What the store's own command printed; `say` hears what it is doing if that takes long. Raises LabError."""
    argv = [sys.executable, "-m", "storage.backup", "--progress", *arguments]
    wrong: list[str] = []

    with (
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT_ROOT) as process,
        Waiting(say, f"{arguments[0]}: begun") as waiting,
    ):
        limit = threading.Timer(COPY_SECONDS, process.kill)
        limit.daemon = True
        limit.start()
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(PROGRESS):
                waiting.now(f"{arguments[0]}: {line.removeprefix(PROGRESS).strip()}")
            else:
                wrong.append(line.strip())
        # One line, which fits the pipe.
        printed = process.stdout.read()
        limit.cancel()
    if process.returncode == -signal.SIGKILL:
        raise LabError(f"{arguments[0]} was ended: it took longer than {COPY_SECONDS:g} s, or there was no memory")
    if process.returncode != 0:
        raise LabError("; ".join(wrong[-5:]) or f"storage.backup {arguments[0]} failed")
    return printed.strip()
