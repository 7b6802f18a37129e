"""What is known of the values of an expression before it is evaluated: their types, and how large they may be. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

INFINITE = 2**64 - 1
"""A size or a cost without bound; sums and products stop here."""


class Range(NamedTuple):
    """The least and the most that a size or a cost can be."""

    least: int
    most: int

    def plus(self, other: Range) -> Range:
        """Both, one after the other."""
        return Range(min(self.least + other.least, INFINITE), min(self.most + other.most, INFINITE))

    def times(self, other: Range) -> Range:
        """As often as."""
        return Range(min(self.least * other.least, INFINITE), min(self.most * other.most, INFINITE))

    def scaled(self, factor: float) -> Range:
        """Times a number, rounded up."""
        return Range(_scaled(self.least, factor), _scaled(self.most, factor))

    def union(self, other: Range) -> Range:
        """Either."""
        return Range(min(self.least, other.least), max(self.most, other.most))


def _scaled(amount: int, factor: float) -> int:
    # The arithmetic is that of doubles, as upstream's: beyond 2**53 the last digits differ from exact numbers'.
    scaled = float(amount) * factor
    whole = int(scaled)
    return INFINITE if scaled >= 2.0**64 else whole + (scaled > whole)


def exactly(amount: int) -> Range:
    """One known amount."""
    return Range(amount, amount)


UNKNOWN = Range(0, INFINITE)


@dataclass(frozen=True, slots=True)
class Shape:
    """A type and its bounds.

    `kind` is one of bool, int, uint, double, string, bytes, duration, timestamp, null, type, dyn, list, map, object,
    optional, or a type of Kubernetes' libraries (ip, cidr, url, quantity, semver). `fields` of objects are named as
    expressions name them; `item` is what lists, maps (their values) and optionals hold, None if nothing is known.
    `elements_max` is characters, bytes, items or entries; `bytes_min` the least room in JSON.
    """

    kind: str
    item: Shape | None = None
    key: Shape | None = None
    fields: Mapping[str, Shape] = field(default_factory=dict)
    elements_max: int = 0
    bytes_min: int = 2

    @property
    def is_scalar(self) -> bool:
        """Whether values are all of one size."""
        if self.kind == "optional":
            return self.item is not None and self.item.is_scalar
        return self.kind in _SCALARS


class EveryName(Mapping[str, Shape]):
    """Fields of one shape, whatever they are called: entries of a map whose keys are no secret."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape

    def __getitem__(self, name: str) -> Shape:
        return self._shape

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


_SCALARS = frozenset(("bool", "int", "uint", "double", "duration", "timestamp"))
DYN = Shape("dyn")
BOOL, INT, UINT, DOUBLE, STRING, BYTES = (Shape(kind) for kind in ("bool", "int", "uint", "double", "string", "bytes"))


def list_of(item: Shape | None) -> Shape:
    """A list of unknown length."""
    return Shape("list", item)


def either(one: Shape, other: Shape) -> Shape:
    """The type of what is one or the other: the one of which more is known."""
    if one.kind != other.kind:
        return other if one.kind in ("dyn", "null") else one
    if one.kind == "list" and (one.item is None or one.item.kind == "dyn"):
        return other
    return one


def of_value(value: Any) -> Shape:
    """The shape of a value at hand. Items of a list, and values of a map, are of their mean size: together they cost
    what they cost one by one."""
    match value:
        case bool():
            return BOOL
        case int():
            return INT
        case float():
            return DOUBLE
        case str():
            return Shape("string", elements_max=len(value))
        case bytes():
            return Shape("bytes", elements_max=len(value))
        case Mapping():
            fields = {str(name): of_value(below) for name, below in value.items()}
            key = Shape("string", elements_max=-(-sum(map(len, fields)) // max(len(fields), 1)))
            return Shape("map", _mean(list(fields.values())), key, fields, len(fields))
        case list() | tuple():
            return Shape("list", _mean([of_value(item) for item in value]), elements_max=len(value))
    return Shape("null" if value is None else type(value).__name__.lower())


def _mean(shapes: list[Shape]) -> Shape | None:
    """The shape of what has one of these shapes, all as often."""
    if len(shapes) < 2:
        return shapes[0] if shapes else None
    kinds = {shape.kind for shape in shapes}
    named = {name for shape in shapes for name in shape.fields}
    items = [shape.item for shape in shapes if shape.item is not None]
    keys = [shape.key for shape in shapes if shape.key is not None]
    return Shape(
        kinds.pop() if len(kinds) == 1 else "dyn",
        _mean(items),
        _mean(keys),
        {name: _mean([shape.fields[name] for shape in shapes if name in shape.fields]) or DYN for name in named},
        -(-sum(shape.elements_max for shape in shapes) // len(shapes)),
    )


# What functions give, where it does not depend on what they are given. What is missing is dyn.
_GIVEN = {
    "bool": (
        "_==_ _!=_ _<_ _<=_ _>_ _>=_ _&&_ _||_ !_ @in @not_strictly_false matches contains startsWith endsWith "
        "isSorted sets.contains sets.equivalent sets.intersects isURL isIP ip.isCanonical isUnspecified isLoopback "
        "isLinkLocalUnicast isLinkLocalMulticast isGlobalUnicast isCIDR containsIP containsCIDR isQuantity isInteger "
        "isGreaterThan isLessThan isSemver hasValue allowed errored bool"
    ),
    "int": (
        "size indexOf lastIndexOf family prefixLength sign asInteger compareTo major minor patch int getFullYear "
        "getMonth getDayOfYear getDayOfMonth getDate getDayOfWeek getHours getMinutes getSeconds getMilliseconds"
    ),
    "uint": "uint",
    "double": "double asApproximateFloat",
    "string": (
        "lowerAscii upperAscii substring trim replace join charAt format strings.quote find jsonpatch.escapeKey "
        "getScheme getHost getHostname getPort getEscapedPath string reason error base64.encode"
    ),
    "bytes": "bytes base64.decode",
    "duration": "duration",
    "timestamp": "timestamp",
    "type": "type",
    "ip": "ip",
    "cidr": "cidr masked",
    "url": "url",
    "quantity": "quantity add sub",
    "semver": "semver",
}
_RESULTS = {function: Shape(kind) for kind, functions in _GIVEN.items() for function in functions.split()}
_RESULTS |= {name: list_of(STRING) for name in ("split", "findAll")}
_RESULTS |= {
    "getQuery": Shape("map", list_of(STRING), STRING),
    "lists.range": list_of(INT),
    "optional.none": Shape("optional"),
}
_OPTIONAL = frozenset(("optional.of", "optional.ofNonZeroValue", "_[?_]", "_?._"))


def result_of(function: str, given: tuple[Shape, ...], field_name: str = "") -> Shape:
    """The type of a call's value. `given` starts with a member function's target; `field_name` is what `_?._` asks
    for."""
    if (known := _RESULTS.get(function)) is not None:
        return known
    first = given[0] if given else DYN
    if function == "_?_:_":
        return either(given[1], given[2])
    if function in ("_[_]", "min", "max", "sum", "value", "orValue"):
        return _held(first)
    if function in _OPTIONAL:
        inner = _held(first) if function in ("_[?_]", "_?._") else first
        if function == "_?._":
            inner = (first.item or DYN if first.kind == "optional" else first).fields.get(field_name, inner)
        return Shape("optional", inner)
    if function in ("_+_", "_-_", "_*_", "_/_", "_%_"):
        kinds = {one.kind for one in given}
        if function == "_-_" and kinds == {"timestamp"}:
            return Shape("duration")
        return Shape("timestamp") if "timestamp" in kinds else either(*given[:2])
    if function in ("-_", "or", "slice", "reverse", "distinct", "sort", "flatten"):
        return first
    return DYN


def _held(shape: Shape) -> Shape:
    return (shape.item if shape.kind in ("list", "map", "optional") else None) or DYN
