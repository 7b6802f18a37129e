"""Waiting for changes in a directory, by inotify(7)."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os

_IN_MODIFY, _IN_CLOSE_WRITE, _IN_MOVED, _IN_CREATE, _IN_DELETE = 0x2, 0x8, 0xC0, 0x100, 0x200
_CHANGES = _IN_CLOSE_WRITE | _IN_MOVED | _IN_DELETE | _IN_CREATE | _IN_MODIFY
_libc = ctypes.CDLL(None, use_errno=True)


class DirectoryWatch:
    """Use as a context manager in a running event loop; `wait` returns after the next change."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._changed = asyncio.Event()

    def __enter__(self) -> DirectoryWatch:
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0 or _libc.inotify_add_watch(self._fd, os.fsencode(self._path), _CHANGES) < 0:
            number = ctypes.get_errno()
            if self._fd >= 0:
                os.close(self._fd)
            raise OSError(number, f"inotify on {self._path}: {os.strerror(number)}")
        asyncio.get_running_loop().add_reader(self._fd, self._read)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._fd, 65536):
                self._changed.set()

    async def wait(self) -> None:
        await self._changed.wait()
        self._changed.clear()
