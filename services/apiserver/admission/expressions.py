"""CEL in admission: match conditions, policies' variables and validations, over one write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from machinery.cel import authorization
from services.apiserver.admission.review import Seen, request_of
from services.apiserver.auth.attributes import Attributes
from services.apiserver.auth.rbac import Authorizer
from services.apiserver.registry.resource import Resource
from services.apiserver.request import User
from services.apiserver.write_context import WriteContext

VARIABLES = ("object", "oldObject", "request", "params", "namespaceObject", "variables", "authorizer")


class Bound:
    """What expressions see of a write, and what is left of what they may cost. Made once a write and row; `variables`
    grows as a policy's are evaluated.

    The `authorizer` among them answers for the user who writes.
    """

    def __init__(
        self, ctx: WriteContext, row: Resource, seen: Seen, authorizer: Authorizer, params: Any = None
    ) -> None:
        self._user = ctx.user
        self._authorizer = authorizer
        self._budget: Any = None
        self._conditions_budget: Any = None
        request = request_of(ctx, row, seen)
        namespace = ctx.lookup.get("namespaces", "", ctx.namespace) if ctx.namespace else None
        self.values: dict[str, Any] = {
            "object": request.pop("object"),
            "oldObject": request.pop("oldObject"),
            "request": {key: value for key, value in request.items() if value is not None},
            "params": params,
            "namespaceObject": _namespace(namespace),
            "variables": {},
            "authorizer": authorization.variable(
                ctx.resource.group, ctx.resource.plural, ctx.subresource, ctx.namespace, ctx.name
            ),
        }

    def evaluate(self, expression: str, *, condition: bool = False) -> Any:
        """Raises cel.CelError; its OutOfBudget if this and what came before cost too much. Match conditions have a
        budget of their own."""
        from machinery import cel
        from machinery.cel.budget import Budget
        from machinery.cel.costs import MATCH_CONDITIONS_MAX

        program = cel.compile(expression, VARIABLES)
        if self._budget is None:
            self._budget, self._conditions_budget = Budget(), Budget(MATCH_CONDITIONS_MAX)
        (self._conditions_budget if condition else self._budget).charge(program, self.values)
        with authorization.judged_by(self._judge):
            return program.evaluate(self.values)

    def _judge(self, check: authorization.Check) -> tuple[bool, str]:
        namespace, _, name = check.get("serviceAccount", "").partition("/")
        user = service_account(namespace, name) if name else self._user
        if "path" in check:
            attributes = Attributes(user, check["verb"], path=check["path"])
        else:
            attributes = Attributes(
                user, check["verb"], check.get("group", ""), "*", check.get("resource", ""),
                check.get("subresource", ""), check.get("namespace", ""), check.get("name", ""),
                field_selector=check.get("fieldSelector", ""), label_selector=check.get("labelSelector", ""),
            )  # fmt: skip
        decision = self._authorizer.authorize(attributes)
        return decision.allowed, decision.reason


def service_account(namespace: str, name: str) -> User:
    """A service account as a user."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return User(f"system:serviceaccount:{namespace}:{name}", groups=groups)


def _namespace(namespace: Mapping[str, Any] | None) -> Any:
    if namespace is None:
        return None
    kept = ("name", "labels", "annotations", "creationTimestamp", "uid", "finalizers")
    metadata = {key: value for key, value in namespace["metadata"].items() if key in kept}
    return {"metadata": metadata, "spec": namespace.get("spec") or {}, "status": namespace.get("status") or {}}


def conditions_hold(conditions: Iterable[Mapping[str, Any]], bound: Bound) -> tuple[bool, str]:
    """(whether all hold, what could not be evaluated). One that is false decides, whatever failed beside it."""
    from machinery import cel
    from machinery.cel.errors import OutOfBudget

    problem = ""
    for condition in conditions:
        try:
            if bound.evaluate(condition["expression"], condition=True) is not True:
                return False, ""
        except OutOfBudget as err:
            return False, str(err)
        except cel.CelError as err:
            problem = problem or f"{condition.get('name')}: {err}"
    return not problem, problem
