"""The first thing that happens to a body: can it be decoded as its kind at all, and what of it is not of that kind."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from machinery.api.errors import BadRequest
from services.apiserver.schema import canonical, causes, definitions, fields
from services.apiserver.schema.definitions import KindLike
from services.apiserver.schema.structure import Fault, Sort, each_fault, is_sound


def take_in(
    kind: KindLike,
    body: dict[str, Any],
    field_validation: str = "Warn",
    duplicates: Sequence[str] = (),
    touched: Collection[str] | None = None,
) -> list[str]:
    """Make a decoded JSON body of a built-in kind what Go's decoder would have made of it, in place; return warnings.

    Wrong types are BadRequest as `json: cannot unmarshal …`. Unknown fields are dropped, and by `field_validation` are
    an error (Strict), one warning each (Warn, also for "") or nothing (Ignore). Nulls are dropped; quantities and times
    become canonical. Missing or wrong values are not judged here: `validate` does, after defaulting and admission.
    If only the top-level fields `touched` can differ from a stored object, the others are not looked at again.
    """
    problems: list[str] = []
    prune = False
    part = body if touched is None else {name: body[name] for name in touched if name in body}
    sound = is_sound(kind, part)
    if not sound:
        # Go's encoders write null for an empty time: that alone is no fault, and to look for faults costs much more.
        fields.drop_nulls(kind, part)
        sound = is_sound(kind, part)
    if not sound:
        for fault in each_fault(kind, body):
            if fault.sort is Sort.TYPE:
                raise undecodable(kind, fault.message)
            prune = prune or fault.sort is Sort.UNKNOWN
            if fault.sort is Sort.UNKNOWN and len(problems) < causes.PROBLEMS_MAX:
                problems.append(f'unknown field "{fault.field}"')
    problems = (problems + [f'duplicate field "{path}"' for path in duplicates])[: causes.PROBLEMS_MAX]
    if problems and field_validation == "Strict":
        raise strict_error(kind, problems)
    if prune:
        fields.prune(kind, body)
        part = body
    try:
        canonical.normalise(kind, part)
    except ValueError as error:
        raise undecodable(kind, str(error)) from error
    if part is not body:
        body.update(part)
    return [] if field_validation == "Ignore" else problems


def strict_error(kind: KindLike, problems: list[str]) -> BadRequest:
    """`Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: unknown field
    "spec.foo"`.
    """
    return undecodable(kind, "strict decoding error: " + ", ".join(problems))


class NotItsKind(BadRequest):
    """A body that is not of its kind; `why` is what the decoder says."""

    why = ""


def undecodable(kind: KindLike, why: str) -> NotItsKind:
    """The error of a body that is not its kind."""
    error = NotItsKind(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {why}')
    error.why = why
    return error


def is_builtin(kind: KindLike) -> bool:
    """Has the kind a definition here? Custom kinds have their own schemas (`structural`)."""
    return definitions.definition_name(kind.group, kind.version, kind.kind) is not None


__all__ = ["Fault", "is_builtin", "strict_error", "take_in", "undecodable"]
