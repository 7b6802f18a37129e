"""Logs of the node's own services over the API (KEP-2258), and the files of its log directory.

    kubectl get --raw '/api/v1/nodes/N/proxy/logs/?query=kubelet&tailLines=100'
    kubectl get --raw '/api/v1/nodes/N/proxy/logs/'             what files there are
    kubectl get --raw '/api/v1/nodes/N/proxy/logs/dpkg.log'     one of them

A service's log is asked of journald where that has it, else looked for as a file below the log directory. No name and
no link leads out of that directory: a pod that may write there must not be able to read the node's files.
"""

from __future__ import annotations

import asyncio
import html
import os
import re
import shutil
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from machinery.api import errors
from machinery.api.objects import parse_time

_CHUNK_BYTES = 64 * 1024
_TAIL_MAX = 100_000
_TAIL_BYTES_MAX = 32 << 20  # what the last lines are looked for in
_JOURNAL_SECONDS = 30.0
_SERVICE = re.compile(r"[A-Za-z0-9_.:@-]{1,256}")


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What a query string asks for: one file, or services with options."""

    services: tuple[str, ...] = ()
    file: str = ""
    since: datetime | None = None
    until: datetime | None = None
    tail: int | None = None
    pattern: str = ""
    boot: int | None = None


def parse(query: Mapping[str, Sequence[str]]) -> LogQuery | None:
    """None for a request without a `query`: a directory or a file is meant. Raises BadRequest naming the parameter."""
    if "query" not in query:
        return None
    asked = [text for text in query["query"] if text.strip()]
    files = [text for text in asked if "/" in text or "\\" in text]
    services = tuple(text for text in asked if text not in files)
    if not asked:
        raise errors.BadRequest("query: must not be empty")
    if files and (services or len(files) > 1):
        raise errors.BadRequest("query: one file, or services, not both")
    for service in services:
        if not _SERVICE.fullmatch(service):
            raise errors.BadRequest(f"query: {service!r} is not the name of a service")
    out = LogQuery(
        services,
        files[0] if files else "",
        since=_time(query, "sinceTime"),
        until=_time(query, "untilTime"),
        tail=_number(query, "tailLines", 0, _TAIL_MAX),
        pattern=_pattern(query),
        boot=_number(query, "boot", -1000, 0),
    )
    if out.file and out != LogQuery(file=out.file):
        raise errors.BadRequest("query: a file takes no other options")
    if out.since and out.until and out.since > out.until:
        raise errors.BadRequest("untilTime: must be after sinceTime")
    return out


def _text(query: Mapping[str, Sequence[str]], name: str) -> str:
    return (query.get(name) or [""])[0]


def _time(query: Mapping[str, Sequence[str]], name: str) -> datetime | None:
    text = _text(query, name)
    try:
        return parse_time(text) if text else None
    except ValueError as error:
        raise errors.BadRequest(f"{name}: {text!r} is not an RFC 3339 time") from error


def _number(query: Mapping[str, Sequence[str]], name: str, least: int, most: int) -> int | None:
    text = _text(query, name)
    if not text:
        return None
    try:
        value = int(text)
    except ValueError as error:
        raise errors.BadRequest(f"{name}: {text!r} is not a number") from error
    if not least <= value <= most:
        raise errors.BadRequest(f"{name}: {value} is not between {least} and {most}")
    return value


def _pattern(query: Mapping[str, Sequence[str]]) -> str:
    text = _text(query, "pattern")
    if not text:
        return ""
    import re2

    try:
        re2.compile(text)
    except re2.error as error:
        raise errors.BadRequest(f"pattern: {text!r}: {error}") from error
    return text


def journal_command(query: LogQuery, program: str) -> list[str]:
    """What asks journald for the services' log."""
    command = [program, "--utc", "--no-pager", "--output=short-precise"]
    for option, at in (("since", query.since), ("until", query.until)):
        if at is not None:
            command.append(f"--{option}={at.astimezone(UTC).strftime('%Y-%m-%d %H:%M:%S')}")
    if query.tail is not None:
        command += ["--pager-end", f"--lines={query.tail}"]
    command += [f"--unit={service}" for service in query.services]
    if query.pattern:
        command += [f"--grep={query.pattern}", "--case-sensitive=false"]
    if query.boot is not None:
        command += ["--boot", str(query.boot)]
    return command


class NodeLogs:
    """Serves one directory. `node_name` is part of file names where several nodes' components log in one."""

    def __init__(self, root: str, node_name: str) -> None:
        self._root = root
        self._node_name = node_name

    async def answer(self, path: str, query: Mapping[str, Sequence[str]]) -> tuple[str, AsyncIterator[bytes]]:
        """(content type, chunks) of `/logs/PATH?QUERY`. Raises NotFound, BadRequest."""
        asked = parse(query)
        if asked is not None and asked.services:
            return "text/plain; charset=utf-8", self._services(asked)
        fd = self._open(asked.file if asked is not None else path)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            return "text/html; charset=utf-8", _listing(fd)
        return "text/plain; charset=utf-8", _file(fd)

    def _open(self, path: str) -> int:
        """A descriptor of a regular file or a directory below the root."""
        if ".." in path.split("/") or "\0" in path:
            raise errors.BadRequest(f"{path!r}: '..' is not allowed")
        root = os.path.realpath(self._root)
        real = os.path.realpath(os.path.join(root, path.strip("/")))
        if real != root and not real.startswith(f"{root}/"):
            raise errors.NotFound(f"{path}: not below the log directory")
        try:
            # The last part can't have become a link meanwhile, nor a fifo that nobody writes to.
            fd = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise errors.NotFound(f"{path}: {error.strerror}") from error
        mode = os.fstat(fd).st_mode
        seen = os.path.realpath(f"/proc/self/fd/{fd}")
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or (seen != root and not seen.startswith(f"{root}/")):
            os.close(fd)
            raise errors.NotFound(f"{path}: not a file of the log directory")
        return fd

    async def _services(self, query: LogQuery) -> AsyncIterator[bytes]:
        program = shutil.which("journalctl")
        if program is not None:
            found = False
            async for chunk in _journal(journal_command(query, program)):
                found = True
                yield chunk
            if found:
                return
        for service in query.services:
            fd = self._find(service)
            if fd is None:
                yield f"\nlog not found for {service}\n".encode()
                continue
            async for chunk in _lines(fd, query):
                yield chunk

    def _find(self, service: str) -> int | None:
        named = f"{service}-{self._node_name}.log"
        for name in (named, service, f"{service}.log", f"{service}/{service}.log"):
            try:
                fd = self._open(name)
            except errors.ApiError:
                continue
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return fd
            os.close(fd)
        return None


async def _listing(fd: int) -> AsyncIterator[bytes]:
    """As a web server lists a directory; what `kubectl get --raw` shows."""
    try:
        entries = [f"{entry.name}/" if entry.is_dir() else entry.name for entry in os.scandir(fd)]
    finally:
        os.close(fd)
    links = [f'<a href="{quote(name)}">{html.escape(name)}</a>\n' for name in sorted(entries)]
    yield f"<!doctype html>\n<pre>\n{''.join(links)}</pre>\n".encode()


async def _file(fd: int) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    try:
        while chunk := await loop.run_in_executor(None, os.read, fd, _CHUNK_BYTES):
            yield chunk
    finally:
        os.close(fd)


async def _lines(fd: int, query: LogQuery) -> AsyncIterator[bytes]:
    """The file, or those of its lines that the query wants. Their times are not known: only journald has those."""
    if query.tail is None and not query.pattern:
        async for chunk in _file(fd):
            yield chunk
        return
    yield await asyncio.get_running_loop().run_in_executor(None, _chosen, fd, query)


def _chosen(fd: int, query: LogQuery) -> bytes:
    with open(fd, "rb") as file:
        size = os.fstat(fd).st_size
        if size > _TAIL_BYTES_MAX:
            file.seek(size - _TAIL_BYTES_MAX)
            file.readline()  # the rest of a line
        data = file.read(_TAIL_BYTES_MAX)
    if query.pattern:
        data = _matching(data, query.pattern)
    lines = data.splitlines(keepends=True)
    if query.tail is not None:
        lines = lines[len(lines) - query.tail :] if query.tail < len(lines) else lines
    return b"".join(lines)


def _matching(data: bytes, pattern: str) -> bytes:
    """The lines that match, in whatever case. The time grows with the text only: no expression stops the kubelet."""
    import re2  # only who filters pays for it

    wanted = re2.compile(b"(?i)" + pattern.encode())
    return b"".join(line for line in data.splitlines(keepends=True) if wanted.search(line.rstrip(b"\n")))


async def _journal(command: list[str]) -> AsyncIterator[bytes]:
    """journald's answer; nothing where it knows nothing of the unit."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_JOURNAL_SECONDS):
            first = await process.stdout.read(_CHUNK_BYTES)
            if first.startswith(b"-- No entries --"):
                return
            while first:
                yield first
                first = await process.stdout.read(_CHUNK_BYTES)
    except TimeoutError:
        yield b"\njournalctl did not end in time\n"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
