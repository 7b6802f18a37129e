"""Between the version that is stored and the version that a row serves, whoever converts: nobody, a table of ours
(`registry/conversions.py`), or a webhook (`crd/conversion.py`), which has to be waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.apiserver import codec
from services.apiserver.registry.resource import Resource


async def served(resource: Resource, value: bytes) -> bytes:
    """Stored bytes as the version that `resource` serves. Raises InternalError if a webhook fails."""
    if resource.as_stored:
        return value
    if resource.remote is None:
        return codec.reversion(resource, value)
    return (await resource.remote.served_all(resource, [value]))[0]


async def served_all(resource: Resource, values: Sequence[bytes]) -> list[bytes]:
    """The same for many, in order: a webhook is asked about all of them at once."""
    if resource.remote is None or resource.as_stored:
        return [codec.reversion(resource, value) for value in values]
    return await resource.remote.served_all(resource, values)


def judged(resource: Resource, obj: dict[str, Any]) -> dict[str, Any]:
    """An object of the served version as writes are judged: as the storage version, unless a webhook converts. Then
    they are judged as what was sent, and converted at last (`stored`).
    """
    if resource.kind == resource.storage_kind or resource.remote is not None:
        return obj
    if resource.conversion is not None:
        obj = resource.conversion.to_stored(obj)
    obj["apiVersion"] = resource.storage_kind.api_version
    return obj


async def stored(resource: Resource, obj: dict[str, Any]) -> dict[str, Any]:
    """A judged object as the storage version."""
    return obj if resource.remote is None else await resource.remote.stored(resource, obj)
