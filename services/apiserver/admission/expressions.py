"""CEL in admission: match conditions, policies' variables and validations, over one write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from services.apiserver.admission.review import Seen, request_of
from services.apiserver.registry.resource import Resource
from services.apiserver.write_context import WriteContext

VARIABLES = ("object", "oldObject", "request", "params", "namespaceObject", "variables", "authorizer")


class Bound:
    """What expressions see of a write. Made once a write and row; `variables` grows as a policy's are evaluated."""

    def __init__(self, ctx: WriteContext, row: Resource, seen: Seen, params: Any = None) -> None:
        request = request_of(ctx, row, seen)
        namespace = ctx.lookup.get("namespaces", "", ctx.namespace) if ctx.namespace else None
        self.values: dict[str, Any] = {
            "object": request.pop("object"),
            "oldObject": request.pop("oldObject"),
            "request": {key: value for key, value in request.items() if value is not None},
            "params": params,
            "namespaceObject": _namespace(namespace),
            "variables": {},
            "authorizer": {},
        }

    def evaluate(self, expression: str) -> Any:
        """Raises cel.CelError."""
        from machinery import cel

        return cel.compile(expression, VARIABLES).evaluate(self.values)


def _namespace(namespace: Mapping[str, Any] | None) -> Any:
    if namespace is None:
        return None
    kept = ("name", "labels", "annotations", "creationTimestamp", "uid", "finalizers")
    metadata = {key: value for key, value in namespace["metadata"].items() if key in kept}
    return {"metadata": metadata, "spec": namespace.get("spec") or {}, "status": namespace.get("status") or {}}


def conditions_hold(conditions: Iterable[Mapping[str, Any]], bound: Bound) -> tuple[bool, str]:
    """(whether all hold, what could not be evaluated). One that is false decides, whatever failed beside it."""
    from machinery import cel

    problem = ""
    for condition in conditions:
        try:
            if bound.evaluate(condition["expression"]) is not True:
                return False, ""
        except cel.CelError as err:
            problem = problem or f"{condition.get('name')}: {err}"
    return not problem, problem
