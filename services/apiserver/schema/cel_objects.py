"""Kubernetes' typed objects in CEL, `Object.spec{replicas: 3}` and `JSONPatch{op: "add", …}`, as the maps that they
stand for: `{"replicas": 3}`.

Which fields a type has is judged by the schema of what they are merged into (`admission/mutations.py`), so the types
need not exist for the CEL library.
"""

from __future__ import annotations

import functools
import re

_TOKEN = re.compile(
    r"""
    (?P<string>[rRbB]{0,2}(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
  | (?P<comment>//[^\n]*)
  | (?P<type>(?:Object(?:\s*\.\s*[A-Za-z_]\w*)*|JSONPatch)(?=\s*\{))
  | (?P<name>[A-Za-z_]\w*)
  | (?P<space>\s+)
  | (?P<mark>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = {"__dot__": ".", "__dash__": "-", "__slash__": "/", "__underscores__": "__"}


@functools.lru_cache(maxsize=1024)
def as_maps(source: str) -> str:
    """The expression with every typed literal as a map. What is no CEL is left for the compiler to refuse."""
    out: list[str] = []
    # What each open bracket is: "typed" for the braces of a typed literal.
    open_brackets: list[str] = []
    # The last token that counts, and whether the next brace opens a typed literal.
    before, typed = "", False
    for token in _TOKEN.finditer(source):
        kind, text = token.lastgroup, token[0]
        if kind in ("space", "comment"):
            out.append(text)
            continue
        if kind == "type" and before != ".":
            typed = True
            before = text
            continue
        if text == "{" and kind == "mark":
            open_brackets.append("typed" if typed else text)
            typed = False
        elif kind == "mark" and text in "([":
            open_brackets.append(text)
        elif kind == "mark" and text in ")]}" and open_brackets:
            open_brackets.pop()
        elif kind == "name" and open_brackets[-1:] == ["typed"] and before in ("{", ",", "{?", ",?"):
            text = f'"{_field(text)}"'
        out.append(text)
        # An optional field: `{?name: …}`.
        before = before + "?" if text == "?" and before in ("{", ",") else text
    return "".join(out)


def _field(name: str) -> str:
    """A field's name as the object has it: reserved words and odd characters are escaped in CEL."""
    for escape, plain in _ESCAPED.items():
        name = name.replace(escape, plain)
    return name[2:-2] if name.startswith("__") and name.endswith("__") and len(name) > 4 else name
