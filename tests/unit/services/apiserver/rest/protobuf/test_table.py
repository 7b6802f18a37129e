"""The table of field numbers is kubectl's, is consistent in itself, and says what the API's definitions say."""

from __future__ import annotations

import json
import pathlib

import pytest

from machinery.api import kinds
from services.apiserver.rest.protobuf import generate, scalars, table
from services.apiserver.schema import definitions
from services.apiserver.schema.definitions import Node

SPECIAL_TYPES = {
    "quantity": {"resource.Quantity"},
    "int-or-string": {"intstr.IntOrString"},
    "time": {"meta/v1.Time"},
    "micro-time": {"meta/v1.MicroTime"},
    "open": {"runtime.RawExtension", "meta/v1.FieldsV1"},
    "any": {"apiextensions/v1.JSON", *scalars.SCHEMA_OR_ELSE},
    "bytes": {"bytes"},
    "string": {"string"},
    "boolean": {"bool"},
    "integer": {"int32", "int64"},
    "number": {"double"},
}


def test_the_generated_file_is_fresh() -> None:
    if not generate.kubectl_path().exists():
        pytest.skip("kubectl is not installed in this environment")

    table_of_kubectl = generate.render(generate.build(generate.kubectl_path()))

    assert generate.PATH.read_text() == table_of_kubectl, "run python -m services.apiserver.rest.protobuf.generate"


def test_the_two_files_share_nothing() -> None:
    folder = pathlib.Path(table.__file__).parent
    generated, kept = (json.loads((folder / name).read_bytes()) for name in table.FILES)

    for part in ("packages", "messages"):
        assert generated[part].keys().isdisjoint(kept[part])


@pytest.mark.parametrize("name", table.message_names())
def test_a_message_is_whole(name: str) -> None:
    message = table.message(name)

    numbers = [field.number for field in message.fields]
    assert numbers == sorted(set(numbers))
    for field in message.fields:
        known = field.type in table.SCALARS or field.type in scalars.SPECIAL
        assert known or table.message(field.type), field


@pytest.mark.parametrize("kind", kinds.BUILTIN, ids=lambda kind: f"{kind.api_version}.{kind.kind}")
def test_every_served_kind_has_the_fields_of_its_definition(kind: kinds.Kind) -> None:
    node = definitions.node_for(kind)
    message = table.message_of(kind.api_version, kind.kind)
    if node is None:
        pytest.skip("there is no definition to compare with")
    assert message is not None

    _compare(message, node, set())


def _compare(message: table.Message, node: Node, seen: set[str]) -> None:
    if message.name in seen:
        return
    seen.add(message.name)
    fields = dict(_named(message))
    names = set(node.fields) - ({"apiVersion", "kind"} if "metadata" in node.fields else set())
    assert set(fields) == names, message.name
    for name, field in fields.items():
        below = node.fields[name]
        where = f"{message.name}.{name}: {field.type}, {below}"
        if field.container:
            assert below.type == ("array" if field.container == "[]" else "map"), where
            below = below.item
        if field.type == "strings":
            assert below.type == "array", where
        elif below.type == "object":
            _compare(table.message(field.type), below, seen)
        elif below.type == "integer" and below.format:
            assert field.type == below.format, where
        elif below.type == "open" and field.type not in SPECIAL_TYPES["open"]:
            assert not table.message(field.type).fields, where
        elif below.type in ("map", "array"):
            raise AssertionError(where)
        else:
            assert field.type in SPECIAL_TYPES[below.type], where


def _named(message: table.Message) -> list[tuple[str, table.Field]]:
    found = []
    for field in message.fields:
        found += [(field.name, field)] if field.name else _named(table.message(field.type))
    return found
