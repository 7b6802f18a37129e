"""The paths of a resource in OpenAPI, with the marks by which Kubernetes' clients find their way: which kind, which
action.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.apiserver.rest.openapi_schemas import Dialect, SchemaSet
from services.apiserver.schema.definitions import definition_name

if TYPE_CHECKING:
    from services.apiserver.registry.resource import Resource, Subresource

_BODY_TYPES = ("application/json", "application/yaml")
_PATCH_TYPES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)
_LIST_TYPES = (*_BODY_TYPES, "application/json;stream=watch")

_TEXTS = {
    "dryRun": ("string", "Judge and answer, but change nothing. The only value is All."),
    "fieldManager": ("string", "Who is recorded as the owner of the fields that this request sets."),
    "fieldValidation": ("string", "What to do about unknown and duplicate fields: Ignore, Warn or Strict."),
    "force": ("boolean", "Take over fields that another manager owns (apply only)."),
    "labelSelector": ("string", "Only objects with these labels."),
    "fieldSelector": ("string", "Only objects with these fields."),
    "limit": ("integer", "At most this many objects; the answer then has a token to continue with."),
    "continue": ("string", "The token of the previous part of a list."),
    "resourceVersion": ("string", "How new the data must be."),
    "resourceVersionMatch": ("string", "How resourceVersion is meant: Exact or NotOlderThan."),
    "sendInitialEvents": ("boolean", "Begin a watch with the current state, then a bookmark."),
    "allowWatchBookmarks": ("boolean", "Send bookmarks in a watch."),
    "timeoutSeconds": ("integer", "How long the watch or list may take."),
    "watch": ("boolean", "Send changes as they come."),
    "gracePeriodSeconds": ("integer", "How long the object's processes get to end."),
    "propagationPolicy": ("string", "What happens to dependents: Orphan, Background or Foreground."),
    "orphanDependents": ("boolean", "The old spelling of the propagation policies Orphan and Background."),
    "ignoreStoreReadErrorWithClusterBreakingPotential": ("boolean", "Delete also what can't be read any more."),
    "pretty": ("string", "Indent the answer."),
}
_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_LIST = (
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
)
_DELETE = (
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
)


class _Builder:
    def __init__(self, resource: Resource, schemas: SchemaSet) -> None:
        self.resource = resource
        self.schemas = schemas
        kind = resource.kind
        self.gvk = {"group": kind.group, "version": kind.version, "kind": kind.kind}
        base = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
        scope = "/namespaces/{namespace}" if kind.namespaced else ""
        self.base, self.collection = base, f"{base}{scope}/{kind.plural}"
        group = "".join(part.capitalize() for part in (kind.group.removesuffix(".k8s.io") or "core").split("."))
        self.tag = f"{kind.group.split('.')[0] or 'core'}_{kind.version}"
        self.id_prefix = f"{group}{kind.version.capitalize()}"

    # -- pieces that differ between the dialects --

    def parameter(self, name: str, where: str = "query", *, required: bool = False) -> dict[str, Any]:
        kind, text = _TEXTS.get(name, ("string", f"{name} of the object"))
        out: dict[str, Any] = {"name": name, "in": where, "description": text}
        if required:
            out["required"] = True
        if self.schemas.dialect is Dialect.V2:
            return {**out, "type": kind, "uniqueItems": True}
        return {**out, "schema": {"type": kind, "uniqueItems": True}}

    def responses(self, ok: dict[str, Any], *codes: str, types: tuple[str, ...] = _BODY_TYPES) -> dict[str, Any]:
        texts = {"200": "OK", "201": "Created", "202": "Accepted"}
        if self.schemas.dialect is Dialect.V2:
            out: dict[str, Any] = {code: {"description": texts[code], "schema": ok} for code in codes}
        else:
            content = {media: {"schema": ok} for media in types}
            out = {code: {"description": texts[code], "content": content} for code in codes}
        out["401"] = {"description": "Unauthorized"}
        return out

    def operation(
        self,
        action: str,
        verb: str,
        suffix: str,
        answer: dict[str, Any],
        codes: tuple[str, ...],
        parameters: tuple[str, ...],
        body: dict[str, Any] | None = None,
        gvk: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        types = _LIST_TYPES if action == "list" else _BODY_TYPES
        out: dict[str, Any] = {
            "operationId": f"{verb}{self.id_prefix}{suffix}",
            "tags": [self.tag],
            "parameters": [self.parameter(name) for name in parameters],
            "responses": self.responses(answer, *codes, types=types),
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk or self.gvk,
        }
        accepted = self.patch_types() if action == "patch" else ("application/json", "application/yaml")
        if self.schemas.dialect is Dialect.V2:
            out["produces"] = list(types)
            out["consumes"] = list(accepted) if action == "patch" else ["*/*"]
            if body is not None:
                required = action not in ("delete", "deletecollection")
                out["parameters"].append({"name": "body", "in": "body", "required": required, "schema": body})
        elif not out["parameters"]:
            # What is empty is left out of these documents, where they are read and written again.
            del out["parameters"]
        if self.schemas.dialect is not Dialect.V2 and body is not None:
            content = {media: {"schema": body} for media in accepted}
            out["requestBody"] = {"content": content}
            if action not in ("delete", "deletecollection"):
                out["requestBody"]["required"] = True
        return out

    def patch_types(self) -> tuple[str, ...]:
        """How this resource can be patched: kubectl reads here whether it may send a strategic merge patch."""
        return _PATCH_TYPES if self.resource.custom is None else _PATCH_TYPES[:-1]

    def shared(self, *, name: bool, namespaced: bool | None = None) -> list[dict[str, Any]]:
        parameters = [self.parameter("name", "path", required=True)] if name else []
        if self.resource.namespaced if namespaced is None else namespaced:
            parameters.append(self.parameter("namespace", "path", required=True))
        return [*parameters, self.parameter("pretty")]

    # -- paths --

    def build(self) -> dict[str, Any]:
        resource, kind = self.resource, self.resource.kind
        verbs = set(resource.verbs)
        me = self.schemas.of(resource)
        scope = "Namespaced" if kind.namespaced else ""
        paths: dict[str, Any] = {}
        collection: dict[str, Any] = {}
        if "list" in verbs:
            many = self.schemas.list_of(resource)
            collection["get"] = self.operation("list", "list", f"{scope}{kind.kind}", many, ("200",), _LIST)
            if kind.namespaced:
                everywhere = self.operation("list", "list", f"{kind.kind}ForAllNamespaces", many, ("200",), _LIST)
                paths[f"{self.base}/{kind.plural}"] = {
                    "get": everywhere,
                    "parameters": self.shared(name=False, namespaced=False),
                }
        if "create" in verbs:
            suffix = f"{scope}{kind.kind}"
            collection["post"] = self.operation("post", "create", suffix, me, ("200", "201", "202"), _WRITE, me)
        if "deletecollection" in verbs:
            collection["delete"] = self.operation(
                "deletecollection",
                "delete",
                f"Collection{scope}{kind.kind}",
                self.schemas.meta("Status"),
                ("200",),
                (*_DELETE, *(name for name in _LIST if name not in ("watch", "allowWatchBookmarks"))),
                self.schemas.meta("DeleteOptions"),
            )
        if collection:
            paths[self.collection] = {**collection, "parameters": self.shared(name=False)}
        item = self._item(verbs, me, f"{scope}{kind.kind}", self.gvk, deletes=True)
        if item:
            paths[self.collection + "/{name}"] = {**item, "parameters": self.shared(name=True)}
        for subresource in resource.subresources.values():
            paths.update(self._subresource(subresource, scope))
        return paths

    def _item(
        self, verbs: set[str], schema: dict[str, Any], suffix: str, gvk: dict[str, str], *, deletes: bool
    ) -> dict[str, Any]:
        out: dict[str, Any] = {}
        if "get" in verbs:
            out["get"] = self.operation("get", "read", suffix, schema, ("200",), (), gvk=gvk)
        if "update" in verbs:
            out["put"] = self.operation("put", "replace", suffix, schema, ("200", "201"), _WRITE, schema, gvk)
        if "patch" in verbs:
            patch = self.schemas.meta("Patch")
            parameters = (*_WRITE, "force")
            out["patch"] = self.operation("patch", "patch", suffix, schema, ("200", "201"), parameters, patch, gvk)
        if deletes and "delete" in verbs:
            status, body = self.schemas.meta("Status"), self.schemas.meta("DeleteOptions")
            out["delete"] = self.operation("delete", "delete", suffix, status, ("200", "202"), _DELETE, body, gvk)
        return out

    def _subresource(self, subresource: Subresource, scope: str) -> dict[str, Any]:
        kind = subresource.kind
        name = definition_name(kind.group, kind.version, kind.kind)
        path = f"{self.collection}/{{name}}/{subresource.name}"
        gvk = {"group": kind.group, "version": kind.version, "kind": kind.kind}
        suffix = f"{scope}{self.resource.kind.kind}{subresource.name.capitalize()}"
        if kind == self.resource.kind:
            schema = self.schemas.of(self.resource)
        elif name is not None:
            schema = self.schemas.ref(name)
        else:
            schema = {"type": "string"}
            methods = {"get": "get", "create": "post", "update": "put", "patch": "patch", "delete": "delete"}
            operations = {
                methods[verb]: self.operation("connect", f"connect{method.capitalize()}", suffix, schema, ("200",), ())
                for verb, method in methods.items()
                if verb in subresource.verbs
            }
            for operation in operations.values():
                operation["x-kubernetes-group-version-kind"] = gvk
            return {path: {**operations, "parameters": self.shared(name=True)}}
        item = self._item(set(subresource.verbs), schema, suffix, gvk, deletes=False)
        if "create" in subresource.verbs:
            item["post"] = self.operation("post", "create", suffix, schema, ("200", "201", "202"), _WRITE, schema, gvk)
        return {path: {**item, "parameters": self.shared(name=True)}} if item else {}


def paths_of(resource: Resource, schemas: SchemaSet) -> dict[str, Any]:
    """Every path of a resource, its subresources' included."""
    return _Builder(resource, schemas).build()
