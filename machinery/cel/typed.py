"""Expressions checked against types, without being evaluated: what a schema declares, CEL's checker takes as protobuf
messages.

    types = Types()
    types.message("Deployment", {"spec": Field("message", "DeploymentSpec"), …})
    check("object.spec.replicas > 'a'", types, {"object": "Deployment"})     # the problem, or ""
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from machinery.cel.expressions import EXPRESSION_BYTES_MAX, extensions, message_of

PACKAGE = "k8s"
_NUMBERS_COMPARED = re.compile(
    r"[^\n]*: found no matching overload for '_[<>]=?_' applied to '\((?:u?int|double), (?:u?int|double)\)'"
).match
_STRUCT = re.compile(r" not found in struct '[^']*'")
_ESCAPED = (("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__"), ("$", "__dollar__"))
_RESERVED = frozenset(
    (
        "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
        "let", "loop", "package", "namespace", "return", "var", "void", "while",
    )
)  # fmt: skip
_KINDS = ("string", "int", "double", "bool", "bytes", "timestamp", "duration", "message", "dyn")


@dataclass(frozen=True, slots=True)
class Field:
    """A field's type: one of `_KINDS`, alone, as items of a list or as values of a map. `message` names a message."""

    kind: str
    message: str = ""
    repeated: bool = False
    keyed: bool = False


@dataclass(slots=True)
class Types:
    """Messages by name; they may name each other, in any order. `escape` unless fields are named as expressions name
    them already."""

    escape: bool = True
    messages: dict[str, Mapping[str, Field]] = field(default_factory=dict)

    def message(self, name: str, fields: Mapping[str, Field]) -> None:
        """Declare a message."""
        self.messages[name] = fields

    @functools.cache  # noqa: B019  # as long-lived as the types
    def pool(self) -> Any:
        """The messages as a descriptor pool."""
        from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, struct_pb2, timestamp_pb2

        pool = descriptor_pool.DescriptorPool()
        known = [module.DESCRIPTOR for module in (duration_pb2, struct_pb2, timestamp_pb2)]
        for file in known:
            pool.AddSerializedFile(file.serialized_pb)
        # Of proto2, where names that differ by case alone are no conflict.
        made = descriptor_pb2.FileDescriptorProto(
            name="k8s.proto", package=PACKAGE, syntax="proto2", dependency=[file.name for file in known]
        )
        for name, fields in self.messages.items():
            self._add(made.message_type.add(name=name), name, fields)
        pool.AddSerializedFile(made.SerializeToString())
        return pool

    def _add(self, message: Any, name: str, fields: Mapping[str, Field]) -> None:
        from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Proto

        # Values are plain maps, so that a reserved word is found by its own name too.
        if self.escape:
            named = {key: one for key, one in fields.items() if escaped(key) == key or key in _RESERVED}
            named |= {escaped(key): one for key, one in fields.items()}
        else:
            named = {word: fields[f"__{word}__"] for word in _RESERVED if f"__{word}__" in fields}
            named |= fields
        for number, (key, one) in enumerate(sorted(named.items()), 1):
            label = Proto.LABEL_REPEATED if one.repeated or one.keyed else Proto.LABEL_OPTIONAL
            added = message.field.add(name=key, number=number, label=label)
            if not one.keyed:
                _typed(added, one)
                continue
            entry = message.nested_type.add(name=f"{_camel(added.name)}Entry")
            entry.options.map_entry = True
            entry.field.add(name="key", number=1, label=Proto.LABEL_OPTIONAL, type=Proto.TYPE_STRING)
            _typed(entry.field.add(name="value", number=2, label=Proto.LABEL_OPTIONAL), one)
            added.type, added.type_name = Proto.TYPE_MESSAGE, f".{PACKAGE}.{name}.{entry.name}"

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def _camel(name: str) -> str:
    """What protobuf calls the entries of a map by, and demands."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def _typed(proto: Any, one: Field) -> None:
    assert one.kind in _KINDS, one.kind
    scalars = {"string": proto.TYPE_STRING, "int": proto.TYPE_INT64, "double": proto.TYPE_DOUBLE,
               "bool": proto.TYPE_BOOL, "bytes": proto.TYPE_BYTES}  # fmt: skip
    if one.kind in scalars:
        proto.type = scalars[one.kind]
        return
    known = {"timestamp": "google.protobuf.Timestamp", "duration": "google.protobuf.Duration",
             "dyn": "google.protobuf.Value"}  # fmt: skip
    proto.type = proto.TYPE_MESSAGE
    proto.type_name = "." + known.get(one.kind, f"{PACKAGE}.{one.message}")


def escaped(name: str) -> str:
    """A field's name as expressions write it: `__namespace__`, `x__dash__y`."""
    if name in _RESERVED:
        return f"__{name}__"
    for character, instead in _ESCAPED:
        name = name.replace(character, instead)
    return name


def check(source: str, types: Types, variables: Mapping[str, str]) -> str:
    """What the checker says against an expression; empty if nothing. `variables` maps names to messages; an empty
    message means any type.
    """
    declared = {name: f"{PACKAGE}.{message}" if message else "" for name, message in variables.items()}
    return checked(source, types, declared)[0]


def checked(source: str, types: Types, variables: Mapping[str, str]) -> tuple[str, str]:
    """(what the checker says against an expression, the type of its value, empty if it is not known). `variables` maps
    names to CEL's types (`list<k8s.Message>`), empty for any type.
    """
    if len(source.encode()) > EXPRESSION_BYTES_MAX:
        return f"expression is longer than {EXPRESSION_BYTES_MAX} bytes", ""
    try:
        expression = _environment(types, tuple(sorted(variables.items()))).compile(source)
    except (RuntimeError, ValueError, TypeError) as error:
        parts = _STRUCT.sub("", message_of(str(error))).split("ERROR: ")
        # What follows from another error is no news; numbers of different types are compared by their values.
        news = [part for part in parts[1:] if "'*error*'" not in part and not _NUMBERS_COMPARED(part)]
        if len(parts) > 1 and not news:
            return "", ""
        return "compilation failed: " + ("".join(f"ERROR: {part}" for part in news).strip() or parts[0]), ""
    return "", str(expression.return_type().name())


@functools.lru_cache(maxsize=16)
def _environment(types: Types, variables: tuple[tuple[str, str], ...]) -> Any:
    from cel_expr_python import cel

    declared = {name: cel.Type(text) if text else cel.Type.DYN for name, text in variables}
    return cel.NewEnv(descriptor_pool=types.pool(), variables=declared, **extensions())
