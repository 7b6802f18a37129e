"""Container logs in the CRI format: `TIME STREAM P|F CONTENT`, one record a line. Reading with every option that a
client has, and rotation.

A record tagged `P` is part of a longer line; its newline belongs to the runtime, not to the container.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

_BLOCK_BYTES = 64 * 1024
_FOLLOW_POLL_SECONDS = 0.1
CHUNK_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What of the log is wanted. `since` is an RFC 3339 time in UTC, or empty."""

    follow: bool = False
    timestamps: bool = False
    since: str = ""
    tail_lines: int | None = None
    limit_bytes: int | None = None
    stream: str = "All"


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a log file."""

    time: str
    stream: str
    partial: bool
    content: bytes


def parse_record(line: bytes) -> Record | None:
    """The record in a line of the file (with or without its newline); None if it is not in CRI format."""
    parts = line.rstrip(b"\n").split(b" ", 3)
    if len(parts) < 3:
        return None
    try:
        time, stream = parts[0].decode("ascii"), parts[1].decode("ascii")
    except UnicodeDecodeError:
        return None
    tags = parts[2].split(b":")
    return Record(time, stream, tags[0] == b"P", parts[3] if len(parts) > 3 else b"")


def comparable_time(text: str) -> str:
    """An RFC 3339 time as a string that sorts by time: UTC, nine digits."""
    base, _, zone = _split_zone(text)
    seconds, _, fraction = base.partition(".")
    moment = datetime.fromisoformat(seconds + (zone or "+00:00")).astimezone(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{(fraction + '000000000')[:9]}Z"


def _split_zone(text: str) -> tuple[str, str, str]:
    if text.endswith(("Z", "z")):
        return text[:-1], "", ""
    for sign in ("+", "-"):
        at = text.rfind(sign)
        if at > 10:
            return text[:at], "", text[at:]
    return text, "", ""


def tail_offset(file: BinaryIO, lines: int) -> int:
    """Where the last `lines` lines of the file begin."""
    size = file.seek(0, os.SEEK_END)
    if lines <= 0:
        return size
    position, found = size, 0
    while position > 0:
        start = max(0, position - _BLOCK_BYTES)
        file.seek(start)
        block = file.read(position - start)
        end = len(block)
        while (at := block.rfind(b"\n", 0, end)) != -1:
            # The newline that ends the last line does not begin another.
            if start + at != size - 1:
                found += 1
                if found == lines:
                    return start + at + 1
            end = at
        position = start
    return 0


def tail_text(path: Path, lines: int, bytes_max: int) -> str:
    """The end of a log as plain text, for a termination message."""
    try:
        with path.open("rb") as file:
            file.seek(tail_offset(file, lines))
            records = [parse_record(line) for line in file]
    except OSError:
        return ""
    text = b"".join(r.content + (b"" if r.partial else b"\n") for r in records if r is not None)
    return text[-bytes_max:].decode(errors="replace")


class _Formatter:
    """Turns records into what the client sees, keeping count of the limit."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._since = comparable_time(options.since) if options.since else ""
        self._left = options.limit_bytes
        self._in_partial = False

    @property
    def full(self) -> bool:
        return self._left is not None and self._left <= 0

    def format(self, line: bytes) -> bytes:
        record = parse_record(line)
        if record is None:
            return b""
        if self._options.stream != "All" and record.stream != self._options.stream.lower():
            return b""
        if self._since and comparable_time(record.time) < self._since:
            return b""
        out = record.content if record.partial else record.content + b"\n"
        if self._options.timestamps and not self._in_partial:
            out = record.time.encode() + b" " + out
        self._in_partial = record.partial
        if self._left is not None:
            out = out[: self._left]
            self._left -= len(out)
        return out


async def read_log(path: Path, options: LogOptions, running: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The log in chunks.

    With `follow`, goes on across rotation until `running()` is false and everything written has been sent.
    """
    formatter = _Formatter(options)
    file = path.open("rb")
    try:
        if options.tail_lines is not None:
            file.seek(tail_offset(file, options.tail_lines))
        rest = b""
        while not formatter.full:
            alive = running()
            data = file.read(_BLOCK_BYTES)
            if data:
                lines = (rest + data).split(b"\n")
                rest = lines.pop()
                out = b"".join(formatter.format(line) for line in lines)
                for start in range(0, len(out), CHUNK_BYTES_MAX):
                    yield out[start : start + CHUNK_BYTES_MAX]
                continue
            if not options.follow:
                break
            rotated = _reopened(path, file)
            if rotated is not None:
                file.close()
                file = rotated
            elif not alive:
                break
            else:
                await asyncio.sleep(_FOLLOW_POLL_SECONDS)
    finally:
        file.close()


def _reopened(path: Path, file: BinaryIO) -> BinaryIO | None:
    """The new file of that name, if the one at hand has been rotated away."""
    try:
        if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return None
        return path.open("rb")
    except OSError:
        return None


def rotate(path: Path, files_max: int, now: datetime) -> None:
    """Move the file aside under its time and drop the oldest beyond `files_max`.

    The runtime then has to reopen its log.
    """
    keep = max(0, files_max - 2)  # besides the new file and the one moved aside now
    older = sorted(path.parent.glob(f"{path.name}.*"))
    for extra in older[: max(0, len(older) - keep)]:
        extra.unlink(missing_ok=True)
    path.rename(path.with_name(f"{path.name}.{now:%Y%m%d-%H%M%S}"))
