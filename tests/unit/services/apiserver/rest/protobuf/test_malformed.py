"""What is no protobuf body is refused in words; a hostile body costs no more than an honest one."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machinery.api import errors
from services.apiserver.rest import protobuf
from services.apiserver.rest.protobuf import decoding
from services.apiserver.rest.protobuf.wire import BYTES, FIXED32, FIXED64, VARINT, delimited, tag, varint

BODY_BYTES_MAX = 3 * 1024 * 1024
POD = protobuf.encode(
    {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "labels": {"a": "b"}, "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}]}], "priority": 7},
    }
)


def _field(number: int, content: bytes) -> bytes:
    return tag(number, BYTES) + delimited(content)


def _body(raw: bytes, api_version: str = "v1", kind: str = "Pod") -> bytes:
    meta = _field(1, api_version.encode()) + _field(2, kind.encode())
    return b"k8s\0" + _field(1, meta) + _field(2, raw)


def _refused(body: bytes, message: str) -> None:
    with pytest.raises(errors.BadRequest, match=message):
        protobuf.decode(body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "does not begin with"),
        (b'{"kind":"Pod"}', "does not begin with"),
        (b"k8s\0", "does not say apiVersion and kind"),
        (b"k8s\0\xff\xff\xff", "it is cut off"),
        (b"k8s\0" + b"\xff" * 11, "longer than ten bytes"),
        (_body(b"", kind="Bod"), r'no kind "Bod" is registered for version "v1"'),
        (_body(b"", api_version="example.com/v1"), r'no kind "Pod" is registered for version "example.com/v1"'),
        (_body(b"") + _field(3, b"gzip"), "of encoding 'gzip'"),
        (_body(b"") + _field(4, b"application/json"), "type 'application/json' inside"),
        (_body(_field(1, _field(1, b"\xff\xfe"))), "can't decode byte 0xff"),
        (_body(tag(1, VARINT) + b"\x01"), r"core/v1.Pod.metadata is of wire type 0"),
        (_body(_field(2, _field(25, b"\x01"))), r"core/v1.PodSpec.priority is of wire type 2"),
        (_body(tag(1, FIXED64) + bytes(8)), r"metadata is of wire type 1"),
        (_body(tag(15, 3)), "there is no wire type 3"),
        (_body(b"\x02\x00"), "a field number 0"),
        (_body(tag(1, BYTES) + varint(100) + b"abc"), "ends beyond it"),
        (_body(_field(1, _field(8, tag(1, VARINT) + varint(1 << 60)))), "beyond the years 1 to 9999"),
        (_body(_field(1, _field(8, tag(2, VARINT) + varint(-1)))), "-1 nanoseconds"),
        (_body(_field(1, _field(17, _field(7, _field(1, b"{"))))), "JSON inside of it is not valid"),
    ],
)
def test_what_is_wrong_is_said(body: bytes, message: str) -> None:
    _refused(body, message)


def test_every_cut_is_refused_but_that_after_the_envelopes_type() -> None:
    whole = len(_body(b"")) - len(_field(2, b""))
    for length in set(range(len(POD))) - {whole}:
        _refused(POD[:length], "can't be decoded|does not begin with")

    assert protobuf.decode(POD[:whole]) == {"apiVersion": "v1", "kind": "Pod"}


@given(st.integers(4, len(POD) - 1), st.integers(0, 255))
def test_a_changed_byte_never_breaks_the_decoder(position: int, value: int) -> None:
    body = POD[:position] + bytes((value,)) + POD[position + 1 :]
    try:
        decoded = protobuf.decode(body)
    except errors.BadRequest:
        return
    json.dumps(decoded)


@given(st.binary(max_size=200))
def test_noise_never_breaks_the_decoder(raw: bytes) -> None:
    try:
        protobuf.decode(_body(raw))
    except errors.BadRequest:
        return


def test_fields_of_a_newer_client_are_passed_over() -> None:
    newer = _field(500, b"x") + tag(501, VARINT) + b"\x01" + tag(502, FIXED64) + bytes(8) + tag(503, FIXED32) + bytes(4)
    spec = _field(2, newer)

    assert protobuf.decode(_body(newer + spec)) == {"apiVersion": "v1", "kind": "Pod", "spec": {}}


def test_a_message_in_parts_is_merged_and_the_last_scalar_counts() -> None:
    parts = _field(1, _field(1, b"a") + _field(3, b"ns")) + _field(1, _field(1, b"b"))

    assert protobuf.decode(_body(parts))["metadata"] == {"name": "b", "namespace": "ns"}


def test_numbers_may_come_packed() -> None:
    groups = _field(4, varint(0) + varint(7) + varint(-1))

    spec = protobuf.decode(_body(_field(2, _field(14, groups))))["spec"]

    assert spec == {"securityContext": {"supplementalGroups": [0, 7, -1]}}


def test_an_entry_without_a_value_has_the_empty_one() -> None:
    secret = _field(2, _field(1, b"key")) + _field(4, _field(1, b"text"))

    decoded = protobuf.decode(_body(secret, kind="Secret"))

    assert (decoded["data"], decoded["stringData"]) == ({"key": ""}, {"text": ""})


def test_nesting_is_bounded() -> None:
    def schema(levels: int) -> bytes:
        inner = b""
        for _ in range(levels):
            inner = _field(29, _field(1, b"p") + _field(2, inner))
        spec = _field(7, _field(4, _field(1, inner)))
        return _body(_field(2, spec), "apiextensions.k8s.io/v1", "CustomResourceDefinition")

    # Definition, spec, version, validation and the outermost schema are messages as well.
    assert protobuf.decode(schema(decoding.DEPTH_MAX - 5))
    _refused(schema(decoding.DEPTH_MAX - 4), "nested deeper than 200 messages")


@pytest.mark.parametrize(
    "filling",
    [
        lambda many: _body(_field(2, (tag(2, BYTES) + b"\0") * many)),
        lambda many: _body((tag(15, BYTES) + b"\0") * many),
        lambda many: _body((tag(2, BYTES) + b"\0") * many, kind="ConfigMap"),
        lambda many: _body(_field(1, _field(8, (tag(1, VARINT) + b"\1") * many))),
        lambda many: b"k8s\0" + (tag(9, VARINT) + b"\0") * many,
    ],
    ids=["messages", "unknown", "entries", "numbers of a time", "envelope"],
)
def test_the_number_of_fields_is_bounded(filling: object) -> None:
    assert callable(filling)
    body = filling(BODY_BYTES_MAX // 2)

    started = time.process_time()
    _refused(body, "more than 400000 fields")

    # Without the bound it is four times as much.
    assert time.process_time() - started < 2


def test_importing_reads_no_table() -> None:
    program = (
        "from services.apiserver.rest import protobuf;"
        "from services.apiserver.rest.protobuf import table;"
        "assert table._files.cache_info().currsize == 0"
    )

    root = pathlib.Path(__file__).parents[6]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root)
