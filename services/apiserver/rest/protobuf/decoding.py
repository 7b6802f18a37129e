"""Messages into the objects that JSON would have given.

One pass over the bytes, no copies of messages: a message is a place and an end in the body. What the table says of a
message is turned, when one is first met, into a dict by wire key (`number << 3 | wire type`), so that a field costs one
look-up. The bounds on depth and on the number of fields keep a hostile body as cheap as a JSON one of its size.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from services.apiserver.rest.protobuf import scalars, table
from services.apiserver.rest.protobuf.wire import (
    BYTES,
    FIXED64,
    VARINT,
    Malformed,
    Spend,
    read_double,
    read_varint,
    signed32,
    signed64,
    skip_fixed,
    span,
)

# JSON bodies may nest 1,024 levels; a schema in a CustomResourceDefinition takes three messages a level.
DEPTH_MAX = 200
# Ordinary objects have a field every 6 to 20 bytes, so that this is beyond any of 2 MB; decoding as many takes 0.3 s.
FIELDS_MAX = 400_000

# How a length-delimited field is read.
_TEXT, _MESSAGE, _TEXTS, _MESSAGES, _INLINE, _MAP, _SPECIAL, _SPECIALS, _BASE64, _BASE64S, _PACKED = range(11)

_NUMBERS: dict[str, Callable[[int], Any]] = {"bool": bool, "int32": signed32, "int64": signed64}


def _plan_of(message: table.Message) -> table.Plan:
    """What to do with each wire key of a message."""
    plan: table.Plan = {}
    for field in message.fields:
        how, argument = _how(field)
        plan[field.number << 3 | BYTES] = (field.name, how, field.unset_if_zero, argument)
        if field.container == "{}":
            continue
        if field.type in table.VARINTS:
            plan[field.number << 3 | VARINT] = (field.name, how, field.unset_if_zero, argument)
        elif field.type == "double":
            plan[field.number << 3 | FIXED64] = (field.name, how, field.unset_if_zero, argument)
    return plan


def _how(field: table.Field) -> tuple[int, Any]:
    if field.container == "{}":
        return _MAP, field.type
    repeated = field.container == "[]"
    if field.type == "string":
        return (_TEXTS if repeated else _TEXT), None
    if field.type == "bytes":
        return (_BASE64S if repeated else _BASE64), None
    if field.type in table.VARINTS or field.type == "double":
        # Only a list may come packed: a single number of length-delimited type is of the wrong type.
        return (_PACKED if repeated else -1), _NUMBERS.get(field.type, float)
    if field.type in scalars.SPECIAL:
        return (_SPECIALS if repeated else _SPECIAL), scalars.SPECIAL[field.type][0]
    if field.type in scalars.SCHEMA_OR_ELSE:
        return _SPECIAL, field.type
    if not field.name:
        return _INLINE, table.message(field.type)
    return (_MESSAGES if repeated else _MESSAGE), table.message(field.type)


class Decoder:
    """Decodes one body. Not to be used twice: it counts."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._depth = 0
        # Raises StopIteration when the body has used up its fields; a call of it costs less than counting here.
        self.spend: Spend = iter(range(FIELDS_MAX)).__next__

    def decode(self, message: table.Message, start: int, end: int) -> dict[str, Any]:
        """The object in the message that stands at a place.

        Raises Malformed, UnicodeDecodeError, IndexError or struct.error for what is cut off, StopIteration for more
        than FIELDS_MAX fields.
        """
        return self._message(message, start, end, {})

    def _message(self, message: table.Message, at: int, end: int, out: dict[str, Any]) -> dict[str, Any]:
        """Add a message's fields to `out`: protobuf merges a message that comes in parts."""
        plan = message.plan
        if plan is None:
            plan = message.plan = _plan_of(message)
        if self._depth >= DEPTH_MAX:
            raise Malformed(f"it is nested deeper than {DEPTH_MAX} messages")
        self._depth += 1
        data, spend, find = self._data, self.spend, plan.get
        while at < end:
            spend()
            key = data[at]
            at += 1
            if key >= 0x80:
                key, at = read_varint(data, at - 1)
            wire = key & 7
            found = find(key)
            if wire == BYTES:
                size = data[at]
                at += 1
                if size >= 0x80:
                    size, at = read_varint(data, at - 1)
                stop = at + size
                if stop > end:
                    raise Malformed(f"a field of {message.name} ends beyond it")
                if found is None:
                    _unknown(message, key)
                else:
                    name, how, unset_if_zero, argument = found
                    if how == _TEXT:
                        if size or not unset_if_zero:
                            out[name] = data[at:stop].decode()
                        else:
                            out.pop(name, None)
                    elif how == _MESSAGE:
                        out[name] = self._message(argument, at, stop, out.get(name) or {})
                    elif how == _MESSAGES:
                        out.setdefault(name, []).append(self._message(argument, at, stop, {}))
                    elif how == _TEXTS:
                        out.setdefault(name, []).append(data[at:stop].decode())
                    elif how == _MAP:
                        self._entry(argument, at, stop, out.setdefault(name, {}))
                    else:
                        self._rarer(message, key, found, at, stop, out)
                at = stop
            elif wire == VARINT:
                value, at = read_varint(data, at)
                self._number(message, key, found, value, out)
            else:
                value_at, at = at, skip_fixed(wire, at)
                self._number(message, key, found, read_double(data, value_at) if wire == FIXED64 else 0, out)
        if at != end:
            raise Malformed(f"{message.name} ends beyond what contains it")
        self._depth -= 1
        return out

    def _number(self, message: table.Message, key: int, found: Any, value: float, out: dict[str, Any]) -> None:
        if found is None:
            _unknown(message, key)
            return
        name, how, unset_if_zero, convert = found
        value = convert(value)
        if how == _PACKED:
            out.setdefault(name, []).append(value)
        elif value or not unset_if_zero:
            out[name] = value
        else:
            out.pop(name, None)

    def _rarer(self, message: table.Message, key: int, found: Any, at: int, stop: int, out: dict[str, Any]) -> None:
        name, how, unset_if_zero, argument = found
        if how == _INLINE:
            self._message(argument, at, stop, out)
        elif how == _SPECIAL:
            value = self._special(argument, at, stop)
            if value is not None:
                out[name] = value
        elif how == _SPECIALS:
            out.setdefault(name, []).append(self._special(argument, at, stop))
        elif how == _BASE64:
            if stop > at or not unset_if_zero:
                out[name] = base64.b64encode(self._data[at:stop]).decode()
        elif how == _BASE64S:
            out.setdefault(name, []).append(base64.b64encode(self._data[at:stop]).decode())
        elif how == _PACKED:
            out.setdefault(name, []).extend(self._packed(argument, at, stop))
        else:
            raise Malformed(f"{message.name}.{name} is of wire type {key & 7}")

    def _special(self, argument: Any, at: int, stop: int) -> Any:
        if not isinstance(argument, str):
            return argument(self._data, at, stop, self.spend)
        both = self._message(table.message(argument), at, stop, {})
        return both.get("schema", both.get("else", scalars.SCHEMA_OR_ELSE[argument]))

    def _packed(self, convert: Callable[[Any], Any], at: int, stop: int) -> list[Any]:
        values = []
        while at < stop:
            self.spend()
            if convert is float:
                values.append(read_double(self._data, at))
                at += 8
            else:
                value, at = read_varint(self._data, at)
                values.append(convert(value))
        if at != stop:
            raise Malformed("a packed list ends beyond its field")
        return values

    def _entry(self, kind: str, at: int, end: int, out: dict[str, Any]) -> None:
        """Add a map's entry, which is a message {key = 1, value = 2}."""
        data, key, value = self._data, "", None
        while at < end:
            self.spend()
            wire_key, at = read_varint(data, at)
            wire = wire_key & 7
            if wire == BYTES:
                start, at = span(data, at, end)
                if wire_key >> 3 == 1:
                    key = data[start:at].decode()
                elif wire_key >> 3 == 2:
                    value = self._entry_value(kind, start, at)
            elif wire == VARINT:
                number, at = read_varint(data, at)
                if wire_key >> 3 == 2 and kind in _NUMBERS:
                    value = _NUMBERS[kind](number)
            else:
                at = skip_fixed(wire, at)
        if at != end:
            raise Malformed("a map's entry ends beyond it")
        if value is None:
            value = _NUMBERS[kind](0) if kind in _NUMBERS else self._entry_value(kind, end, end)
        out[key] = value

    def _entry_value(self, kind: str, at: int, stop: int) -> Any:
        if kind == "string":
            return self._data[at:stop].decode()
        if kind == "bytes":
            return base64.b64encode(self._data[at:stop]).decode()
        if kind in scalars.SPECIAL:
            return scalars.SPECIAL[kind][0](self._data, at, stop, self.spend)
        if kind in scalars.SCHEMA_OR_ELSE:
            return self._special(kind, at, stop)
        if kind in table.SCALARS:
            raise Malformed(f"a map's value is not of type {kind}")
        return self._message(table.message(kind), at, stop, {})


def _unknown(message: table.Message, key: int) -> None:
    """Pass over a field that the table does not have (it is a newer client's); raise for one of the wrong type."""
    number = key >> 3
    if number == 0:
        raise Malformed(f"{message.name} has a field number 0")
    for field in message.fields:
        if field.number == number:
            raise Malformed(f"{message.name}.{field.name} is of wire type {key & 7}")
