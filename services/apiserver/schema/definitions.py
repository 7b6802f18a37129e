"""The OpenAPI definitions of Kubernetes v1.37, by group-version-kind, as a tree of typed nodes.

`definitions()` is the raw document (it stays in memory once: about 4 MB, parsed in 7 ms on first use). `node_for(kind)`
is what the rest of the schema and patch packages walk: a `Node` knows its type, its fields, how lists merge and what is
required. Nodes are made when they are first walked and are shared, so a kind that nobody uses costs nothing.
"""

from __future__ import annotations

import functools
import importlib.util
import pathlib
from typing import Any, Protocol

import orjson

RELEASE = "v1.37.0"
_REF = "#/$defs/"

QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
TIME = "io.k8s.apimachinery.pkg.apis.meta.v1.Time"
MICRO_TIME = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime"
OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_APIEXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."

# Definitions whose JSON form is not what their Go fields say.
SCALAR_DEFINITIONS: dict[str, str] = {
    QUANTITY: "quantity",
    INT_OR_STRING: "int-or-string",
    TIME: "time",
    MICRO_TIME: "micro-time",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "open",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "open",
    _APIEXTENSIONS + "JSON": "any",
    _APIEXTENSIONS + "JSONSchemaPropsOrArray": "any",
    _APIEXTENSIONS + "JSONSchemaPropsOrBool": "any",
    _APIEXTENSIONS + "JSONSchemaPropsOrStringArray": "any",
}


class KindLike(Protocol):
    """What is asked of a kind here: its identity."""

    @property
    def group(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def kind(self) -> str: ...


class Node:
    """One place in an object's shape.

    `type` is object (named fields), map (any keys, values of one shape), array, string, bytes, integer, number,
    boolean, quantity, int-or-string, time, micro-time, open (an object of any fields) or any. `list_type` is atomic,
    set or map ("" means atomic to server-side apply); `list_keys` are a map-list's keys; `merge_key` and `strategies`
    are strategic merge patch's; `granular` is False where a map or object is owned as a whole.
    """

    __slots__ = (
        "_fields", "_item", "_raw", "definition", "format", "granular", "list_keys", "list_type", "merge_key",
        "open_fields",
        "raw_properties", "required", "strategies", "type",
    )  # fmt: skip

    def __init__(self, raw: dict[str, Any]) -> None:
        target, name = _follow(raw)
        self.definition = name
        self._raw = target
        self._fields: dict[str, Node] | None = None
        self._item: Node | None = None
        self.raw_properties: dict[str, Any] = target.get("properties") or {}
        self.required: frozenset[str] = frozenset(target.get("required") or ())
        self.format: str = target.get("format") or ""
        self.type = SCALAR_DEFINITIONS.get(name) or _type_of(target)
        self.list_type: str = raw.get("x-kubernetes-list-type") or target.get("x-kubernetes-list-type") or ""
        self.list_keys: tuple[str, ...] = tuple(
            raw.get("x-kubernetes-list-map-keys") or target.get("x-kubernetes-list-map-keys") or ()
        )
        self.merge_key: str = raw.get("x-kubernetes-patch-merge-key") or ""
        self.strategies: tuple[str, ...] = tuple(
            filter(None, (raw.get("x-kubernetes-patch-strategy") or "").split(","))
        )
        map_type = raw.get("x-kubernetes-map-type") or target.get("x-kubernetes-map-type") or ""
        self.granular = map_type != "atomic"
        self.open_fields = bool(target.get("x-kubernetes-preserve-unknown-fields"))

    @property
    def fields(self) -> dict[str, Node]:
        """The named fields of an object."""
        if self._fields is None:
            self._fields = {name: _node(prop) for name, prop in self.raw_properties.items()}
        return self._fields

    @property
    def item(self) -> Node:
        """The shape of a list's items or of a map's values."""
        if self._item is None:
            below = self._raw.get("items") if self.type == "array" else self._raw.get("additionalProperties")
            self._item = _node(below) if isinstance(below, dict) else ANY
        return self._item

    @property
    def struct(self) -> str:
        """The definition's short name, as Go calls the type: `PodSpec`."""
        return self.definition.rpartition(".")[2]

    @property
    def go_type(self) -> str:
        """The type as Go's JSON decoder names it in an error."""
        return _go_type(self)

    def __repr__(self) -> str:
        return f"<Node {self.type} {self.definition}>"


def _go_type(node: Node) -> str:
    match node.type:
        case "object" | "open" if node.definition:
            package, _, name = node.definition.rpartition(".")
            return f"{package.rpartition('.')[2]}.{name}"
        case "array":
            return "[]" + _go_type(node.item)
        case "map":
            return "map[string]" + _go_type(node.item)
        case "integer":
            return "int64" if node.format == "int64" else "int32"
        case "number":
            return "float64"
        case "boolean":
            return "bool"
        case "bytes":
            return "[]uint8"
        case "quantity":
            return "resource.Quantity"
        case "time":
            return "v1.Time"
        case "micro-time":
            return "v1.MicroTime"
        case "int-or-string":
            return "intstr.IntOrString"
        case _:
            return "string"


def _type_of(raw: dict[str, Any]) -> str:
    if raw.get("x-kubernetes-int-or-string"):
        return "int-or-string"
    declared = raw.get("type")
    if isinstance(declared, list):
        declared = next((one for one in declared if one != "null"), None)
    if declared == "object":
        if "properties" in raw:
            return "object"
        return "map" if isinstance(raw.get("additionalProperties"), dict) else "open"
    if declared == "string" and raw.get("format") == "byte":
        return "bytes"
    return declared or ("object" if "properties" in raw else "any")


def _follow(raw: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The schema that `$ref` (or a single-element `allOf`) leads to, and its definition's name."""
    ref = raw.get("$ref")
    if ref is None and len(raw.get("allOf") or ()) == 1:
        ref = raw["allOf"][0].get("$ref")
    if ref is None:
        return raw, ""
    name = ref.removeprefix(_REF)
    return definitions()[name], name


ANY = Node({})
_shared: dict[str, Node] = {}


def _node(raw: dict[str, Any]) -> Node:
    """A node for a property's schema; plain references to one definition share one node."""
    ref = raw.get("$ref")
    if ref is None or any(key.startswith("x-") for key in raw):
        return Node(raw)
    node = _shared.get(ref)
    if node is None:
        node = _shared[ref] = Node({"$ref": ref})
    return node


@functools.cache
def definitions() -> dict[str, Any]:
    """Every definition by its name (`io.k8s.api.core.v1.Pod`). Not to be changed by anyone."""
    # Found without importing the package, which would load a JSON-schema library that nothing here uses (0.2 s).
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or spec.origin is None:
        raise RuntimeError("the package kubernetes-validate, which carries the API's definitions, is not installed")
    path = pathlib.Path(spec.origin).parent / "kubernetes-json-schema" / f"{RELEASE}-local" / "_definitions.json"
    document = orjson.loads(path.read_bytes())
    found: dict[str, Any] = document["$defs"]
    return found


@functools.cache
def _index() -> dict[tuple[str, str, str], str]:
    index: dict[tuple[str, str, str], str] = {}
    for name, definition in definitions().items():
        for gvk in definition.get("x-kubernetes-group-version-kind") or ():
            index.setdefault((gvk["group"], gvk["version"], gvk["kind"]), name)
    return index


def definition_name(group: str, version: str, kind: str) -> str | None:
    """The name of the definition of a group-version-kind, or None if v1.37 has none."""
    return _index().get((group, version, kind))


def node_named(name: str) -> Node:
    """The node of a definition. KeyError if there is none of that name."""
    return _node({"$ref": _REF + name})


def node_for(kind: KindLike) -> Node | None:
    """The node of a built-in kind, or None for any other."""
    name = _index().get((kind.group, kind.version, kind.kind))
    return None if name is None else node_named(name)
