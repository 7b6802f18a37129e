"""Container output as lines of the CRI log format: pure.

    2026-01-02T03:04:05.678901234Z stdout F a whole line
    2026-01-02T03:04:05.678901234Z stderr P the beginning of one longer than the limit, or never ended

(kubernetes/design-proposals, CRI logging.) A line is kept until its newline comes, the limit is reached, or the
stream ends; memory is bounded by the limit.
"""

import time

FULL = b"F"
PARTIAL = b"P"


def timestamp(nanoseconds: int) -> bytes:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode() + b".%09dZ" % rest


class LineSplitter:
    """Splits one stream's chunks into log records."""

    def __init__(self, stream: str, limit_bytes: int) -> None:
        self._tag = b" " + stream.encode() + b" "
        self._limit = limit_bytes
        self._rest = b""

    def feed(self, chunk: bytes, nanoseconds: int) -> bytes:
        """The records that `chunk` completes, as bytes to append to the log."""
        head = timestamp(nanoseconds) + self._tag
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        out: list[bytes] = []
        for line in lines:
            while len(line) > self._limit:
                out.append(head + b"P " + line[: self._limit] + b"\n")
                line = line[self._limit :]
            out.append(head + b"F " + line + b"\n")
        while len(self._rest) > self._limit:
            out.append(head + b"P " + self._rest[: self._limit] + b"\n")
            self._rest = self._rest[self._limit :]
        return b"".join(out)

    def finish(self, nanoseconds: int) -> bytes:
        """The record of what came after the last newline, if anything did."""
        rest, self._rest = self._rest, b""
        return timestamp(nanoseconds) + self._tag + b"P " + rest + b"\n" if rest else b""
