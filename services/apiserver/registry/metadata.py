"""What the apiserver itself decides about an object's metadata, whatever its kind. Pure: clock and randomness come in.

Upstream's rules: k8s.io/apiserver/pkg/registry/rest (BeforeCreate, BeforeUpdate).
"""

from __future__ import annotations

import os
import random
import time
from datetime import UTC, datetime
from typing import Any

from machinery.api import errors
from services.apiserver.registry.resource import Resource

_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Upstream's: no vowels and no look-alikes, so that no words come out."""
_SUFFIX_LENGTH = 5
_GENERATED_BASE_MAX = 63 - _SUFFIX_LENGTH
_second: list[Any] = [0, ""]

_SYSTEM_FIELDS = ("selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion")


def now_text() -> str:
    """The present as metav1.Time has it. Formatting costs microseconds and several are needed a write, so a second's
    text is kept."""
    second = int(time.time())
    if _second[0] != second:
        _second[:] = second, datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(_second[1])


_random: list[str] = []
_RANDOM_PIECES = 256


def new_uid() -> str:
    """A random UUID (RFC 9562, version 4); the standard library's objects would double the price.

    The kernel is asked for many at once: each call lets go of the interpreter's lock, and has to win it back.
    """
    if not _random:
        text = os.urandom(16 * _RANDOM_PIECES).hex()
        _random.extend(text[start : start + 32] for start in range(0, len(text), 32))
    text = _random.pop()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[int(text[16], 16) & 3]}{text[17:20]}-{text[20:]}"


def random_suffix() -> str:
    """Five characters. They need not be secret, only different."""
    return "".join(random.choices(_SUFFIX_ALPHABET, k=_SUFFIX_LENGTH))  # noqa: S311


def generate_name(base: str) -> str:
    """A name that begins with `base`, cut so that the whole is a DNS label."""
    return base[:_GENERATED_BASE_MAX] + random_suffix()


def metadata_of(obj: dict[str, Any]) -> dict[str, Any]:
    """An object's metadata, made if it is missing. Raises BadRequest if it is not a mapping."""
    metadata = obj.get("metadata")
    if metadata is None:
        metadata = obj["metadata"] = {}
    if not isinstance(metadata, dict):
        raise errors.BadRequest("json: cannot unmarshal metadata into Go struct field .metadata of type v1.ObjectMeta")
    return metadata


def place(resource: Resource, metadata: dict[str, Any], namespace: str, name: str) -> None:
    """Make the object's namespace and name agree with the request's path. Raises BadRequest."""
    own = metadata.get("namespace")
    if resource.namespaced:
        if own and own != namespace:
            raise errors.BadRequest(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        metadata["namespace"] = namespace
    elif own:
        raise errors.BadRequest("namespace is not allowed on this type: it is cluster-scoped")
    else:
        metadata.pop("namespace", None)
    if name:
        own_name = metadata.get("name")
        if own_name and own_name != name:
            raise errors.BadRequest(f"the name of the object ({own_name}) does not match the name on the URL ({name})")
        metadata["name"] = name


def begin(metadata: dict[str, Any]) -> None:
    """The metadata of an object that is about to be created."""
    for field in _SYSTEM_FIELDS:
        metadata.pop(field, None)
    metadata["uid"] = new_uid()
    metadata["creationTimestamp"] = now_text()
    drop_empty(metadata)


def carry_over(resource: Resource, new: dict[str, Any], old: dict[str, Any]) -> None:
    """Keep in `new` what an update can't change. Raises Conflict if it names another object's uid."""
    uid = new.get("uid")
    if uid and uid != old.get("uid"):
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old.get('uid')}"
        raise errors.conflict(resource.group, resource.plural, old["name"], why)
    for field in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
        if field in old:
            new[field] = old[field]
        else:
            new.pop(field, None)
    new.pop("selfLink", None)
    if "generateName" in old:
        new.setdefault("generateName", old["generateName"])
    drop_empty(new)


def drop_empty(metadata: dict[str, Any]) -> None:
    """An empty map or list says the same as none; equal objects must have equal bytes."""
    for field in ("labels", "annotations", "finalizers", "ownerReferences", "generateName"):
        if field in metadata and not metadata[field]:
            del metadata[field]
