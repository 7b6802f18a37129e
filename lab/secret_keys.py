"""The keys that Secrets are sealed with in the state: made with the cluster, exchanged by `cutaway secrets rotate-key`,
needed again by a restore elsewhere.

    pki/encryption.keys            `name: base64 of 32 bytes` a line, the sealing one first; what the apiservers read
    pki/encryption.keys.retired    keys that seal nothing any more, but what older back-ups hold

A name is never used twice, in no cluster, so that what is sealed says which key it needs.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from lab import components
from lab.cluster import PROJECT_ROOT, Cluster
from lab.errors import LabError

IDENTITY = "identity"
"""The name of no key, as the apiserver's key files have it."""


def path(cluster: Cluster) -> Path:
    """Where the keys lie."""
    return cluster.pki / components.ENCRYPTION_KEYS


def retired(cluster: Cluster) -> Path:
    """Where those lie that seal nothing any more."""
    return path(cluster).with_name(f"{components.ENCRYPTION_KEYS}.retired")


def ensure(file: Path) -> bool:
    """Make the first key, if there is none; whether it was made."""
    if file.exists():
        return False
    write(file, [fresh()])
    return True


def names(cluster: Cluster) -> list[str]:
    """Of the keys, the sealing one first; empty: Secrets are not sealed."""
    return [name(line) for line in lines(path(cluster))]


def admit(cluster: Cluster, backup: Path, others: Path | None) -> None:
    """See to it that the apiservers can open what a back-up holds: with their own keys, those retired, and those of the
    file `others`. Raises LabError, then nothing has changed.
    """
    needed = _sealed_with(backup)
    own = lines(path(cluster))
    known = {name(line): line for line in [*lines(retired(cluster)), *_checked(others), *own]}
    missing = sorted(needed - known.keys())
    if missing:
        raise LabError(
            f"the Secrets of {backup} are sealed with the key {missing[0]}, which this cluster does not have",
            "name its cluster's file: --keys .../pki/encryption.keys",
        )
    added = [known[wanted] for wanted in sorted(needed - {name(line) for line in own})]
    if added:
        # Behind our own: what comes is sealed anew with it, as soon as the apiservers have started.
        write(path(cluster), [*(own or [fresh()]), *added])


def inherit(cluster: Cluster, home: Path) -> None:
    """Give a copy of this cluster, in another folder, the keys for the state that it begins with."""
    held = [*lines(path(cluster)), *lines(retired(cluster))]
    if held:
        (home / "pki").mkdir(mode=0o700, parents=True, exist_ok=True)
        write(home / "pki" / components.ENCRYPTION_KEYS, held)


def _sealed_with(backup: Path) -> set[str]:
    """Names of the keys that anything in a back-up is sealed with. Raises LabError."""
    argv = [sys.executable, "-m", "services.apiserver.sealed_with", str(backup.absolute())]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, cwd=PROJECT_ROOT)
    if done.returncode != 0:
        raise LabError("; ".join(done.stderr.strip().splitlines()[-1:]) or f"{backup} can't be read")
    return set(done.stdout.split())


# --- the file -------------------------------------------------------------------------------------------------------


def fresh() -> str:
    """A new key's line."""
    return f"k{secrets.token_hex(5)}: {base64.b64encode(os.urandom(32)).decode()}"


def lines(file: Path) -> list[str]:
    """The keys of a file; none if there is no file."""
    if not file.exists():
        return []
    return [line for line in map(str.strip, file.read_text().splitlines()) if line and not line.startswith("#")]


def _checked(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        held = lines(file)
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(f"--keys {file} can't be read: {error}") from error
    if not held or any(not re.fullmatch(r"[0-9A-Za-z]+: *[0-9A-Za-z+/=]*", line) for line in held):
        raise LabError(f"--keys {file} holds no keys", "a file such as pki/encryption.keys of the other cluster")
    return [line for line in held if name(line) != IDENTITY]


def name(line: str) -> str:
    """The name of the key on a line."""
    return line.partition(":")[0]


def write(file: Path, held: Iterable[str]) -> None:
    """At once and whole, readable for its owner only: half a key file would cost every Secret."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write("".join(f"{line}\n" for line in held))
        out.flush()
        os.fsync(out.fileno())
    partial.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
