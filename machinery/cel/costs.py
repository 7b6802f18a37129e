"""What evaluating an expression costs at most, estimated from its tree and the bounds of its variables. Pure.

    estimate(tree, Shape("string", elements_max=400))       # Range(least=…, most=…)

Kubernetes decides by this number which rules may stand in a CustomResourceDefinition, so that the estimate has to agree
with upstream's to the unit, where it is generous and where it is strict alike: items of a list that the expression
itself made count as long as the *root* value is, what `map` made and `join` puts together counts as endless.
Sources: cel-go's checker/cost.go, Kubernetes' k8s.io/apiserver/pkg/cel/library/cost.go. Units: a step of about 50 ns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from machinery.cel import shapes, tree
from machinery.cel.shapes import BOOL, DYN, INFINITE, INT, UNKNOWN, Range, Shape, exactly

PER_CALL_MAX = 1_000_000
"""What one evaluation may cost: about 0.1 s."""
PER_OBJECT_MAX = 10_000_000
"""What all evaluations over one object, or of one policy, may cost together."""
MATCH_CONDITIONS_MAX = PER_OBJECT_MAX // 4
"""What all match conditions of one webhook or policy may cost together."""

_TEXT, _PATTERN = 0.1, 0.25
"""Per character of a text that is read, and of a regular expression."""
_LIST, _MAP, _STRUCT = exactly(10), exactly(30), exactly(40)
_FREE, _ONE = exactly(0), exactly(1)
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
class _Entries:
    """Sizes of the keys and values of a list or map that the expression makes."""

    kind: str
    key: Range
    value: Range

    def union(self, other: _Entries) -> _Entries:
        return _Entries(self.kind, self.key.union(other.key), self.value.union(other.value))


@dataclass(frozen=True, slots=True)
class _Value:
    """A node's value. `path` leads to it from a variable, empty if it is made by the expression; `size` is None if
    nothing is known."""

    cost: Range
    shape: Shape
    path: tuple[str, ...] = ()
    size: Range | None = None
    entries: _Entries | None = None

    @property
    def length(self) -> Range:
        return UNKNOWN if self.size is None else self.size


_Scope = Mapping[str, _Value]


def estimate(expression: tree.Node, root: Shape | None, others: Mapping[str, Shape] | None = None) -> Range:
    """What an expression over `self` and `oldSelf` of one shape costs. `others` are the shapes of variables that have
    another one (an optional `oldSelf`), or of all of them if there is no root."""
    return _Estimate(root, others or {}).of(expression, {}).cost


def measure(expression: tree.Node, variables: Mapping[str, Shape], room: int) -> int:
    """What an expression costs over values at hand (`shapes.Values`), if nothing is cut short: an `all` that finds
    its first false, a condition's cheaper branch. What the expression makes counts as large as it really is.

    `room` is the size of all values together (`sizes.deep_size`): nothing that comes out of them is larger. Variables
    that are not among them may be anything of that size.
    """
    return _Estimate(None, variables, Range(0, room)).of(expression, {}).cost.most


class _Estimate:
    def __init__(self, root: Shape | None, others: Mapping[str, Shape], whole: Range = UNKNOWN) -> None:
        self._root = root
        self._others = others
        # Whatever an expression takes out of values at hand is no larger than all of them.
        self._whole = whole

    def of(self, node: tree.Node, scope: _Scope) -> _Value:
        value = self._of(node, scope)
        if value.size is None and self._at_hand:
            return replace(value, size=_ONE if value.shape.kind == "type" else self._whole)
        return value

    def _of(self, node: tree.Node, scope: _Scope) -> _Value:
        match node:
            case tree.Const():
                return _Value(_FREE, Shape(node.kind), size=exactly(node.size))
            case tree.Ident():
                return self._ident(node.name, scope)
            case tree.Select():
                return self._select(node, scope)
            case tree.List():
                return self._list(node, scope)
            case tree.Struct():
                return self._struct(node, scope)
            case tree.Loop():
                return self._bind(node, scope) if node.is_binding else self._loop(node, scope)
        return self._call(node, scope)

    def _ident(self, name: str, scope: _Scope) -> _Value:
        local = scope.get(name)
        if local is not None:
            size = self._declared(local.path) or _size_of(local.shape) or local.size
            return replace(local, cost=_ONE, size=size)
        shape = self._others.get(name, self._root) or DYN
        return _Value(_ONE, shape, (name,), self._declared((name,)) or _size_of(shape))

    def _declared(self, path: tuple[str, ...]) -> Range | None:
        """The bounds that the shapes set what a path leads to. One that begins in no variable begins in the root."""
        if not path:
            return None
        here = self._others.get(path[0], self._root)
        for name in path[1:]:
            if here is None:
                return None
            match name:
                case "@items" | "@values":
                    here = here.item
                case "@keys":
                    here = here.key
                case _:
                    here = here.fields.get(name)
        return None if here is None else Range(0, here.elements_max)

    @property
    def _at_hand(self) -> bool:
        return self._whole != UNKNOWN

    def _select(self, node: tree.Select, scope: _Scope) -> _Value:
        operand = self.of(node.operand, scope)
        if node.test:
            return _Value(operand.cost, BOOL, size=_ONE)
        cost = operand.cost.plus(_ONE) if operand.shape.kind in ("map", "object") else operand.cost
        holder = operand.shape.item or DYN if operand.shape.kind == "optional" else operand.shape
        shape = holder.fields.get(node.field) or (holder.item if holder.kind == "map" else None) or DYN
        if operand.shape.kind == "optional":
            shape = Shape("optional", shape)
        path = (*operand.path, node.field)
        return _Value(cost, shape, path, self._declared(path) or _size_of(shape))

    def _list(self, node: tree.List, scope: _Scope) -> _Value:
        items = [self.of(item, scope) for item in node.items]
        cost = _sum([item.cost for item in items]).plus(_LIST)
        shape = items[0].shape if items else None
        for item in items[1:]:
            shape = item.shape if shape is not None and shape.kind == item.shape.kind else DYN
        entries = _Entries("list", _ONE, _span([item.length for item in items]))
        return _Value(cost, shapes.list_of(shape), size=exactly(len(items)), entries=entries)

    def _struct(self, node: tree.Struct, scope: _Scope) -> _Value:
        pairs = [(self.of(key, scope) if key else None, self.of(value, scope)) for key, value in node.entries]
        cost = _sum([one.cost for pair in pairs for one in pair if one is not None])
        if node.name:
            return _Value(cost.plus(_STRUCT), Shape("object"))
        keys, values = [key for key, _ in pairs if key], [value for _, value in pairs]
        entries = _Entries("map", _span([one.length for one in keys]), _span([one.length for one in values]))
        shape = Shape("map", values[0].shape if values else None, keys[0].shape if keys else None)
        return _Value(cost.plus(_MAP), shape, size=exactly(len(pairs)), entries=entries)

    def _bind(self, node: tree.Loop, scope: _Scope) -> _Value:
        first = self.of(node.first, scope)
        result = self.of(node.result, {**scope, node.accumulated: first})
        return replace(result, cost=_sum([_LIST, first.cost, result.cost]), path=())

    def _loop(self, node: tree.Loop, scope: _Scope) -> _Value:
        over, first = self.of(node.over, scope), self.of(node.first, scope)
        inner = {**scope, node.accumulated: first, **_variables(node, over)}
        condition, step = self.of(node.condition, inner), self.of(node.step, inner)
        gathered = replace(first, shape=shapes.either(first.shape, step.shape))
        result = self.of(node.result, {**scope, node.accumulated: gathered})
        rounds = over.length.times(step.cost.plus(condition.cost))
        cost = _sum([over.cost, first.cost, result.cost, rounds])
        if isinstance(node.first, tree.List | tree.Struct):
            return _Value(cost, result.shape, size=over.length, entries=step.entries)
        size = first.size if isinstance(node.first, tree.Const) else _size_of(result.shape)
        return _Value(cost, result.shape, size=size)

    def _call(self, node: tree.Call, scope: _Scope) -> _Value:
        given = [self.of(one, scope) for one in node.arguments]
        if node.function == "dyn":
            return replace(given[0], cost=given[0].cost.plus(_ONE), shape=DYN, path=())
        target = self.of(node.target, scope) if node.target is not None else None
        kinds = tuple(one.shape for one in ([target] if target else []) + given)
        named = node.arguments[-1] if node.function == "_?._" else None
        shape = shapes.result_of(node.function, kinds, str(named.value) if isinstance(named, tree.Const) else "")
        costs = self._costs(node, target, given)
        cost = costs[0][0]
        sizes = [size for _, size in costs if size is not None]
        for other, _ in costs[1:]:
            cost = cost.union(other)
        size = sizes[0] if sizes else None
        for other in sizes[1:]:
            size = other if size is None else size.union(other)
        path: tuple[str, ...] = ()
        entries = _entries(node.function, given)
        if self._at_hand and node.function in ("split", "findAll"):
            # So many parts are of a character each.
            entries = _Entries("list", _ONE, Range(0, 1))
        if node.function == "_[_]":
            step = "@items" if given[0].shape.kind == "list" else "@values"
            path = (*given[0].path, step)
            size = given[0].entries.value if given[0].entries else None
        if size is None:
            size = self._declared(path) or _size_of(shape)
        return _Value(target.cost.plus(cost) if target else cost, shape, path, size, entries)

    def _costs(self, node: tree.Call, target: _Value | None, given: list[_Value]) -> list[tuple[Range, Range | None]]:
        """(cost, size of the result) for each of the functions that a call may turn out to be."""
        spent = _sum([one.cost for one in given])
        if (known := self._library(node, target, given)) is not None:
            return [(cost.plus(spent), size) for cost, size in known]
        return _standard(node.function, target, given, spent)

    def _item_of(self, value: _Value) -> tuple[Shape, Range] | None:
        """The type and the size of the items of a list, the keys of a map."""
        held = {"list": value.shape.item, "map": value.shape.key, "optional": value.shape.item}.get(value.shape.kind)
        if held is None:
            return None
        size = self._declared((*value.path, "@items")) if value.path else None
        if size is None and self._at_hand and value.entries is not None:
            size = value.entries.value
        return held, self._whole if size is None else size

    def _library(
        self, node: tree.Call, target: _Value | None, given: list[_Value]
    ) -> list[tuple[Range, Range | None]] | None:
        """The functions of Kubernetes' own libraries; None for all others."""
        name = node.function
        if name in _NOMINAL or (name == "ip" and target is not None):
            return [(_ONE, None)]
        if name == "check":
            return [(_CHECK, None)]
        if name in ("fieldSelector", "labelSelector") and len(given) == 1:
            length = given[0].length
            requirements = length.scaled(0.5).scaled(float(_LIST.most + _STRUCT.most))
            return [(_sum([_LIST, length.scaled(_TEXT), requirements]), None)]
        if name.startswith("sets.") and len(given) == 2:
            factor = 2.0 if name == "sets.equivalent" else 1.0
            return [(given[0].length.times(given[1].length).scaled(factor).plus(_ONE), None)]
        if name == "lists.range" and len(given) == 1:
            return [_made(1, exactly(_whole(node.arguments[0], INFINITE)))]
        if name in ("url", "jsonpatch.escapeKey") and len(given) == 1:
            return [(given[0].length.scaled(_TEXT), given[0].length)]
        if name in _PARSERS and given:
            return [(given[0].length.scaled(_TEXT), None)]
        if name == "ip.isCanonical" and given:
            return [(given[0].length.scaled(2 * _TEXT), None)]
        if name == "validate" and given:
            return [(given[0].length.scaled(_TEXT).scaled(_FORMAT_PATTERN * _PATTERN), None)]
        if name == "_==_":
            return _equal(given)
        return None if target is None else self._member(node, target, given)

    def _member(self, node: tree.Call, target: _Value, given: list[_Value]) -> list[tuple[Range, Range | None]] | None:
        name, length = node.function, target.length
        if name in ("isSorted", "sum", "max", "min", "indexOf", "lastIndexOf"):
            item = self._item_of(target)
            if item is None:
                return [(length.scaled(_TEXT), None)]
            each = _ONE.plus(item[1].scaled(_TEXT)) if item[0].kind in ("string", "bytes") else _ONE
            return [(length.times(each), None)]
        if name in _SAME_SIZE:
            return [(length.scaled(_TEXT), length)]
        if name == "replace" and len(given) >= 2:
            return [(length.scaled(2 * _TEXT), _replaced(length, given[0].length, given[1].length))]
        if name == "split":
            most = _whole(node.arguments[1], length.most) if len(given) > 1 else length.most
            return [(length.scaled(2 * _TEXT), Range(0, most))]
        if name == "join":
            item = self._item_of(target)
            size = length.times(item[1]) if item else _FREE
            if given:
                between = Range(max(length.least - 1, 0), max(length.most - 1, 0))
                size = size.plus(given[0].length.times(between))
            return [(size.scaled(_TEXT), size)]
        if name in ("find", "findAll") and given:
            text = length.plus(_ONE).scaled(_TEXT)
            return [(text.times(given[0].length.scaled(_PATTERN)), Range(0, length.most))]
        if name in ("containsIP", "containsCIDR") and given:
            return _contained(name, given[0])
        return _listed(node, target, given)


def _variables(node: tree.Loop, over: _Value) -> dict[str, _Value]:
    """The variables of a loop's items."""
    kind = over.entries.kind if over.entries else over.shape.kind
    key_size = over.entries.key if over.entries else None
    value_size = over.entries.value if over.entries else None
    key = _Value(
        _ONE, INT if kind == "list" else over.shape.key or DYN,
        (*over.path, "@indices" if kind == "list" else "@keys"), key_size,
    )  # fmt: skip
    value = _Value(_ONE, over.shape.item or DYN, (*over.path, "@items" if kind == "list" else "@values"), value_size)
    if node.second:
        return {node.variable: key, node.second: value}
    return {node.variable: value if kind == "list" else key}


def _standard(name: str, target: _Value | None, given: list[_Value], spent: Range) -> list[tuple[Range, Range | None]]:
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
            sized, plain = (_compared(lengths).plus(spent), None), (spent.plus(_ONE), None)
            if kinds & {"string", "bytes"}:
                return [sized]
            return [sized, plain] if kinds == {"dyn"} else [plain]
        case "@in", _, 2:
            in_list, in_map = (lengths[1].plus(spent), None), (spent.plus(_ONE), None)
            kind = given[1].shape.kind
            return [in_list] if kind == "list" else [in_map] if kind == "map" else [in_list, in_map]
        case (("startsWith" | "endsWith"), _, 1):
            return [(lengths[0].scaled(_TEXT).plus(spent), None)]
        case "matches", _Value(), 1:
            cost = target.length.plus(_ONE).scaled(_TEXT).times(lengths[0].scaled(_PATTERN))
            return [(cost.plus(spent), None)]
        case "contains", _Value(), 1:
            return [(target.length.scaled(_TEXT).times(lengths[0].scaled(_TEXT)).plus(spent), None)]
        case "format", _Value(), _:
            return [(target.length.scaled(_TEXT).plus(spent), None)]
        case "strings.quote", _, 1:
            made = Range(lengths[0].least + 2, min(lengths[0].most * 2 + 2, INFINITE))
            return [(lengths[0].scaled(_TEXT).plus(spent), made)]
        case "bytes", _, 1 if given[0].shape.kind == "string":
            made = Range(lengths[0].least, lengths[0].most * 4 & INFINITE)
            return [(lengths[0].scaled(_TEXT).plus(spent), made)]
        case "string", _, 1 if given[0].shape.kind == "bytes":
            return [(lengths[0].scaled(_TEXT).plus(spent), Range(lengths[0].least // 4, lengths[0].most))]
    return [(spent.plus(_ONE), None)]


def _added(kinds: list[str], size: Range, spent: Range) -> list[tuple[Range, Range | None]]:
    texts: tuple[Range, Range | None] = (size.scaled(_TEXT).plus(spent), size)
    lists: tuple[Range, Range | None] = (spent.plus(_ONE), size)
    numbers: tuple[Range, Range | None] = (spent.plus(_ONE), None)
    if "string" in kinds or "bytes" in kinds:
        return [texts]
    if "list" in kinds:
        return [lists]
    return [texts, lists, numbers] if set(kinds) == {"dyn"} else [numbers]


def _compared(lengths: list[Range]) -> Range:
    """Comparing reads the shorter one."""
    shorter = min(lengths[0].most, lengths[1].most)
    return Range(min(shorter, 1), shorter).scaled(_TEXT)


def _equal(given: list[_Value]) -> list[tuple[Range, Range | None]] | None:
    kinds = {one.shape.kind for one in given}
    if len(given) != 2 or len(kinds) != 1:
        return None
    if kinds <= {"ip", "cidr", "quantity", "semver"}:
        return [(_ONE, None)]
    if kinds == {"url"}:
        return [(Range(1, given[1].size.most if given[1].size else 1).scaled(_TEXT), None)]
    return None


def _contained(name: str, other: _Value) -> list[tuple[Range, Range | None]]:
    cost = _ADDRESS.plus(_ADDRESS).scaled(_TEXT)
    if name == "containsCIDR":
        cost = _sum([cost, _ADDRESS.scaled(_TEXT), _ONE])
    parsed: tuple[Range, Range | None] = (cost.plus(other.length.scaled(_TEXT)), None)
    match other.shape.kind:
        case "string":
            return [parsed]
        case "dyn":
            return [(cost, None), parsed]
    return [(cost, None)]


def _listed(node: tree.Call, target: _Value, given: list[_Value]) -> list[tuple[Range, Range | None]] | None:
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
            return [_made(2 + _TEXT if text else 2, squared)]
    return None


def _made(factor: float, size: Range) -> tuple[Range, Range | None]:
    return size.scaled(float(factor)).plus(_ONE).plus(_LIST), size


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


def _entries(function: str, given: list[_Value]) -> _Entries | None:
    """What the entries of a call's value are known by: those of a sum and of a condition are either's."""
    sides = given[1:3] if function == "_?_:_" else given if function == "_+_" else []
    if len(sides) == 2 and sides[0].entries is not None and sides[1].entries is not None:
        return sides[0].entries.union(sides[1].entries)
    return None


def _size_of(shape: Shape) -> Range | None:
    return _ONE if shape.is_scalar else None


def _span(sizes: list[Range]) -> Range:
    if not sizes:
        return _FREE
    out = sizes[0]
    for one in sizes[1:]:
        out = out.union(one)
    return out


def _sum(costs: list[Range]) -> Range:
    total = _FREE
    for one in costs:
        total = total.plus(one)
    return total
