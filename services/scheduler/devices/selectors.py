"""A device as CEL expressions see it: `device.driver`, `.attributes[domain].name`, `.capacity[domain].name`."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from machinery import cel
from machinery.api.quantity import parse_quantity
from machinery.cel.budget import Budget
from machinery.cel.costs import PER_CALL_MAX
from services.scheduler.devices.objects import Attribute, Device

VARIABLES = ("device",)
_DOMAIN = re.compile(r"""(attributes|capacity)\s*\[\s*(?:"([^"]*)"|'([^']*)')\s*\]""")
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")


class SelectorError(Exception):
    """An expression that doesn't compile, or that fails on a device."""


def split_name(name: str, driver: str) -> tuple[str, str]:
    """A qualified name's domain and identifier; without a domain it is the driver's."""
    domain, slash, identifier = name.rpartition("/")
    return (domain, identifier) if slash else (driver, name)


def variables(device: Device, driver: str) -> dict[str, Any]:
    """The input of expressions, as plain values."""
    attributes: dict[str, dict[str, Any]] = {}
    for name, attribute in (device.attributes or {}).items():
        domain, identifier = split_name(name, driver)
        value = _value(attribute)
        if value is not None:
            attributes.setdefault(domain, {})[identifier] = value
    capacity: dict[str, dict[str, Any]] = {}
    for name, each in (device.capacity or {}).items():
        domain, identifier = split_name(name, driver)
        # The form that `quantity()` has in our CEL library.
        capacity.setdefault(domain, {})[identifier] = {"quantity": str(parse_quantity(each.value).nano)}
    return {
        "driver": driver,
        "attributes": attributes,
        "capacity": capacity,
        "allowMultipleAllocations": bool(device.allowMultipleAllocations),
    }


def _value(attribute: Attribute) -> Any:
    for plain in (attribute.number, attribute.truth, attribute.text):
        if plain is not None:
            return plain
    if attribute.version is None:
        return None
    found = _VERSION.match(attribute.version)
    if found is None:
        raise SelectorError(f"version {attribute.version!r} is not a semantic version")
    # The form that `semver()` has in our CEL library.
    major, minor, patch = (int(number) for number in found.groups())
    return {"semver": attribute.version.partition("+")[0], "major": major, "minor": minor, "patch": patch}


@lru_cache(maxsize=1024)
def domains(expression: str) -> tuple[tuple[str, str], ...]:
    """(attributes or capacity, domain) that the expression looks into.

    A device that has nothing in a domain has an empty map there, so that `has(…)` and `in` answer instead of failing.
    """
    return tuple((found[1], found[2] or found[3] or "") for found in _DOMAIN.finditer(expression))


def matches(expression: str, seen: dict[str, Any]) -> bool:
    """Whether a device, as `variables` gives it, satisfies the expression. Raises SelectorError."""
    try:
        program = cel.compile(expression, VARIABLES)
    except cel.CelError as err:
        raise SelectorError(f"CEL compile error: {err}") from err
    missing = [(where, domain) for where, domain in domains(expression) if domain not in seen[where]]
    if missing:
        seen = dict(seen)
        for where, domain in missing:
            seen[where] = {**seen[where], domain: {}}
    try:
        Budget(PER_CALL_MAX).charge(program, {"device": seen})
        answer = program.evaluate({"device": seen})
    except cel.CelError as err:
        raise SelectorError(f"CEL runtime error: {err}") from err
    if not isinstance(answer, bool):
        raise SelectorError(f"CEL result of type {type(answer).__name__} could not be converted to bool")
    return answer
