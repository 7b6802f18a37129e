"""Object literals of mutating admission policies, `Object.spec{replicas: 3}` and `JSONPatch{op: "add", …}`, as maps.

Kubernetes gives CEL a message type for each path below `Object`. Here such a literal becomes the map literal with the
same keys before it is compiled, `dyn({"replicas": 3})` (dynamic, so that two of them may be the branches of one
condition); that the types stand where the fields do is checked on the way.
Pure text to text. Source: KEP-3962.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from machinery.cel import CelError

OBJECT, JSON_PATCH = "Object", "JSONPatch"
_PATCH_FIELDS = frozenset(("op", "path", "from", "value"))
_TOKEN = re.compile(
    r"""
    (?P<text>[bBrR]{0,2}(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
  | (?P<comment>//[^\n]*)
  | (?P<name>[A-Za-z_]\w*(?:\s*\.\s*(?:[A-Za-z_]\w*|`[^`]+`))*|`[^`]+`)
  | (?P<number>\d[\w.]*)
  | (?P<open>[{(\[])
  | (?P<close>[})\]])
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = {"__dot__": ".", "__dash__": "-", "__slash__": "/", "__underscores__": "__"}
_OPENS_LITERAL = re.compile(r"\s*\{")


@dataclass(slots=True)
class _Open:
    """A bracket that is open. `type` is empty unless it is an object literal's; `field` is whose value is being read,
    empty while a field's name is due."""

    type: str = ""
    field: str = ""


@functools.lru_cache(maxsize=1024)
def as_maps(source: str) -> str:
    """The expression with its object literals as map literals. CelError if a literal's type is not the one that belongs
    to the field it is for, or a JSONPatch has a field that no JSON patch has."""
    out: list[str] = []
    open_brackets: list[_Open] = []
    next_type = ""
    for token in _TOKEN.finditer(source):
        text, inner = token[0], open_brackets[-1] if open_brackets else None
        if token["name"]:
            path = re.sub(r"\s|`", "", text)
            if inner is not None and inner.type and not inner.field:
                out.append(_field_name(inner, path))
                inner.field = path
            elif _is_type(path) and _OPENS_LITERAL.match(source, token.end()):
                next_type = path
                _check_place(path, open_brackets)
            else:
                out.append(text)
            continue
        if token["open"]:
            if next_type:
                out.append("dyn(")
            open_brackets.append(_Open(next_type))
            next_type = ""
        elif token["close"] and open_brackets:
            if open_brackets.pop().type:
                text += ")"
        elif text == "," and inner is not None and inner.type:
            inner.field = ""
        out.append(text)
    return "".join(out)


def _is_type(path: str) -> bool:
    return path in (OBJECT, JSON_PATCH) or path.startswith(OBJECT + ".")


def _field_name(literal: _Open, name: str) -> str:
    if literal.type == JSON_PATCH and name not in _PATCH_FIELDS:
        raise CelError(f"undefined field '{name}' of JSONPatch: it has {', '.join(sorted(_PATCH_FIELDS))}")
    return f'"{_plain(name)}"'


def _plain(name: str) -> str:
    """A field's name as the object has it: reserved words and odd characters are escaped in CEL."""
    for escape, plain in _ESCAPED.items():
        name = name.replace(escape, plain)
    return name[2:-2] if name.startswith("__") and name.endswith("__") and len(name) > 4 else name


def _check_place(path: str, open_brackets: list[_Open]) -> None:
    """A literal inside another one is of the type that belongs to that field."""
    around = next((bracket for bracket in reversed(open_brackets) if bracket.type), None)
    if around is None or around.type == JSON_PATCH or path == JSON_PATCH:
        return
    wanted = f"{around.type}.{around.field}"
    if path != wanted:
        raise CelError(
            f"type mismatch: unexpected type name {path!r}, expected {wanted!r}, which matches field path name"
        )
