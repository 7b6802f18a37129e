"""Whether a definition's names are free: within a group no two resources may share a plural, singular, short name, kind
or list kind. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_NO_CONFLICT = ("True", "NoConflicts", "no conflicts found")


def accepted(
    definition: dict[str, Any], others: Iterable[dict[str, Any]]
) -> tuple[dict[str, Any], tuple[str, str, str]]:
    """(acceptedNames, (status, reason, message) of the condition NamesAccepted).

    `others` are the other definitions of the group; what they have accepted is taken. Names that are free are accepted
    also where another one is not, except that the resource is then not served.
    """
    wanted = definition["spec"]["names"]
    resources: set[str] = set()
    kinds: set[str] = set()
    for other in others:
        names = (other.get("status") or {}).get("acceptedNames") or {}
        resources |= {
            name for name in (names.get("plural"), names.get("singular"), *(names.get("shortNames") or ())) if name
        }
        kinds |= {name for name in (names.get("kind"), names.get("listKind")) if name}
    present = (definition.get("status") or {}).get("acceptedNames") or {}
    out: dict[str, Any] = {key: value for key, value in present.items() if value}
    problem: tuple[str, str, str] | None = None
    checks = (
        ("plural", "PluralConflict", resources),
        ("singular", "SingularConflict", resources),
        ("shortNames", "ShortNamesConflict", resources),
        ("kind", "KindConflict", kinds),
        ("listKind", "ListKindConflict", kinds),
    )
    for field, reason, taken in checks:
        values = wanted.get(field) or ([] if field == "shortNames" else "")
        clash = [value for value in ([values] if isinstance(values, str) else values) if value in taken]
        if clash:
            problem = problem or ("False", reason, ", ".join(f'"{value}" is already in use' for value in clash))
        elif values:
            out[field] = values
        else:
            out.pop(field, None)
    if wanted.get("categories"):
        out["categories"] = wanted["categories"]
    else:
        out.pop("categories", None)
    out.setdefault("plural", "")
    out.setdefault("kind", "")
    return out, problem or _NO_CONFLICT
