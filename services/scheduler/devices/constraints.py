"""What the devices of one claim must have in common, or must not.

A constraint only gets harder to meet with each device that is added: the search may stop at the first refusal.
"""

from __future__ import annotations

from services.scheduler.devices.objects import Attribute, Constraint, Device


def look_up(device: Device, driver: str, name: str) -> Attribute | None:
    """An attribute by its fully qualified name; a device may leave out its own driver's domain."""
    attributes = device.attributes or {}
    found = attributes.get(name)
    if found is not None:
        return found
    domain, slash, identifier = name.partition("/")
    return attributes.get(identifier) if slash and domain == driver else None


def _key(attribute: Attribute) -> tuple[object, ...]:
    return (attribute.number, attribute.truth, attribute.text, attribute.version)


class Compared:
    """The values of one attribute in the devices chosen so far. `distinct`: all must differ; otherwise be the same."""

    def __init__(self, constraint: Constraint) -> None:
        self.requests = frozenset(constraint.requests or ())
        self.distinct = constraint.matchAttribute is None
        self.name = constraint.matchAttribute or constraint.distinctAttribute or ""
        self._values: list[tuple[object, ...]] = []

    def concerns(self, request: str, subrequest: str) -> bool:
        """Whether devices for this request are compared; a constraint that names none is about all."""
        if not self.requests or request in self.requests:
            return True
        return bool(subrequest) and f"{request}/{subrequest}" in self.requests

    def add(self, device: Device, driver: str) -> bool:
        """Take a device in. False, and nothing changes, if it does not go with the others."""
        attribute = look_up(device, driver, self.name)
        if attribute is None:
            return False
        value = _key(attribute)
        if self.distinct:
            if value in self._values:
                return False
        elif self._values and self._values[0] != value:
            return False
        self._values.append(value)
        return True

    def remove(self) -> None:
        """Take the device that was added last out again."""
        self._values.pop()
