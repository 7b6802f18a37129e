from __future__ import annotations

import pytest

from machinery.component import tracing

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_hop_keeps_the_trace_and_has_a_span_of_its_own() -> None:
    assert tracing.outgoing() is None
    parent = tracing.incoming([("user-agent", "x"), ("traceparent", f"00-{TRACE}-{SPAN}-01")])
    with tracing.follow(parent) as span:
        assert span is not None
        assert (span.trace_id, span.sampled) == (TRACE, True)
        assert span.span_id != SPAN
        assert tracing.outgoing() == (("traceparent", f"00-{TRACE}-{span.span_id}-01"),)
    assert tracing.current() is None


def test_a_later_version_may_say_more() -> None:
    assert tracing.parse(f"cc-{TRACE}-{SPAN}-00-what-comes") == tracing.Span(TRACE, SPAN, False)


@pytest.mark.parametrize(
    "header",
    [
        None, "", "00", f"00-{TRACE}-{SPAN}", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-more",
    ],
)  # fmt: skip
def test_a_malformed_header_is_ignored(header: str | None) -> None:
    assert tracing.parse(header) is None
    with tracing.follow(tracing.parse(header)) as span:
        assert span is None
