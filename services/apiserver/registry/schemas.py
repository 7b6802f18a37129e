"""How a body of a kind is read, completed and judged: one interface over built-in definitions and custom resources'
schemas."""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from typing import Any, Protocol

from machinery.api.errors import Cause
from machinery.api.kinds import Kind
from services.apiserver.schema import defaults, intake, validate


class Schema(Protocol):
    """What the writer asks of a served version's schema. All methods are pure but for changing `obj` in place."""

    def take_in(
        self,
        obj: dict[str, Any],
        field_validation: str,
        duplicates: tuple[str, ...] = (),
        touched: Collection[str] | None = None,
    ) -> list[str]:
        """Make a body what this kind's decoder makes of it; warnings. Raises BadRequest.

        Of a stored object that was patched, only the top-level fields `touched` need be looked at (None: all).
        """
        ...

    def default(self, obj: dict[str, Any]) -> None:
        """Fill in what was left out."""
        ...

    def validate_create(self, obj: dict[str, Any]) -> Sequence[Cause]:
        """Everything wrong with a new object."""
        ...

    def validate_update(self, new: dict[str, Any], old: dict[str, Any], subresource: str) -> Sequence[Cause]:
        """Everything wrong with a change."""
        ...


class BuiltinSchema:
    """A built-in kind, by the OpenAPI definitions."""

    __slots__ = ("_kind", "_stored")

    def __init__(self, kind: Kind, stored: Kind) -> None:
        self._kind = kind
        self._stored = stored

    def take_in(
        self,
        obj: dict[str, Any],
        field_validation: str,
        duplicates: tuple[str, ...] = (),
        touched: Collection[str] | None = None,
    ) -> list[str]:
        warnings = intake.take_in(self._kind, obj, field_validation, duplicates, touched)
        if "stringData" in obj and self._kind.kind == "Secret":
            merge_string_data(obj)
        return warnings

    def default(self, obj: dict[str, Any]) -> None:
        defaults.apply_defaults(self._stored, obj)

    def validate_create(self, obj: dict[str, Any]) -> Sequence[Cause]:
        return validate.validate_create(self._stored, obj)

    def validate_update(self, new: dict[str, Any], old: dict[str, Any], subresource: str) -> Sequence[Cause]:
        if subresource == "status":
            return validate.validate_status_update(self._stored, new, old)
        if subresource == "ephemeralcontainers":
            return validate.validate_ephemeral_containers(self._stored, new, old)
        if subresource == "resize":
            return validate.validate_resize(self._stored, new, old)
        return validate.validate_update(self._stored, new, old)


def merge_string_data(secret: dict[str, Any]) -> None:
    """A Secret's `stringData` is for writing only: its values go, encoded, into `data` and win there."""
    plain = secret.pop("stringData") or {}
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
    if encoded:
        secret["data"] = {**(secret.get("data") or {}), **encoded}
