"""What a list or a watch selects: parsed selectors, and the values that field selectors see, taken once when an object
is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from machinery.api import errors
from machinery.api.selectors import LabelSelector, parse_field_selector, parse_label_selector
from services.apiserver.registry.resource import Resource

NO_LABELS: Mapping[str, str] = {}

# A selectable path whose value stands elsewhere in the object.
_ELSEWHERE = {"status.successful": "status.succeeded"}
# What an absent value counts as; "" otherwise.
_ABSENT = {"spec.unschedulable": "false", "spec.hostNetwork": "false", "status.replicas": "0", "status.successful": "0"}


def extractor(paths: tuple[str, ...]) -> Callable[[dict[str, Any]], tuple[str, ...]]:
    """A function from an object to the values at `paths`, as field selectors compare them."""
    steps = [(tuple(_ELSEWHERE.get(path, path).lstrip(".").split(".")), _ABSENT.get(path, "")) for path in paths]
    if not steps:
        return lambda _obj: ()
    if "source" in paths:
        return _event_extractor(steps, paths.index("source"))

    def extract(obj: dict[str, Any]) -> tuple[str, ...]:
        return tuple([_value(obj, keys, absent) for keys, absent in steps])

    return extract


def _event_extractor(
    steps: list[tuple[tuple[str, ...], str]], source: int
) -> Callable[[dict[str, Any]], tuple[str, ...]]:
    """Events: one without a source comes from its reporting component."""

    def extract(obj: dict[str, Any]) -> tuple[str, ...]:
        values = [_value(obj, keys, absent) for keys, absent in steps]
        values[source] = values[source] or obj.get("reportingComponent") or ""
        return tuple(values)

    return extract


def _value(obj: Any, keys: tuple[str, ...], absent: str) -> str:
    for key in keys:
        if type(obj) is not dict:
            return absent
        obj = obj.get(key)
    if type(obj) is str:
        return obj
    if obj is None or obj == {}:
        return absent
    if isinstance(obj, bool):
        return "true" if obj else "false"
    # Events: the field "source" means source.component.
    return str(obj.get("component", "")) if isinstance(obj, dict) else str(obj)


@dataclass(frozen=True, slots=True)
class FieldCondition:
    """One requirement on a stored field: `position` in the entry's `fields`, or -1 for metadata.name, -2 for
    metadata.namespace."""

    position: int
    value: str
    equal: bool


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries of a resource are meant. Made once a request, asked for every entry."""

    namespace: str
    name: str
    labels: LabelSelector | None
    conditions: tuple[FieldCondition, ...]

    @property
    def everything(self) -> bool:
        """Whether only the namespace narrows it."""
        return not self.name and self.labels is None and not self.conditions

    def matches(self, namespace: str, name: str, labels: Mapping[str, str] | None, fields: tuple[str, ...]) -> bool:
        """Whether an entry is meant."""
        if self.namespace and namespace != self.namespace:
            return False
        if self.name and name != self.name:
            return False
        for condition in self.conditions:
            position = condition.position
            actual = fields[position] if position >= 0 else name if position == -1 else namespace
            if (actual == condition.value) is not condition.equal:
                return False
        return self.labels is None or self.labels.matches(labels or NO_LABELS)


def select(resource: Resource, namespace: str, name: str, label_selector: str, field_selector: str) -> Selection:
    """Parse the selectors of a request. `name` narrows to one object (a watch or list of one). Raises BadRequest."""
    labels = parse_label_selector(label_selector) if label_selector else None
    if labels is not None and not labels.requirements:
        labels = None
    conditions: list[FieldCondition] = []
    if field_selector:
        for requirement in parse_field_selector(field_selector).requirements:
            condition = _condition(resource, requirement.field, requirement.value, requirement.operator == "=")
            if condition.position == -1 and condition.equal and not name:
                name = condition.value
            elif condition.position == -2 and condition.equal and not namespace:
                namespace = condition.value
            else:
                conditions.append(condition)
    return Selection(namespace, name, labels, tuple(conditions))


def _condition(resource: Resource, field: str, value: str, equal: bool) -> FieldCondition:
    if field == "metadata.name":
        return FieldCondition(-1, value, equal)
    if field == "metadata.namespace" and resource.namespaced:
        return FieldCondition(-2, value, equal)
    position = resource.positions.get(field)
    if position is None:
        raise errors.BadRequest(_unknown_field(resource, field))
    return FieldCondition(position, value, equal)


def _unknown_field(resource: Resource, field: str) -> str:
    """In the words of upstream's kinds: each with fields of its own has a function that says it."""
    if not resource.positions and resource.custom is None:
        return f'"{field}" is not a known field selector: only "metadata.name", "metadata.namespace"'
    if resource.kind.kind == "Job":
        return f'field label "{field}" not supported for Job'
    if resource.kind.kind == "ResourceSlice":
        kind = resource.kind
        return f"field label not supported for {kind.group}/{kind.version}, Kind={kind.kind}: {field}"
    return f"field label not supported: {field}"


def name_selected(field_selector: str) -> str:
    """The one name that a field selector leaves, if it says so: rights to single objects count for lists and watches of
    them."""
    if "metadata.name" not in field_selector:
        return ""
    for requirement in parse_field_selector(field_selector).requirements:
        if requirement.field == "metadata.name" and requirement.operator == "=":
            return requirement.value
    return ""
