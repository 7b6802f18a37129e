"""ValidatingAdmissionPolicy: rules about objects, written in CEL and bound to what they are for.

    policy    which writes (matchConstraints, matchConditions), variables, validations, what kind of parameters
    binding   where the policy holds (matchResources), with which parameters, and what a violation does: Deny, Warn,
    Audit

https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from machinery.api import errors
from machinery.api.selectors import from_label_selector
from machinery.component import logs
from services.apiserver import codec
from services.apiserver.admission import rules
from services.apiserver.admission.chain import AsyncPlugin
from services.apiserver.admission.expressions import Bound, conditions_hold
from services.apiserver.admission.review import Seen, seen_as
from services.apiserver.auth.rbac import Authorizer
from services.apiserver.registry.resource import Registry, Resource
from services.apiserver.watch_cache import WatchCache
from services.apiserver.write_context import WriteContext

log = logs.get("policies")

_ERRORS: dict[str, type[errors.ApiError]] = {
    "Unauthorized": errors.Unauthorized,
    "Forbidden": errors.Forbidden,
    "RequestEntityTooLarge": errors.RequestTooLarge,
}


class Policies(AsyncPlugin):
    """What both kinds share: which policies there are, and which are bound to a write."""

    policies = ""
    bindings = ""

    def __init__(self, registry: Registry, cache: WatchCache, authorizer: Authorizer) -> None:
        self._registry = registry
        self._cache = cache
        self.authorizer = authorizer
        # (policy, its bindings); None when one of them has changed.
        self._bound: list[tuple[dict[str, Any], list[dict[str, Any]]]] | None = None
        self._following = False

    def cares(self, ctx: WriteContext) -> bool:
        return ctx.resource.storage not in rules.EXEMPT and ctx.resource.group not in rules.REVIEW_GROUPS

    def bound_to(self, ctx: WriteContext) -> list[tuple[Resource, dict[str, Any], dict[str, Any]]]:
        """(the row as which the write matches, policy, binding), by names."""
        found = []
        for policy, bindings in self._policies():
            row = rules.resources_match(policy["spec"].get("matchConstraints") or {}, ctx, self._registry)
            if row is None:
                continue
            for binding in bindings:
                if rules.resources_match(binding["spec"].get("matchResources"), ctx, self._registry) is not None:
                    found.append((row, policy, binding))
        return found

    def _policies(self) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
        if not self._following:
            for storage in (self.policies, self.bindings):
                self._cache.of(storage).listeners.append(self._forget)
            self._following = True
        if self._bound is None:
            bindings = [codec.decode(entry.value) for entry in self._cache.of(self.bindings).listed("")]
            policies = (codec.decode(entry.value) for entry in self._cache.of(self.policies).listed(""))
            pairs = (
                (policy, [item for item in bindings if item["spec"].get("policyName") == policy["metadata"]["name"]])
                for policy in policies
            )
            self._bound = [(policy, own) for policy, own in pairs if own]
        return self._bound

    def _forget(self, _old: Any, _new: Any) -> None:
        self._bound = None

    def parameters(self, ctx: WriteContext, policy: dict[str, Any], binding: dict[str, Any]) -> Iterator[Any]:
        """The parameter objects that a binding names; one None if the policy takes none. Raises NoParameters."""
        kind, ref = policy["spec"].get("paramKind"), binding["spec"].get("paramRef")
        if not kind or not ref:
            yield None
            return
        row = self._registry.by_kind(kind.get("apiVersion", ""), kind.get("kind", ""))
        if row is None:
            raise NoParameters(
                f"failed to find resource referenced by paramKind: '{kind.get('apiVersion')}, Kind={kind.get('kind')}'"
            )
        namespace = (ref.get("namespace") or ctx.namespace) if row.namespaced else ""
        if ref.get("name"):
            found = ctx.lookup.get(row.storage, namespace, ref["name"])
            objects = [found] if found is not None else []
        else:
            selector = from_label_selector(ref.get("selector") or {})
            objects = [
                item
                for item in ctx.lookup.list(row.storage, namespace)
                if selector.matches(item["metadata"].get("labels") or {})
            ]
        if not objects and ref.get("parameterNotFoundAction", "Deny") == "Deny":
            raise NoParameters("no params found for policy binding with `Deny` parameterNotFoundAction")
        yield from objects


class ValidatingPolicies(Policies):
    """Judges writes by the policies that are bound to them."""

    operations = frozenset(("CREATE", "UPDATE", "DELETE", "CONNECT"))
    policies = f"validatingadmissionpolicies.{rules.GROUP}"
    bindings = f"validatingadmissionpolicybindings.{rules.GROUP}"

    async def validate_async(self, ctx: WriteContext) -> None:
        for row, policy, binding in self.bound_to(ctx):
            self._judge(ctx, row, await seen_as(ctx, row), policy, binding)

    def _judge(
        self, ctx: WriteContext, row: Resource, seen: Seen, policy: dict[str, Any], binding: dict[str, Any]
    ) -> None:
        closed = policy["spec"].get("failurePolicy", "Fail") == "Fail"
        name, bound_by = policy["metadata"]["name"], binding["metadata"]["name"]
        try:
            parameters = list(self.parameters(ctx, policy, binding))
        except NoParameters as err:
            if closed:
                raise _denied(name, bound_by, f"failed to configure binding: {err}", "Invalid") from err
            return
        for params in parameters:
            bound = Bound(ctx, row, seen, self.authorizer, params)
            for problem, reason in violations(policy["spec"], bound, closed=closed):
                self._act(ctx, name, bound_by, binding["spec"].get("validationActions") or ["Deny"], problem, reason)

    def _act(self, ctx: WriteContext, name: str, bound_by: str, actions: list[str], problem: str, reason: str) -> None:
        if "Deny" in actions:
            raise _denied(name, bound_by, problem, reason)
        if "Warn" in actions:
            ctx.warnings.append(
                f"Validation failed for ValidatingAdmissionPolicy '{name}' with binding '{bound_by}': {problem}"
            )
        if "Audit" in actions:
            log.info(
                "policy violated",
                policy=name,
                binding=bound_by,
                resource=ctx.resource.plural,
                name=ctx.name,
                why=problem,
            )


class NoParameters(Exception):
    """The binding's parameters do not exist."""


def cause_in(broken: Mapping[str, str], expression: str) -> str:
    """What is wrong with a broken variable that an expression uses; empty if it uses none."""
    return next((text for name, text in broken.items() if f"variables.{name}" in expression), "")


def violations(spec: Mapping[str, Any], bound: Bound, *, closed: bool) -> Iterator[tuple[str, str]]:
    """(what is wrong, reason) for each validation of a policy that does not hold."""
    from machinery import cel
    from machinery.cel.errors import OutOfBudget

    hold, problem = conditions_hold(spec.get("matchConditions") or (), bound)
    if not hold:
        if problem and closed:
            yield problem, "Invalid"
        return
    broken = bind_variables(spec, bound)
    for validation in spec.get("validations") or ():
        expression = validation["expression"]
        reason = validation.get("reason") or "Invalid"
        try:
            holds = bound.evaluate(expression) is True
        except OutOfBudget as err:
            if closed:
                yield str(err), "Invalid"
            return
        except cel.CelError as err:
            why = cause_in(broken, expression) or str(err)
            if closed:
                yield f"expression '{expression}' resulted in error: {why}", "Invalid"
            continue
        if not holds:
            yield _message(validation, bound, expression), reason


def bind_variables(spec: Mapping[str, Any], bound: Bound) -> dict[str, str]:
    """Evaluate a policy's variables; those that can't be, with why. That counts only where one is used: evaluation is
    lazy upstream.
    """
    from machinery import cel
    from services.apiserver.schema import cel_objects

    broken: dict[str, str] = {}
    for variable in spec.get("variables") or ():
        try:
            bound.values["variables"][variable["name"]] = bound.evaluate(cel_objects.as_maps(variable["expression"]))
        except cel.CelError as err:
            broken[variable["name"]] = str(err)
    return broken


def _message(validation: Mapping[str, Any], bound: Bound, expression: str) -> str:
    from machinery import cel

    if validation.get("messageExpression"):
        try:
            text = bound.evaluate(validation["messageExpression"])
        except cel.CelError:
            text = ""
        if isinstance(text, str) and text.strip() and "\n" not in text:
            return text
    return validation.get("message") or f"failed expression: {expression.strip()}"


def _denied(name: str, binding: str, problem: str, reason: str) -> errors.ApiError:
    text = f"ValidatingAdmissionPolicy '{name}' with binding '{binding}' denied request: {problem}"
    return _ERRORS.get(reason, errors.Invalid)(text)
