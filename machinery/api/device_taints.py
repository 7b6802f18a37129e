"""Taints of devices (resource.k8s.io): what tolerates them, and which devices a DeviceTaintRule is about. Pure.

The scheduler keeps pods from tainted devices, the controller-manager takes them off: both ask here.
"""

from __future__ import annotations

from typing import Protocol

NO_SCHEDULE, NO_EXECUTE = "NoSchedule", "NoExecute"
"""The effects that there are; None and whatever is unknown has no effect."""


class Taint(Protocol):
    """A DeviceTaint."""

    @property
    def key(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def effect(self) -> str: ...


class Toleration(Taint, Protocol):
    """A DeviceToleration. An empty key means every key, an empty effect every effect."""

    @property
    def operator(self) -> str: ...


class Selector(Protocol):
    """A DeviceTaintSelector. What is None selects every device."""

    @property
    def driver(self) -> str | None: ...
    @property
    def pool(self) -> str | None: ...
    @property
    def device(self) -> str | None: ...


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Whether the toleration is for this taint. An operator that is neither Equal nor Exists never is."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    return toleration.operator in ("", "Equal") and toleration.value == taint.value


def selects(selector: Selector | None, driver: str, pool: str, device: str) -> bool:
    """Whether a rule's taint is on this device. A rule without a selector is about no device."""
    return (
        selector is not None
        and selector.driver in (None, driver)
        and selector.pool in (None, pool)
        and selector.device in (None, device)
    )
