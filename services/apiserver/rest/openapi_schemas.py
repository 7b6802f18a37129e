"""The validator's definitions in the two dialects of OpenAPI that clients read."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from services.apiserver.schema.definitions import definition_name, definitions

if TYPE_CHECKING:
    from services.apiserver.registry.resource import Resource

_REF = "#/$defs/"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
# Keywords that hold schemas below them.
_LISTS = ("allOf", "anyOf", "oneOf")
_SINGLE = ("items", "additionalProperties", "not")


class Dialect(Enum):
    """Swagger 2.0 or OpenAPI 3.0: where definitions stand, and what a reference may have beside it."""

    V2 = "#/definitions/"
    V3 = "#/components/schemas/"


class SchemaSet:
    """Collects the definitions that a document refers to, with everything below them."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self._done: dict[str, Any] = {}
        self._pending: list[str] = []

    def ref(self, name: str) -> dict[str, str]:
        """A reference to a definition, which is then part of the document."""
        if name not in self._done:
            self._done[name] = None
            self._pending.append(name)
        return {"$ref": self.dialect.value + name}

    def meta(self, kind: str) -> dict[str, str]:
        """A reference to one of the meta types: Status, DeleteOptions, Patch."""
        return self.ref(_META + kind)

    def of(self, resource: Resource) -> dict[str, str]:
        """A reference to the schema of a resource's objects."""
        kind = resource.kind
        name = definition_name(kind.group, kind.version, kind.kind)
        if name is not None:
            return self.ref(name)
        name = f"{'.'.join(reversed(kind.group.split('.')))}.{kind.version}.{kind.kind}"
        if name not in self._done:
            self._done[name] = self._custom(resource)
        return {"$ref": self.dialect.value + name}

    def list_of(self, resource: Resource) -> dict[str, str]:
        """A reference to the schema of a resource's lists."""
        kind = resource.kind
        name = definition_name(kind.group, kind.version, f"{kind.kind}List")
        if name is not None:
            return self.ref(name)
        name = f"{'.'.join(reversed(kind.group.split('.') or ['core']))}.{kind.version}.{kind.kind}List"
        if name not in self._done:
            self._done[name] = {
                "description": f"{kind.kind}List is a list of {kind.kind}",
                "type": "object",
                "required": ["items"],
                "properties": {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "metadata": self._beside(self.meta("ListMeta"), {}),
                    "items": {"type": "array", "items": self._beside(self.of(resource), {})},
                },
                "x-kubernetes-group-version-kind": [
                    {"group": kind.group, "version": kind.version, "kind": f"{kind.kind}List"}
                ],
            }
        return {"$ref": self.dialect.value + name}

    def collected(self) -> dict[str, Any]:
        """All of them, by name."""
        source = definitions()
        while self._pending:
            name = self._pending.pop()
            self._done[name] = self._definition(name, source[name])
        return dict(sorted(self._done.items()))

    def _definition(self, name: str, raw: Mapping[str, Any]) -> dict[str, Any]:
        described = {"description": raw["description"]} if raw.get("description") else {}
        if name == _INT_OR_STRING:
            return {**described, **self._int_or_string()}
        if name == _QUANTITY:
            if self.dialect is Dialect.V2:
                return {**described, "type": "string"}
            return {**described, "oneOf": [{"type": "string"}, {"type": "number"}]}
        schema = self._schema(raw)
        properties = schema.get("properties", {})
        if raw.get("x-kubernetes-group-version-kind"):
            for field in ("apiVersion", "kind"):
                # The validator pins them to the one right value; for a reader they are just strings.
                properties.get(field, {}).pop("enum", None)
        return schema

    def _int_or_string(self) -> dict[str, Any]:
        if self.dialect is Dialect.V2:
            return {"type": "string", "format": "int-or-string"}
        return {"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"}

    def _schema(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, value in raw.items():
            if key == "$ref":
                continue
            if key == "type" and isinstance(value, list):
                kinds = [kind for kind in value if kind != "null"]
                out["type"] = kinds[0] if kinds else "string"
            elif key == "properties":
                out[key] = {name: self._schema(schema) for name, schema in value.items()}
            elif key in _SINGLE and isinstance(value, Mapping):
                out[key] = self._schema(value)
            elif key in _LISTS:
                out[key] = [self._schema(schema) for schema in value]
            elif key == "enum":
                out[key] = [item for item in value if item is not None]
            else:
                out[key] = value
        if "$ref" in raw:
            return self._beside(self.ref(raw["$ref"].removeprefix(_REF)), out)
        return out

    def _beside(self, ref: dict[str, str], more: dict[str, Any]) -> dict[str, Any]:
        """A reference with something said about it: OpenAPI 3.0 ignores what stands beside `$ref`."""
        if self.dialect is Dialect.V2:
            return {**more, **ref}
        return {**more, "allOf": [ref], "default": {}} if more else ref

    def _custom(self, resource: Resource) -> dict[str, Any]:
        kind = resource.kind
        raw = getattr(resource.custom, "schema", None) or {"type": "object"}
        schema = self._copy_custom(raw)
        if self.dialect is Dialect.V2 and schema.get("x-kubernetes-preserve-unknown-fields"):
            # kubectl would take listed fields for all there are: upstream publishes nothing but the type.
            schema = {"type": "object"}
            schema["x-kubernetes-group-version-kind"] = [
                {"group": kind.group, "version": kind.version, "kind": kind.kind}
            ]
            return schema
        schema.setdefault("type", "object")
        properties = schema.setdefault("properties", {})
        described = definitions().get("io.k8s.api.core.v1.Pod", {}).get("properties", {})
        for field in ("apiVersion", "kind"):
            text = described.get(field, {}).get("description", "")
            properties[field] = {"type": "string", "description": text}
        about = {"description": "Standard object's metadata."}
        properties["metadata"] = self._beside(self.meta("ObjectMeta"), about)
        schema["x-kubernetes-group-version-kind"] = [{"group": kind.group, "version": kind.version, "kind": kind.kind}]
        return schema

    def _copy_custom(self, raw: Any) -> dict[str, Any]:
        """A CRD's schema; Swagger 2.0 knows less, so what it can't say is left out there."""
        if not isinstance(raw, Mapping):
            return {}
        hidden = {"nullable", "oneOf", "anyOf", "not"} if self.dialect is Dialect.V2 else set()
        out: dict[str, Any] = {}
        for key, value in raw.items():
            if key in hidden or (key == "allOf" and self.dialect is Dialect.V2):
                continue
            if key == "properties" and isinstance(value, Mapping):
                out[key] = {name: self._copy_custom(schema) for name, schema in value.items()}
            elif key in _SINGLE and isinstance(value, Mapping):
                out[key] = self._copy_custom(value)
            elif key in _LISTS and isinstance(value, list):
                out[key] = [self._copy_custom(schema) for schema in value]
            else:
                out[key] = value
        if out.get("x-kubernetes-preserve-unknown-fields") and self.dialect is Dialect.V2:
            # Clients of the old dialect would drop what is not listed.
            out.pop("properties", None)
            out.pop("items", None)
        return out
