"""What evaluating an expression costs at most, estimated from its tree and the bounds of its variables. Pure.

    estimate(tree, Shape("string", elements_max=400))       # Range(least=…, most=…)

Kubernetes decides by this number which rules may stand in a CustomResourceDefinition, so that the estimate has to agree
with upstream's to the unit, where it is generous and where it is strict alike: items of a list that the expression
itself made count as long as the *root* value is, what `map` made and `join` puts together counts as endless.
Sources: cel-go's checker/cost.go, Kubernetes' k8s.io/apiserver/pkg/cel/library/cost.go. Units: a step of about 50 ns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from machinery.cel import shapes, tree
from machinery.cel.call_costs import FREE, LIST, MAP, ONE, STRUCT, Entries, Value, call_costs, total
from machinery.cel.shapes import BOOL, DYN, INT, UNKNOWN, Range, Shape, exactly

PER_CALL_MAX = 1_000_000
"""What one evaluation may cost: about 0.1 s."""
PER_OBJECT_MAX = 10_000_000
"""What all evaluations over one object, or of one policy, may cost together."""
MATCH_CONDITIONS_MAX = PER_OBJECT_MAX // 4
"""What all match conditions of one webhook or policy may cost together."""

_Scope = Mapping[str, Value]


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

    def of(self, node: tree.Node, scope: _Scope) -> Value:
        value = self._of(node, scope)
        if value.size is None and self._at_hand:
            return replace(value, size=ONE if value.shape.kind == "type" else self._whole)
        return value

    def _of(self, node: tree.Node, scope: _Scope) -> Value:
        match node:
            case tree.Const():
                return Value(FREE, Shape(node.kind), size=exactly(node.size))
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

    def _ident(self, name: str, scope: _Scope) -> Value:
        local = scope.get(name)
        if local is not None:
            size = self._declared(local.path) or _size_of(local.shape) or local.size
            return replace(local, cost=ONE, size=size)
        shape = self._others.get(name, self._root) or DYN
        return Value(ONE, shape, (name,), self._declared((name,)) or _size_of(shape))

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

    def _select(self, node: tree.Select, scope: _Scope) -> Value:
        operand = self.of(node.operand, scope)
        if node.test:
            return Value(operand.cost, BOOL, size=ONE)
        cost = operand.cost.plus(ONE) if operand.shape.kind in ("map", "object") else operand.cost
        holder = operand.shape.item or DYN if operand.shape.kind == "optional" else operand.shape
        shape = holder.fields.get(node.field) or (holder.item if holder.kind == "map" else None) or DYN
        if operand.shape.kind == "optional":
            shape = Shape("optional", shape)
        path = (*operand.path, node.field)
        return Value(cost, shape, path, self._declared(path) or _size_of(shape))

    def _list(self, node: tree.List, scope: _Scope) -> Value:
        items = [self.of(item, scope) for item in node.items]
        cost = total([item.cost for item in items]).plus(LIST)
        shape = items[0].shape if items else None
        for item in items[1:]:
            shape = item.shape if shape is not None and shape.kind == item.shape.kind else DYN
        entries = Entries("list", ONE, _span([item.length for item in items]))
        return Value(cost, shapes.list_of(shape), size=exactly(len(items)), entries=entries)

    def _struct(self, node: tree.Struct, scope: _Scope) -> Value:
        pairs = [(self.of(key, scope) if key else None, self.of(value, scope)) for key, value in node.entries]
        cost = total([one.cost for pair in pairs for one in pair if one is not None])
        if node.name:
            return Value(cost.plus(STRUCT), Shape("object"))
        keys, values = [key for key, _ in pairs if key], [value for _, value in pairs]
        entries = Entries("map", _span([one.length for one in keys]), _span([one.length for one in values]))
        shape = Shape("map", values[0].shape if values else None, keys[0].shape if keys else None)
        return Value(cost.plus(MAP), shape, size=exactly(len(pairs)), entries=entries)

    def _bind(self, node: tree.Loop, scope: _Scope) -> Value:
        first = self.of(node.first, scope)
        result = self.of(node.result, {**scope, node.accumulated: first})
        return replace(result, cost=total([LIST, first.cost, result.cost]), path=())

    def _loop(self, node: tree.Loop, scope: _Scope) -> Value:
        over, first = self.of(node.over, scope), self.of(node.first, scope)
        inner = {**scope, node.accumulated: first, **_variables(node, over)}
        condition, step = self.of(node.condition, inner), self.of(node.step, inner)
        gathered = replace(first, shape=shapes.either(first.shape, step.shape))
        result = self.of(node.result, {**scope, node.accumulated: gathered})
        rounds = over.length.times(step.cost.plus(condition.cost))
        cost = total([over.cost, first.cost, result.cost, rounds])
        if isinstance(node.first, tree.List | tree.Struct):
            return Value(cost, result.shape, size=over.length, entries=step.entries)
        size = first.size if isinstance(node.first, tree.Const) else _size_of(result.shape)
        return Value(cost, result.shape, size=size)

    def _call(self, node: tree.Call, scope: _Scope) -> Value:
        given = [self.of(one, scope) for one in node.arguments]
        if node.function == "dyn":
            return replace(given[0], cost=given[0].cost.plus(ONE), shape=DYN, path=())
        target = self.of(node.target, scope) if node.target is not None else None
        kinds = tuple(one.shape for one in ([target] if target else []) + given)
        named = node.arguments[-1] if node.function == "_?._" else None
        shape = shapes.result_of(node.function, kinds, str(named.value) if isinstance(named, tree.Const) else "")
        costs = call_costs(node, target, given, self._item_of)
        cost = _span([one for one, _ in costs])
        sizes = [size for _, size in costs if size is not None]
        size = _span(sizes) if sizes else None
        path: tuple[str, ...] = ()
        entries = _entries(node.function, given)
        if self._at_hand and node.function in ("split", "findAll"):
            # So many parts are of a character each.
            entries = Entries("list", ONE, Range(0, 1))
        if node.function == "_[_]":
            step = "@items" if given[0].shape.kind == "list" else "@values"
            path = (*given[0].path, step)
            size = given[0].entries.value if given[0].entries else None
        if size is None:
            size = self._declared(path) or _size_of(shape)
        return Value(target.cost.plus(cost) if target else cost, shape, path, size, entries)

    def _item_of(self, value: Value) -> tuple[Shape, Range] | None:
        """The type and the size of the items of a list, the keys of a map."""
        held = {"list": value.shape.item, "map": value.shape.key, "optional": value.shape.item}.get(value.shape.kind)
        if held is None:
            return None
        size = self._declared((*value.path, "@items")) if value.path else None
        if size is None and self._at_hand and value.entries is not None:
            size = value.entries.value
        return held, self._whole if size is None else size


def _variables(node: tree.Loop, over: Value) -> dict[str, Value]:
    """The variables of a loop's items."""
    kind = over.entries.kind if over.entries else over.shape.kind
    key_size = over.entries.key if over.entries else None
    value_size = over.entries.value if over.entries else None
    key = Value(
        ONE, INT if kind == "list" else over.shape.key or DYN,
        (*over.path, "@indices" if kind == "list" else "@keys"), key_size,
    )  # fmt: skip
    value = Value(ONE, over.shape.item or DYN, (*over.path, "@items" if kind == "list" else "@values"), value_size)
    if node.second:
        return {node.variable: key, node.second: value}
    return {node.variable: value if kind == "list" else key}


def _entries(function: str, given: list[Value]) -> Entries | None:
    """What the entries of a call's value are known by: those of a sum and of a condition are either's."""
    sides = given[1:3] if function == "_?_:_" else given if function == "_+_" else []
    if len(sides) == 2 and sides[0].entries is not None and sides[1].entries is not None:
        return sides[0].entries.union(sides[1].entries)
    return None


def _size_of(shape: Shape) -> Range | None:
    return ONE if shape.is_scalar else None


def _span(sizes: list[Range]) -> Range:
    if not sizes:
        return FREE
    out = sizes[0]
    for one in sizes[1:]:
        out = out.union(one)
    return out
