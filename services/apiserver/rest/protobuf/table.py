"""The table of messages: which fields a Go type has on the wire, read lazily from two data files.

`fields.json` is generated (`generate.py`), `fields_beyond_kubectl.json` is kept by hand. Each has

    packages    apiVersion → package: "rbac.authorization.k8s.io/v1" → "rbac/v1"
    messages    package.Type → its fields, each as number:name:type, by ascending number

    types       string bool int32 int64 double bytes (base64 in JSON) strings (a message around a list of strings)
                .PodSpec a message of the same package   meta/v1.ObjectMeta one of another
                []T a list   {}T a map from strings
    name?       a zero means that the field is not set: Go's JSON leaves it out
    no name     the message's fields stand in JSON among those of the object around it

A message is parsed when a body first holds it: before that a kind costs its line of text (all: 0.2 MB).
"""

from __future__ import annotations

import functools
import json
import pathlib
from dataclasses import dataclass, field
from typing import Any

FILES = ("fields.json", "fields_beyond_kubectl.json")
VARINTS = frozenset({"bool", "int32", "int64"})
SCALARS = VARINTS | {"string", "double", "bytes"}
# What the decoder does with each wire key of a message: the field's name, how it is read, whether a zero means that it
# is not set, and what reads its value (or the message in it).
Plan = dict[int, tuple[str, int, bool, Any]]


@dataclass(frozen=True, slots=True)
class Field:
    """One field: `container` is "", "[]" or "{}"; `type` a scalar's name or a message's full name."""

    number: int
    name: str
    unset_if_zero: bool
    container: str
    type: str


@dataclass(slots=True)
class Message:
    """A message's fields by ascending number, and the plan that the decoder derives from them on first use."""

    name: str
    fields: tuple[Field, ...]
    plan: Plan | None = field(default=None, repr=False)


@functools.cache
def _files() -> tuple[dict[str, str], dict[str, str]]:
    packages: dict[str, str] = {}
    messages: dict[str, str] = {}
    for name in FILES:
        document = json.loads((pathlib.Path(__file__).parent / name).read_bytes())
        packages.update(document["packages"])
        messages.update(document["messages"])
    return packages, messages


def message_names() -> list[str]:
    """Every message's full name."""
    return sorted(_files()[1])


def packages() -> dict[str, str]:
    """apiVersion → package."""
    return dict(_files()[0])


@functools.cache
def message(name: str) -> Message:
    """The message of that full name. KeyError if there is none."""
    package = name.rpartition(".")[0]
    return Message(name, tuple(_parse(package, text) for text in _files()[1][name].split()))


def message_of(api_version: str, kind: str) -> Message | None:
    """The message of a kind. DeleteOptions and Status are the same under every apiVersion."""
    packages, messages = _files()
    for package in (packages.get(api_version), "meta/v1"):
        if f"{package}.{kind}" in messages:
            return message(f"{package}.{kind}")
    return None


def _parse(package: str, text: str) -> Field:
    number, name, kind = text.split(":")
    container = kind[:2] if kind[:2] in ("[]", "{}") else ""
    kind = kind.removeprefix(container)
    if kind.startswith("."):
        kind = package + kind
    return Field(int(number), name.rstrip("?"), name.endswith("?"), container, kind)
