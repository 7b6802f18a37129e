"""Bodies become objects, or a 4xx that says why; a hostile one costs little."""

from __future__ import annotations

import time

import pytest

from machinery.api import errors
from services.apiserver.rest import bodies
from services.apiserver.rest.verbs import _not_strict

JSON, YAML = "application/json", "application/yaml"


def test_json_and_yaml_mean_the_same() -> None:
    want = {"kind": "Pod", "spec": {"a": [1, "x", None, True]}}
    assert bodies.decode_object(b'{"kind":"Pod","spec":{"a":[1,"x",null,true]}}', JSON, "Pod")[0] == want
    assert bodies.decode_object(b"kind: Pod\nspec:\n  a: [1, x, null, true]\n", YAML, "Pod")[0] == want


def test_yaml_makes_no_dates_and_no_sixties() -> None:
    document = bodies.decode_yaml(b"when: 2024-01-02\ntime: 1:30\nport: 0o10\nratio: 1.5\n")
    assert document["when"] == "2024-01-02"
    assert document["time"] == "1:30"
    assert document["ratio"] == 1.5


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (b"", JSON, "unexpected end of JSON input \\(<empty>\\)"),
        (b"{", JSON, "unexpected end of JSON input"),
        (b"[1]", JSON, "cannot unmarshal array"),
        (b'{"a": "\xff\xfe"}', JSON, "UTF-8"),
        (b"[" * 100_000, JSON, "unexpected end of JSON input"),
        (b'{"a":' * 100_000, JSON, "unexpected end of JSON input"),
        (b"a: b: c\n", YAML, "line 1"),
        (b"a:\n  - b\n c: d\n", YAML, "line 3"),
        (b"? [a]\n: b\n", YAML, "yaml: "),
        (b"a: !!python/object/apply:os.system [ls]\n", YAML, "yaml: "),
        (b"[" * 5000 + b"]" * 5000, YAML, "yaml: "),
        (b"a: &a [*a]\n", YAML, "contains itself"),
        (b"a: 1\n---\nb: 2\n", YAML, "yaml: "),
    ],
)
def test_what_can_not_be_read_is_a_bad_request_that_says_why(body: bytes, content_type: str, words: str) -> None:
    with pytest.raises(errors.BadRequest, match=words):
        bodies.decode_object(body, content_type, "Pod")


def test_a_yaml_bomb_is_refused_in_no_time() -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    began = time.monotonic()
    with pytest.raises(errors.BadRequest, match="aliasing"):
        bodies.decode_yaml("\n".join(lines).encode())
    assert time.monotonic() - began < 1


def test_an_unknown_content_type() -> None:
    with pytest.raises(errors.UnsupportedMediaType):
        bodies.decode_object(b"{}", "text/html", "Pod")
    with pytest.raises(errors.UnsupportedMediaType):
        bodies.decode_patch(b"{}", JSON)


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        (b'{"a":1,"b":{"a":1}}', ()),
        (b'{"a":1,"a":2}', ("a",)),
        (b'{"s":{"c":[{"n":1,"n":1}]}}', ("s.c[0].n",)),
        (b'{ "a" : 1, "b" : "x\\":" }', ()),
    ],
)
def test_duplicate_fields_are_found_with_their_paths(body: bytes, paths: tuple[str, ...]) -> None:
    assert bodies.decode_object(body, JSON, "Pod")[1] == paths


def test_duplicate_fields_of_yaml_are_found_too() -> None:
    text = b"a: 1\na: 2\nlist:\n- {n: 1, n: 2}\nbase: &b {x: 1}\nuse: {<<: *b, y: 2}\n"
    assert bodies.decode_object(text, YAML, "Pod")[1] == ("a", "list[0].n")
    lines = ('line 2: key "a" already set in map', 'line 4: key "n" already set in map')
    assert bodies.decode_patch(text, "application/apply-patch+yaml")[2] == lines


def test_an_apply_patch_may_be_yaml_or_json() -> None:
    kind = "application/apply-patch+yaml"
    assert bodies.decode_patch(b'{"a": [1,], "b": 2,}', kind)[1:] == ({"a": [1], "b": 2}, ())
    assert bodies.decode_patch(b'{"a":1,\n"a":2}', kind)[2] == ('line 2: key "a" already set in map',)
    assert bodies.decode_patch(b"a: b\n", kind)[:2] == ("apply", {"a": "b"})
    assert bodies.decode_patch(b'{"a":"b"}', kind)[:2] == ("apply", {"a": "b"})


def test_each_patch_type_has_its_shape() -> None:
    with pytest.raises(errors.BadRequest, match="jsonPatchOp"):
        bodies.decode_patch(b"{}", "application/json-patch+json")
    with pytest.raises(errors.BadRequest, match="cannot unmarshal array"):
        bodies.decode_patch(b"[]", "application/merge-patch+json")


def test_an_apply_patch_may_have_no_key_twice_where_validation_is_strict() -> None:
    lines = ('line 9: key "foo" already set in map',)
    with pytest.raises(errors.BadRequest, match=r"error strict decoding YAML: .*\n  line 9: key .foo. already set in"):
        _not_strict("Strict", lines)
    assert len(_not_strict("", lines)) == len(_not_strict("Warn", lines)) == 1
    assert "\n" not in _not_strict("Warn", lines)[0]
    assert _not_strict("Ignore", lines) == _not_strict("Strict", ()) == []
