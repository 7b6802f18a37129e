"""What each function and operator costs, and how large what it gives is: cel-go's own and Kubernetes' libraries. Pure.

`call_costs` is the way in. Whatever cannot be told apart by what is known of its arguments' types has several costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from machinery.cel import tree
from machinery.cel.shapes import INFINITE, UNKNOWN, Range, Shape, exactly

TEXT, _PATTERN = 0.1, 0.25
"""Per character of a text that is read, and of a regular expression."""
LIST, MAP, STRUCT = exactly(10), exactly(30), exactly(40)
FREE, ONE = exactly(0), exactly(1)
_ADDRESS = Range(4, 16)
"""Bytes of an IP address."""
_FORMAT_PATTERN = 128

_NOMINAL = frozenset(
    (
        "serviceAccount", "path", "group", "resource", "subresource", "namespace", "name", "allowed", "reason", "error",
        "errored", "masked", "prefixLength", "family", "isUnspecified", "isLoopback", "isLinkLocalMulticast",
        "isLinkLocalUnicast", "isGlobalUnicast", "sign", "asInteger", "isInteger", "asApproximateFloat",
        "isGreaterThan", "isLessThan", "compareTo", "add", "sub", "major", "minor", "patch", "getScheme", "getHostname",
        "getHost", "getPort", "getEscapedPath", "getQuery", "format.named",
    )
)  # fmt: skip
_PARSERS = frozenset(("ip", "cidr", "isIP", "isCIDR", "quantity", "isQuantity", "semver", "isSemver"))
_SAME_SIZE = frozenset(("lowerAscii", "upperAscii", "substring", "trim"))
_ORDERINGS = frozenset(("_<_", "_<=_", "_>_", "_>=_"))
_CHECK = exactly(350_000)
"""An authorization check: no more than two in an expression."""


@dataclass(frozen=True, slots=True)
class Entries:
    """Sizes of the keys and values of a list or map that the expression makes."""

    kind: str
    key: Range
    value: Range

    def union(self, other: Entries) -> Entries:
        """Either's."""
        return Entries(self.kind, self.key.union(other.key), self.value.union(other.value))


@dataclass(frozen=True, slots=True)
class Value:
    """A node's value. `path` leads to it from a variable, empty if it is made by the expression; `size` is None if
    nothing is known."""

    cost: Range
    shape: Shape
    path: tuple[str, ...] = ()
    size: Range | None = None
    entries: Entries | None = None

    @property
    def length(self) -> Range:
        """How large it may be."""
        return UNKNOWN if self.size is None else self.size


Costs = list[tuple[Range, Range | None]]
"""(cost, size of the result) for each of the functions that a call may turn out to be."""
ItemOf = Callable[[Value], tuple[Shape, Range] | None]
"""The type and the size of the items of a list, the keys of a map."""


def call_costs(node: tree.Call, target: Value | None, given: list[Value], item_of: ItemOf) -> Costs:
    """What a call costs together with its arguments."""
    spent = total([one.cost for one in given])
    if (known := _library(node, target, given, item_of)) is not None:
        return [(cost.plus(spent), size) for cost, size in known]
    return _standard(node.function, target, given, spent)


def _library(node: tree.Call, target: Value | None, given: list[Value], item_of: ItemOf) -> Costs | None:
    """The functions of Kubernetes' own libraries; None for all others."""
    name = node.function
    if name in _NOMINAL or (name == "ip" and target is not None):
        return [(ONE, None)]
    if name == "check":
        return [(_CHECK, None)]
    if name in ("fieldSelector", "labelSelector") and len(given) == 1:
        length = given[0].length
        requirements = length.scaled(0.5).scaled(float(LIST.most + STRUCT.most))
        return [(total([LIST, length.scaled(TEXT), requirements]), None)]
    if name.startswith("sets.") and len(given) == 2:
        factor = 2.0 if name == "sets.equivalent" else 1.0
        return [(given[0].length.times(given[1].length).scaled(factor).plus(ONE), None)]
    if name == "lists.range" and len(given) == 1:
        return [_made(1, exactly(_whole(node.arguments[0], INFINITE)))]
    if name in ("url", "jsonpatch.escapeKey") and len(given) == 1:
        return [(given[0].length.scaled(TEXT), given[0].length)]
    if name in _PARSERS and given:
        return [(given[0].length.scaled(TEXT), None)]
    if name == "ip.isCanonical" and given:
        return [(given[0].length.scaled(2 * TEXT), None)]
    if name == "validate" and given:
        return [(given[0].length.scaled(TEXT).scaled(_FORMAT_PATTERN * _PATTERN), None)]
    if name == "_==_":
        return _equal(given)
    return None if target is None else _member(node, target, given, item_of)


def _member(node: tree.Call, target: Value, given: list[Value], item_of: ItemOf) -> Costs | None:
    name, length = node.function, target.length
    if name in ("isSorted", "sum", "max", "min", "indexOf", "lastIndexOf"):
        item = item_of(target)
        if item is None:
            return [(length.scaled(TEXT), None)]
        each = ONE.plus(item[1].scaled(TEXT)) if item[0].kind in ("string", "bytes") else ONE
        return [(length.times(each), None)]
    if name in _SAME_SIZE:
        return [(length.scaled(TEXT), length)]
    if name == "replace" and len(given) >= 2:
        return [(length.scaled(2 * TEXT), _replaced(length, given[0].length, given[1].length))]
    if name == "split":
        most = _whole(node.arguments[1], length.most) if len(given) > 1 else length.most
        return [(length.scaled(2 * TEXT), Range(0, most))]
    if name == "join":
        item = item_of(target)
        size = length.times(item[1]) if item else FREE
        if given:
            between = Range(max(length.least - 1, 0), max(length.most - 1, 0))
            size = size.plus(given[0].length.times(between))
        return [(size.scaled(TEXT), size)]
    if name in ("find", "findAll") and given:
        text = length.plus(ONE).scaled(TEXT)
        return [(text.times(given[0].length.scaled(_PATTERN)), Range(0, length.most))]
    if name in ("containsIP", "containsCIDR") and given:
        return _contained(name, given[0])
    return _listed(node, target, given)


def _standard(name: str, target: Value | None, given: list[Value], spent: Range) -> Costs:
    """CEL's own functions and operators; `spent` is what their arguments cost."""
    lengths = [one.length for one in given]
    match name, target, len(given):
        case (("_&&_" | "_||_"), _, 2):
            return [(Range(given[0].cost.least, spent.most), None)]
        case "_?_:_", _, 3:
            cost = given[0].cost.plus(given[1].cost.union(given[2].cost))
            return [(cost, lengths[1].union(lengths[2]))]
        case "_+_", _, 2:
            return _added([one.shape.kind for one in given], lengths[0].plus(lengths[1]), spent)
        case (("_==_" | "_!=_"), _, 2):
            return [(_compared(lengths).plus(spent), None)]
        case _, None, 2 if name in _ORDERINGS:
            kinds = {one.shape.kind for one in given}
            sized, plain = (_compared(lengths).plus(spent), None), (spent.plus(ONE), None)
            if kinds & {"string", "bytes"}:
                return [sized]
            return [sized, plain] if kinds == {"dyn"} else [plain]
        case "@in", _, 2:
            in_list, in_map = (lengths[1].plus(spent), None), (spent.plus(ONE), None)
            kind = given[1].shape.kind
            return [in_list] if kind == "list" else [in_map] if kind == "map" else [in_list, in_map]
        case (("startsWith" | "endsWith"), _, 1):
            return [(lengths[0].scaled(TEXT).plus(spent), None)]
        case "matches", Value(), 1:
            cost = target.length.plus(ONE).scaled(TEXT).times(lengths[0].scaled(_PATTERN))
            return [(cost.plus(spent), None)]
        case "contains", Value(), 1:
            return [(target.length.scaled(TEXT).times(lengths[0].scaled(TEXT)).plus(spent), None)]
        case "format", Value(), _:
            return [(target.length.scaled(TEXT).plus(spent), None)]
        case "strings.quote", _, 1:
            made = Range(lengths[0].least + 2, min(lengths[0].most * 2 + 2, INFINITE))
            return [(lengths[0].scaled(TEXT).plus(spent), made)]
        case "bytes", _, 1 if given[0].shape.kind == "string":
            made = Range(lengths[0].least, lengths[0].most * 4 & INFINITE)
            return [(lengths[0].scaled(TEXT).plus(spent), made)]
        case "string", _, 1 if given[0].shape.kind == "bytes":
            return [(lengths[0].scaled(TEXT).plus(spent), Range(lengths[0].least // 4, lengths[0].most))]
    return [(spent.plus(ONE), None)]


def _added(kinds: list[str], size: Range, spent: Range) -> Costs:
    texts: tuple[Range, Range | None] = (size.scaled(TEXT).plus(spent), size)
    lists: tuple[Range, Range | None] = (spent.plus(ONE), size)
    numbers: tuple[Range, Range | None] = (spent.plus(ONE), None)
    if "string" in kinds or "bytes" in kinds:
        return [texts]
    if "list" in kinds:
        return [lists]
    return [texts, lists, numbers] if set(kinds) == {"dyn"} else [numbers]


def _compared(lengths: list[Range]) -> Range:
    """Comparing reads the shorter one."""
    shorter = min(lengths[0].most, lengths[1].most)
    return Range(min(shorter, 1), shorter).scaled(TEXT)


def _equal(given: list[Value]) -> Costs | None:
    kinds = {one.shape.kind for one in given}
    if len(given) != 2 or len(kinds) != 1:
        return None
    if kinds <= {"ip", "cidr", "quantity", "semver"}:
        return [(ONE, None)]
    if kinds == {"url"}:
        return [(Range(1, given[1].size.most if given[1].size else 1).scaled(TEXT), None)]
    return None


def _contained(name: str, other: Value) -> Costs:
    cost = _ADDRESS.plus(_ADDRESS).scaled(TEXT)
    if name == "containsCIDR":
        cost = total([cost, _ADDRESS.scaled(TEXT), ONE])
    parsed: tuple[Range, Range | None] = (cost.plus(other.length.scaled(TEXT)), None)
    match other.shape.kind:
        case "string":
            return [parsed]
        case "dyn":
            return [(cost, None), parsed]
    return [(cost, None)]


def _listed(node: tree.Call, target: Value, given: list[Value]) -> Costs | None:
    """The functions that make lists of lists."""
    if target.shape.kind not in ("list", "dyn"):
        return None
    length, squared = target.length, target.length.times(target.length)
    match node.function, len(given):
        case "slice", 2:
            first, last = _whole(node.arguments[0], 0), _whole(node.arguments[1], length.most)
            return [_made(1, exactly((last - first) & INFINITE))]
        case "reverse", 0 if target.shape.kind == "list":
            return [_made(1, length)]
        case "flatten", 0:
            return [_made(1, length)]
        case "flatten", 1:
            return [_made(_whole(node.arguments[0], INFINITE), length)]
        case "distinct", 0:
            return [_made(2, squared)]
        case "sort", 0:
            text = target.shape.item is not None and target.shape.item.kind in ("string", "bytes")
            return [_made(2 + TEXT if text else 2, squared)]
    return None


def _made(factor: float, size: Range) -> tuple[Range, Range | None]:
    return size.scaled(float(factor)).plus(ONE).plus(LIST), size


def _replaced(text: Range, old: Range, new: Range) -> Range:
    """The size of a text in which one part is replaced by another wherever it is found."""
    if old.least == 0:
        most = min((text.most + 1) * new.most + text.most, INFINITE)
    elif new.most <= old.least:
        most = text.most
    else:
        most = min(_ceil_ratio(text.most, old.least) * new.most, INFINITE)
    if old.most == 0:
        least = (text.least + 1) * new.least + text.least
    elif old.most <= new.least:
        least = text.least
    else:
        least = _ceil_ratio(text.least, old.most) * new.least
    return Range(min(least, INFINITE), most)


def _ceil_ratio(over: int, under: int) -> int:
    return Range(over, over).scaled(1.0 / under).most if over >= INFINITE else -(-over // under)


def _whole(node: tree.Node, otherwise: int) -> int:
    """A literal number, not below zero."""
    if isinstance(node, tree.Const) and node.kind == "int" and isinstance(node.value, int):
        return max(node.value, 0)
    return otherwise


def total(costs: list[Range]) -> Range:
    """All of them."""
    spent = FREE
    for one in costs:
        spent = spent.plus(one)
    return spent
