"""A process's standard streams: fifos on disk, read on the event loop.

containerd's shim process keeps both ends of each output fifo open while the process lives, so a reader that goes
away (this process restarted) loses nothing: it opens the fifo again and reads on. The writer simply waits when the
fifo is full. Reading one bounded chunk per readiness keeps a chatty container from holding up the others.
"""

import asyncio
import contextlib
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from cri.errors import InvalidArgument
from cri.log_format import LineSplitter
from cri.logs import log
from cri.state import now

_CHUNK_BYTES = 64 * 1024
# Open streams of a dead process: a child that inherited them may live on; nobody waits for it longer than this.
EOF_WAIT_SECONDS = 2.0

Listener = Callable[[bytes | None], None]
"""Gets each chunk, then None at the end of the stream."""


class LogFile:
    """A container's log. A write that fails (disk full) drops its lines: the container is never blocked by its log."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._failed = False
        self._fd = self._open()

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self.path, flags, 0o640)

    def write(self, data: bytes) -> None:
        if self._fd < 0 or not data:
            return
        try:
            written = os.write(self._fd, data)
            if written < len(data):
                os.write(self._fd, data[written:])
            self._failed = False
        except OSError as error:
            if not self._failed:
                log.error("container log is losing lines", path=self.path, error=str(error))
            self._failed = True

    def reopen(self) -> None:
        """Goes on in a new file at the same path, after the old one was renamed."""
        old, self._fd = self._fd, self._open()
        if old >= 0:
            os.close(old)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def log_path(log_directory: str, relative: str) -> str:
    """The log's absolute path, which must be below the pod's log directory; "" where none is asked for."""
    if not log_directory or not relative:
        return ""
    path = os.path.normpath(os.path.join(log_directory, relative))
    if not path.startswith(os.path.normpath(log_directory) + "/") or relative.startswith("/"):
        raise InvalidArgument(f"log_path {relative!r} leads out of the log directory {log_directory!r}")
    return path


class OutputStream:
    """One output fifo: into the log, if there is one, and to whoever listens."""

    def __init__(self, path: Path, name: str, log_file: LogFile | None, line_bytes: int) -> None:
        self._path = path
        self._log = log_file
        self._lines = LineSplitter(name, line_bytes)
        self._fd = -1
        self.name = name
        self.listeners: set[Listener] = set()
        self.ended = asyncio.Event()

    def open(self) -> None:
        """Starts to read. Before the writer has come there is nothing to read and no end either."""
        self._fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def _read(self) -> None:
        try:
            chunk = os.read(self._fd, _CHUNK_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            chunk = b""
        if not chunk:
            self.close()
            return
        if self._log:
            self._log.write(self._lines.feed(chunk, now()))
        for listener in tuple(self.listeners):
            listener(chunk)

    def pause(self) -> None:
        """Leaves data in the fifo until `resume`: how a slow client slows its command down."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)

    def resume(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().add_reader(self._fd, self._read)

    def drain(self) -> None:
        """Reads what is there and ends if no writer is: for a process that is known to be dead."""
        for _ in range(64):  # a pipe holds 64 KiB, so 16 rounds empty it
            if self._fd < 0:
                return
            self._read()

    def close(self) -> None:
        if self._fd < 0:
            self.ended.set()
            return
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
        if self._log:
            self._log.write(self._lines.finish(now()))
        for listener in tuple(self.listeners):
            listener(None)
        self.listeners.clear()
        self.ended.set()


class InputStream:
    """The stdin fifo. We hold it open read-write, so that opening never waits and only `close` ends the input."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def closed(self) -> bool:
        return self._fd < 0

    async def write(self, data: bytes) -> None:
        """Writes all of it, waiting while the process does not read."""
        view = memoryview(data)
        while view and self._fd >= 0:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                await self._wait_writable()

    async def _wait_writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        fd = self._fd
        loop.add_writer(fd, lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
        finally:
            loop.remove_writer(fd)

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1


class ContainerIO:
    """The streams of one process (a container's, or one executed in it) in a directory of their own."""

    def __init__(
        self, directory: Path, *, tty: bool, stdin: bool, log_file: LogFile | None = None, line_bytes: int = 16384
    ) -> None:
        self.directory = directory
        self.tty = tty
        self.log = log_file
        self.has_stdin = stdin
        names = ("stdout",) if tty else ("stdout", "stderr")
        self.outputs = {name: OutputStream(directory / name, name, log_file, line_bytes) for name in names}
        self.stdin: InputStream | None = None

    def path(self, name: str) -> str:
        """The fifo's path for containerd; empty for a stream that there is not."""
        wanted = name in self.outputs or (name == "stdin" and self.has_stdin)
        return str(self.directory / name) if wanted else ""

    def create(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True)
        for name in (*self.outputs, *(("stdin",) if self.has_stdin else ())):
            os.mkfifo(self.directory / name, 0o600)

    def open(self) -> None:
        for stream in self.outputs.values():
            stream.open()
        if self.has_stdin:
            self.stdin = InputStream(self.directory / "stdin")

    async def wait_ended(self, seconds: float = EOF_WAIT_SECONDS) -> None:
        """Waits until all output has been read, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for stream in self.outputs.values():
                    await stream.ended.wait()

    def drain(self) -> None:
        for stream in self.outputs.values():
            stream.drain()

    def close(self) -> None:
        for stream in self.outputs.values():
            stream.close()
        if self.stdin:
            self.stdin.close()
        if self.log:
            self.log.close()

    def remove(self) -> None:
        """Closes everything and deletes the fifos; idempotent."""
        self.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def exists(directory: Path) -> bool:
    """Whether the fifos of a process are there."""
    try:
        return stat.S_ISFIFO((directory / "stdout").stat().st_mode)
    except OSError:
        return False
