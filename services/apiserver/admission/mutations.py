"""MutatingAdmissionPolicy: changes to objects, written in CEL and bound to what they are for.

    ApplyConfiguration   an object that is merged over the written one, as server-side apply merges
    JSONPatch            a list of operations

Policies come one after another, by name; one that wants to be reinvoked is evaluated again if a later one changed the
object. https://kubernetes.io/docs/reference/access-authn-authz/mutating-admission-policy/
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from machinery import cel
from machinery.api import errors
from services.apiserver import ownership
from services.apiserver.admission import rules
from services.apiserver.admission.expressions import Bound, conditions_hold
from services.apiserver.admission.policies import NoParameters, Policies, bind_variables, cause_in
from services.apiserver.admission.review import put_back, seen_as
from services.apiserver.patch import json_patch, typed
from services.apiserver.registry.resource import Resource
from services.apiserver.schema import cel_objects
from services.apiserver.write_context import WriteContext

Obj = dict[str, Any]


class MutationFailed(Exception):
    """A mutation that can't be evaluated or applied; the message says why."""


class MutatingPolicies(Policies):
    """Changes writes as the policies that are bound to them say."""

    operations = frozenset(("CREATE", "UPDATE"))
    policies = f"mutatingadmissionpolicies.{rules.GROUP}"
    bindings = f"mutatingadmissionpolicybindings.{rules.GROUP}"

    async def mutate_async(self, ctx: WriteContext) -> bool:
        bound = self.bound_to(ctx)
        changed_by = [index for index, one in enumerate(bound) if await self._apply(ctx, *one)]
        for index, one in enumerate(bound):
            again = one[1]["spec"].get("reinvocationPolicy") == "IfNeeded"
            if again and changed_by and changed_by[-1] > index:
                await self._apply(ctx, *one)
        return bool(changed_by)

    async def _apply(self, ctx: WriteContext, row: Resource, policy: Obj, binding: Obj) -> bool:
        spec, before = policy["spec"], copy.deepcopy(ctx.obj)
        try:
            for params in list(self.parameters(ctx, policy, binding)):
                obj, old = await seen_as(ctx, row)
                obj = copy.deepcopy(obj) or {}
                changed = mutated(spec, Bound(ctx, row, (obj, old), self.authorizer, params), row)
                if changed is None or changed == obj:
                    continue
                await put_back(ctx, row, changed)
        except (MutationFailed, NoParameters, errors.ApiError) as err:
            if spec.get("failurePolicy", "Fail") == "Fail":
                about = f"policy '{policy['metadata']['name']}' with binding '{binding['metadata']['name']}'"
                raise errors.Invalid(f"{about} denied request: {getattr(err, 'message', err)}") from err
            ctx.obj = before
            return False
        return bool(ctx.obj != before)


def mutated(spec: Mapping[str, Any], bound: Bound, row: Resource) -> Obj | None:
    """The object of the write, as `row` has it, after a policy's mutations; None where its conditions do not hold.
    Raises MutationFailed.
    """
    obj = bound.values["object"]
    hold, problem = conditions_hold(spec.get("matchConditions") or (), bound)
    if problem:
        raise MutationFailed(problem)
    if not hold:
        return None
    broken = bind_variables(spec, bound)
    for mutation in spec.get("mutations") or ():
        kind = mutation.get("patchType")
        field = "jsonPatch" if kind == "JSONPatch" else "applyConfiguration"
        expression = (mutation.get(field) or {}).get("expression") or ""
        try:
            value = bound.evaluate(cel_objects.as_maps(expression))
        except cel.CelError as err:
            why = cause_in(broken, expression) or str(err)
            raise MutationFailed(f"expression '{expression.strip()}' resulted in error: {why}") from err
        obj = patched(obj or {}, value) if kind == "JSONPatch" else merged(ownership.served_node(row), obj or {}, value)
        # The next mutation sees what this one did.
        bound.values["object"] = obj
    return obj


def patched(obj: Obj, operations: Any) -> Obj:
    """An object with a JSON patch applied. Raises MutationFailed."""
    if not isinstance(operations, list):
        raise MutationFailed("type mismatch: JSONPatchType.Expression must evaluate to an array")
    try:
        changed = json_patch.apply(copy.deepcopy(obj), operations)
    except json_patch.TestFailed:
        # A patch that tests for another state is not applied, and that is no error.
        return obj
    except errors.ApiError as err:
        raise MutationFailed(f"JSON Patch: {err.message}") from err
    if not isinstance(changed, dict):
        raise MutationFailed("JSON Patch: it does not leave an object")
    return changed


def merged(node: Any, obj: Obj, configuration: Any) -> Obj:
    """An object with an apply configuration merged over it. Raises MutationFailed."""
    if not isinstance(configuration, dict):
        raise MutationFailed("must evaluate to an Object")
    if node is None:
        raise MutationFailed("the kind has no schema to merge by")
    unknown = typed.undeclared(node, configuration)
    if unknown:
        names = ".".join(part.removeprefix("f:") for part in unknown[0])
        raise MutationFailed(f"no such field: .{names}")
    atomic = _atomic(node, configuration, "")
    if atomic:
        raise MutationFailed(f"invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {atomic}")
    return copy.deepcopy(typed.merge(node, obj, configuration))


def _atomic(node: Any, value: Any, path: str) -> str:
    """The path of the first list, map or struct in a configuration that can only be replaced whole; empty if there is
    none.
    """
    if not isinstance(value, dict):
        return ""
    for name, below in value.items():
        child, here = typed.child(node, name), f"{path}.{name}"
        if isinstance(below, dict | list) and typed.is_atomic(child, below):
            return here
        found = _atomic(child, below, here)
        if found:
            return found
    return ""
