"""What is known of the values of an expression before it is evaluated: their types, and how large they may be. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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


class Values(Shape):
    """The shape of values at hand, all as often; looked at only where an expression looks. Items of lists, and values
    of maps, are of their mean size: together they cost what they cost one by one."""

    __slots__ = ("_values",)
    _values: Sequence[Any]

    def __init__(self, values: Sequence[Any]) -> None:
        # As frozen as what it is a kind of.
        object.__setattr__(self, "_values", values)

    @property
    def kind(self) -> str:
        kinds = {_kind_of(value) for value in self._values}
        return kinds.pop() if len(kinds) == 1 else "dyn"

    @property
    def elements_max(self) -> int:
        sizes = [len(value) for value in self._values if hasattr(value, "__len__")]
        return -(-sum(sizes) // len(self._values)) if sizes else 0

    @property
    def item(self) -> Shape | None:
        return _all(part for value in self._values for part in _parts(value))

    @property
    def key(self) -> Shape | None:
        return _all(name for value in self._values if isinstance(value, Mapping) for name in value)

    @property
    def fields(self) -> Mapping[str, Shape]:
        return _Fields(self._values)


class _Fields(Mapping[str, Shape]):
    """The fields of values that are maps, by name."""

    def __init__(self, values: Sequence[Any]) -> None:
        self._maps = [value for value in values if isinstance(value, Mapping)]

    def __getitem__(self, name: str) -> Shape:
        found = _all(value[name] for value in self._maps if name in value)
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter({name: None for value in self._maps for name in value})

    def __len__(self) -> int:
        return len({name for value in self._maps for name in value})


def _all(values: Iterable[Any]) -> Shape | None:
    found = list(values)
    return Values(found) if found else None


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _kind_of(value: Any) -> str:
    if isinstance(value, Mapping):
        return "map"
    return _KINDS.get(type(value)) or type(value).__name__.lower()


_KINDS: dict[type, str] = {
    type(None): "null", bool: "bool", int: "int", float: "double", str: "string", bytes: "bytes", list: "list",
    tuple: "list",
}  # fmt: skip


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
