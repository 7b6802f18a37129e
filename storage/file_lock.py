"""One process a SQLite file: a lock beside it, held for as long as the process lives."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from storage.errors import ReadOnly, Unavailable, WrongDatabase


class FileLock:
    """Held from construction to `release`, and let go by the kernel when the process dies. Raises WrongDatabase if
    another process has it, ReadOnly, Unavailable."""

    def __init__(self, path: Path) -> None:
        try:
            # A file beside the database: closing any descriptor of the database itself would drop SQLite's own locks on
            # it.
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if isinstance(error, PermissionError) or error.errno == errno.EROFS:
                raise ReadOnly(f"{path} can't be written: {error.strerror}") from error
            raise Unavailable(f"{path}: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise WrongDatabase(f"{path.with_suffix('')} is in use by process {holder or 'unknown'}") from error
        # Only for the message above, so a full disk is no reason to fail here.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let go. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
