"""How values read in a cell: ages, label maps, lists that are cut, container names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

NONE = "<none>"
UNKNOWN = "<unknown>"
UNSET = "<unset>"


def parse_time(text: str) -> datetime | None:
    """An RFC 3339 time; None if it is none."""
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None


def now() -> datetime:
    """The present, replaced in tests."""
    return datetime.now(UTC)


def age(text: str | None) -> str:
    """How long ago: "5m12s", or "<unknown>"."""
    moment = parse_time(text) if text else None
    return UNKNOWN if moment is None else human_duration((now() - moment).total_seconds())


def until(text: str | None) -> str:
    """How long until then."""
    moment = parse_time(text) if text else None
    return UNKNOWN if moment is None else human_duration((moment - now()).total_seconds())


def created(obj: Mapping[str, Any]) -> str:
    """An object's age."""
    return age(obj["metadata"].get("creationTimestamp"))


def human_duration(seconds_exact: float) -> str:
    """Seconds as people read them: two units while the first is small, one when it is large."""
    seconds = int(seconds_exact)
    if seconds < -1:
        return "<invalid>"
    if seconds < 0:
        return "0s"
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours = seconds // 60, seconds // 3600
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 24 * 8:
        return _two(hours // 24, "d", hours % 24, "h")
    if hours < 24 * 365 * 2:
        return f"{hours // 24}d"
    years = hours // 24 // 365
    if hours < 24 * 365 * 8:
        return _two(years, "y", hours // 24 % 365, "d")
    return f"{years}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def label_map(labels: Mapping[str, str] | None) -> str:
    """`a=b,c=d`, or "<none>"."""
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or NONE


def label_selector(selector: Mapping[str, Any] | None) -> str:
    """A LabelSelector in the form that -l takes."""
    if not selector:
        return NONE
    terms = [(key, f"{key}={value}") for key, value in (selector.get("matchLabels") or {}).items()]
    for item in selector.get("matchExpressions") or ():
        values = ",".join(sorted(item.get("values") or ()))
        key = item["key"]
        match item.get("operator"):
            case "In":
                terms.append((key, f"{key} in ({values})"))
            case "NotIn":
                terms.append((key, f"{key} notin ({values})"))
            case "Exists":
                terms.append((key, key))
            case _:
                terms.append((key, f"!{key}"))
    return ",".join(text for _, text in sorted(terms, key=lambda term: term[0])) or NONE


def containers(spec: Mapping[str, Any]) -> tuple[str, str]:
    """The names and the images of a pod spec's containers."""
    found = spec.get("containers") or ()
    return ",".join(c.get("name", "") for c in found), ",".join(c.get("image", "") for c in found)


def template_spec(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """The pod spec in `spec.template`."""
    spec: Mapping[str, Any] = ((obj.get("spec") or {}).get("template") or {}).get("spec") or {}
    return spec


def cut(items: Iterable[str], shown: int) -> str:
    """The first items and how many more there are: `a,b + 3 more...`."""
    found = list(items)
    text = ",".join(found[:shown])
    return f"{text} + {len(found) - shown} more..." if len(found) > shown else text or NONE


_ACCESS = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def access_modes(modes: Iterable[str] | None) -> str:
    """RWO,ROX,RWX in that order."""
    have = set(modes or ())
    return ",".join(short for mode, short in _ACCESS.items() if mode in have)


def or_none(value: Any) -> str:
    """The value, or "<none>" in its absence."""
    return NONE if value in (None, "") else str(value)
