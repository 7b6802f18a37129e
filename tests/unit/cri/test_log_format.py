"""The CRI log format: every byte of output is in the records, in order, whatever the chunks."""

import re

from hypothesis import given
from hypothesis import strategies as st

from cri.log_format import LineSplitter, timestamp

AT = 1_700_000_000_123_456_789


def test_a_timestamp_has_nine_digits_and_z() -> None:
    assert timestamp(AT) == b"2023-11-14T22:13:20.123456789Z"
    assert timestamp(5) == b"1970-01-01T00:00:00.000000005Z"


def test_a_line_waits_for_its_newline() -> None:
    lines = LineSplitter("stdout", 100)
    assert lines.feed(b"hel", AT) == b""
    assert lines.feed(b"lo\n\nx", AT) == b"".join(
        timestamp(AT) + b" stdout F " + text + b"\n" for text in (b"hello", b"")
    )
    assert lines.finish(AT) == timestamp(AT) + b" stdout P x\n"
    assert lines.finish(AT) == b""


@given(st.lists(st.binary(max_size=50)), st.integers(min_value=1, max_value=20))
def test_records_hold_exactly_what_was_written(chunks: list[bytes], limit: int) -> None:
    lines = LineSplitter("stderr", limit)
    written = b"".join(lines.feed(chunk, AT) for chunk in chunks) + lines.finish(AT)
    restored = b""
    records = re.split(rb"(?<=\n)(?=" + re.escape(timestamp(AT)) + rb" stderr [FP] )", written) if written else []
    for record in records:
        head, body = record[: len(timestamp(AT)) + 10], record[len(timestamp(AT)) + 10 : -1]
        assert len(body) <= limit
        restored += body + (b"\n" if head.endswith(b"F ") else b"")
    assert restored == b"".join(chunks)
