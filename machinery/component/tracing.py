"""Trace context from hop to hop, as W3C Trace Context has it (https://www.w3.org/TR/trace-context/).

A call that comes with a `traceparent` is part of a trace: the calls that it makes on carry the same trace id and a
span id of their own, and its log lines carry `trace_id`. Who begins a trace (a REST client, a test, `begin`) can so
find it in every component's log. Without one nothing is done and nothing is paid. No spans are collected here; a
collector reads them from the logs.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import NamedTuple

from machinery.component import logs

HEADER = "traceparent"

# version - trace id - parent id - flags; version ff is forbidden, later versions may append fields.
_FORM = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Span(NamedTuple):
    """Where we are in a trace."""

    trace_id: str
    span_id: str
    sampled: bool = True

    @property
    def header(self) -> str:
        """The span as a `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    def child(self) -> Span:
        """The next hop's span."""
        return Span(self.trace_id, secrets.token_hex(8), self.sampled)


_current: ContextVar[Span | None] = ContextVar("span", default=None)


def current() -> Span | None:
    """The span that this task works for, or None."""
    return _current.get()


def parse(header: str | None) -> Span | None:
    """The span of a `traceparent`.

    None if there is none or it is malformed, which by the specification is to be ignored.
    """
    found = _FORM.fullmatch(header.strip()) if header else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if set(trace_id) == {"0"} or set(span_id) == {"0"} or (version == "00" and more):
        return None
    return Span(trace_id, span_id, bool(int(flags, 16) & 1))


@contextlib.contextmanager
def follow(parent: Span | None) -> Iterator[Span | None]:
    """Work on behalf of `parent` (of another process) inside the block; with None, of nobody."""
    if parent is None:
        yield None
        return
    with _entered(parent.child()) as span:
        yield span


def enter(parent: Span | None) -> None:
    """Work on behalf of `parent` for the rest of this task.

    For handlers of streams: a generator may be closed in another task's context, where `follow` can't undo what it set.
    """
    if parent is not None:
        _current.set(parent.child())
        logs.contextvars.bind_contextvars(trace_id=parent.trace_id)


@contextlib.contextmanager
def begin() -> Iterator[Span]:
    """Begin a trace."""
    with _entered(Span(secrets.token_hex(16), secrets.token_hex(8))) as span:
        yield span


@contextlib.contextmanager
def _entered(span: Span) -> Iterator[Span]:
    token = _current.set(span)
    try:
        with logs.contextvars.bound_contextvars(trace_id=span.trace_id):
            yield span
    finally:
        _current.reset(token)


def outgoing() -> tuple[tuple[str, str], ...] | None:
    """gRPC metadata (or HTTP headers) for a call that is made now; None outside of a trace."""
    span = _current.get()
    return ((HEADER, span.header),) if span is not None else None


def incoming(metadata: Iterable[tuple[str, str | bytes]] | None) -> Span | None:
    """The caller's span, from gRPC metadata or HTTP headers in lower case."""
    for key, value in metadata or ():
        if key == HEADER and isinstance(value, str):
            return parse(value)
    return None
