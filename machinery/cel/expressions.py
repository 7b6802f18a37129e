"""CEL as Kubernetes speaks it: the C++ implementation with Kubernetes' function libraries (`library`).

One environment a set of variable names, made when first asked for (0.1 s and some megabytes, so a cluster without rules
pays nothing). Values are plain JSON values; whoever has a schema gives typed ones.
"""

from __future__ import annotations

import functools
from typing import Any

from machinery.cel import costs, parts, sizes, tree
from machinery.cel.errors import CelError, TooManyRounds

EXPRESSION_BYTES_MAX = 16 * 1024
"""A longer rule is refused: nothing real comes near."""


class Program:
    """A compiled expression. `evaluate` may be called any number of times."""

    __slots__ = ("_costs", "_expression", "_input_bytes_max", "_variables", "source")

    def __init__(self, expression: Any, source: str, variables: tuple[str, ...]) -> None:
        self._expression = expression
        self._variables = variables
        self._input_bytes_max = sizes.input_bytes_max(self.tree)
        self._costs: dict[int, int] = {}
        self.source = source

    @property
    def type_name(self) -> str:
        """The type that the checker gave the expression: bool, string, dyn …"""
        return str(self._expression.return_type().name())

    @property
    def tree(self) -> tree.Node:
        """The expression's syntax tree."""
        return tree.parse(self._expression.serialize())

    def cost_within(self, room: int) -> int:
        """What an evaluation costs at most over any values of so many bytes (remembered: ask for powers of two)."""
        if room not in self._costs:
            self._costs[room] = costs.measure(self.tree, {}, room)
        return self._costs[room]

    def evaluate(self, variables: dict[str, Any]) -> Any:
        """The value. CelError if evaluation fails: a missing key, an overflow, a function's own error; or if it could
        make values that are too large."""
        most = self._input_bytes_max
        if most < sizes.INPUT_BYTES_MAX and sizes.deep_size(variables, most) > most:
            raise CelError("the expression could make values too large for objects of this size")
        try:
            return self._once(variables)
        except TooManyRounds:
            loop = parts.whole_loop(self.source)
            if loop is None:
                raise
            part = compile(loop.source, (*self._variables, parts.ITEMS))
            return parts.evaluate(loop, variables, part._once)

    def _once(self, variables: dict[str, Any]) -> Any:
        """The value, if the engine's rounds are enough for it. Raises TooManyRounds otherwise."""
        try:
            value = self._expression.eval(data=variables)
        except (RuntimeError, ValueError, TypeError) as error:
            raise _failure(str(error)) from error
        if value.type().name() in ("ERROR", "*error*", "error"):
            raise _failure(str(value.value()))
        return value.plain_value()


@functools.lru_cache(maxsize=64)
def _environment(variables: tuple[str, ...]) -> Any:
    from cel_expr_python import cel

    return cel.NewEnv(variables=dict.fromkeys(variables, cel.Type.DYN), **extensions())


@functools.cache
def extensions() -> dict[str, Any]:
    """The functions that every environment has, as `cel.NewEnv` takes them: made once, which is most of the work."""
    from cel_expr_python.ext import ext_bindings, ext_encoders, ext_math, ext_optional, ext_strings

    from machinery.cel import authorization, library

    return {
        "extensions": [
            ext_bindings.ExtBindings(),
            ext_encoders.ExtEncoders(),
            ext_math.ExtMath(),
            ext_optional.ExtOptional(),
            ext_strings.ExtStrings(),
        ],
        "functions": [*library.declarations(), *authorization.declarations()],
    }


@functools.lru_cache(maxsize=4096)
def compile(source: str, variables: tuple[str, ...] = ("self", "oldSelf")) -> Program:
    """A program over the named variables, all of dynamic type. CelError says where the expression is wrong."""
    if len(source.encode()) > EXPRESSION_BYTES_MAX:
        raise CelError(f"expression is longer than {EXPRESSION_BYTES_MAX} bytes")
    try:
        expression = _environment(variables).compile(source)
    except (RuntimeError, ValueError, TypeError) as error:
        raise CelError("compilation failed: " + message_of(str(error))) from error
    return Program(expression, source, variables)


def _failure(text: str) -> CelError:
    if "Iteration budget exceeded" in text:
        return TooManyRounds()
    return CelError(_first_line(text))


def _first_line(text: str) -> str:
    """`no such key: name` as Kubernetes' CEL words what the C++ one calls `Key not found in map : "name"`."""
    text = text.split("\n", 1)[0]
    status, colon, rest = text.partition(": ")
    if colon and status.isupper():
        text = rest
    if text.startswith("Key not found in map : "):
        text = "no such key: " + text.removeprefix("Key not found in map : ").strip('"')
    return text


def message_of(text: str) -> str:
    """The checker's complaint without its status."""
    return text.replace("INVALID_ARGUMENT: ", "").replace(" [INVALID_ARGUMENT]", "").strip()
