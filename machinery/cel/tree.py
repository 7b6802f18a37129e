"""The syntax tree of a checked expression, read from its protobuf form (cel.expr.CheckedExpr in an Any). Pure.

The messages are not among the generated ones, so the wire format is read here; only what costs and sizes need is kept.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_CONST, _IDENT, _SELECT, _CALL, _LIST, _STRUCT, _LOOP = 3, 4, 5, 6, 7, 8, 9
_CONSTANTS = {1: "null", 2: "bool", 3: "int", 4: "uint", 5: "double", 6: "string", 7: "bytes"}


@dataclass(frozen=True, slots=True)
class Const:
    """A literal. `size` is characters of text, bytes of bytes, and 1 for everything else; `value` is there for whole
    numbers, truths and texts."""

    kind: str
    size: int
    value: int | str | None = None


@dataclass(frozen=True, slots=True)
class Ident:
    """A variable."""

    name: str


@dataclass(frozen=True, slots=True)
class Select:
    """A field; `test` if only its presence is asked for (`has`)."""

    operand: Node
    field: str
    test: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A function or an operator (`_+_`); `target` is what a member function is called on."""

    function: str
    target: Node | None
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class List:
    """A list literal."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Struct:
    """A literal of a map or, where it has a type's name, of a message. Fields of messages have no key."""

    name: str
    entries: tuple[tuple[Node | None, Node], ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """What the macros become: `result` is what `accumulated`, `first` at the beginning, is after a `step` for each item
    of `over` while `condition` holds. `second` is the variable for values where `variable` is one for keys."""

    variable: str
    second: str
    over: Node
    accumulated: str
    first: Node
    condition: Node
    step: Node
    result: Node

    @property
    def is_binding(self) -> bool:
        """Whether it is `cel.bind`: a loop over nothing."""
        nothing = isinstance(self.over, List) and not self.over.items
        return nothing and self.condition == Const("bool", 1, 0) and not self.accumulated.startswith(("@r", "__r"))


Node = Const | Ident | Select | Call | List | Struct | Loop


def mentions(node: Node, name: str) -> bool:
    """Whether a variable stands anywhere in a tree, whatever a macro's own variables are called."""
    match node:
        case Const():
            return False
        case Ident():
            return node.name == name
        case Select():
            return mentions(node.operand, name)
        case Call():
            return any(mentions(one, name) for one in (*node.arguments, *([node.target] if node.target else [])))
        case List():
            return any(mentions(one, name) for one in node.items)
        case Struct():
            return any(mentions(one, name) for entry in node.entries for one in entry if one is not None)
    return any(mentions(one, name) for one in (node.over, node.first, node.condition, node.step, node.result))


@functools.lru_cache(maxsize=256)
def parse(checked: bytes) -> Node:
    """The tree of a serialized expression."""
    return _node(_only(_only(checked, 2), 4))


def _node(data: bytes) -> Node:
    kind, body = next(((number, value) for number, value in _fields(data) if number >= _CONST), (_CONST, b""))
    match kind:
        case 3:
            return _const(body)
        case 4:
            return Ident(_text(body, 1))
        case 5:
            test = any(number == 3 and value for number, value in _fields(body))
            return Select(_node(_only(body, 1)), _text(body, 2), test)
        case 6:
            target = next(_all(body, 1), None)
            return Call(
                _text(body, 2),
                None if target is None else _node(target),
                tuple(_node(part) for part in _all(body, 3)),
            )
        case 7:
            return List(tuple(_node(item) for item in _all(body, 1)))
        case 8:
            return Struct(_text(body, 1), tuple(_entry(entry) for entry in _all(body, 2)))
        case _:
            over, first, condition, step, result = (_node(_only(body, number)) for number in (2, 4, 5, 6, 7))
            return Loop(_text(body, 1), _text(body, 8), over, _text(body, 3), first, condition, step, result)


def _entry(data: bytes) -> tuple[Node | None, Node]:
    key = next(_all(data, 3), None)
    return (None if key is None else _node(key)), _node(_only(data, 4))


def _const(data: bytes) -> Const:
    number: int
    value: Any
    number, value = next(_fields(data), (1, 0))
    kind = _CONSTANTS.get(number, "dyn")
    if kind == "string":
        text = value.decode()
        return Const(kind, len(text), text)
    if kind == "bytes":
        return Const(kind, len(value))
    return Const(kind, 1, _signed(value) if isinstance(value, int) else None)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        value: Any
        if kind == 0:
            value, at = _varint(data, at)
        else:
            length, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value, at = data[at : at + length], at + length
        yield number, value


def _all(data: bytes, number: int) -> Iterator[bytes]:
    return (value for found, value in _fields(data) if found == number and isinstance(value, bytes))


def _only(data: bytes, number: int) -> bytes:
    return next(_all(data, number), b"")


def _text(data: bytes, number: int) -> str:
    return _only(data, number).decode()
