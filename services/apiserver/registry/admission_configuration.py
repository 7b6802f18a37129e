"""Webhook configurations and admission policies: their expressions must compile before anything is judged by them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from machinery.api.errors import Cause
from services.apiserver.registry.strategy import Strategy
from services.apiserver.write_context import WriteContext

_CONDITION_VARIABLES = ("object", "oldObject", "request", "params", "namespaceObject", "variables", "authorizer")


class WebhookConfigurationStrategy(Strategy):
    """Updates say which version they change."""

    unconditional_update = False

    def validate_create(self, ctx: WriteContext) -> Sequence[Cause]:
        return [
            cause
            for index, hook in enumerate(ctx.obj.get("webhooks") or ())
            for cause in _conditions(hook, f"webhooks[{index}]")
        ]

    def validate_update(self, ctx: WriteContext) -> Sequence[Cause]:
        return self.validate_create(ctx)


class PolicyStrategy(Strategy):
    """Variables, validations and conditions of a policy."""

    generation = True

    def validate_create(self, ctx: WriteContext) -> Sequence[Cause]:
        spec = ctx.spec()
        found = list(_conditions(spec, "spec"))
        for field, part in (
            ("variables", "expression"),
            ("validations", "expression"),
            ("validations", "messageExpression"),
        ):
            for index, item in enumerate(spec.get(field) or ()):
                if item.get(part):
                    found += _compiled(item[part], f"spec.{field}[{index}].{part}")
        return found

    def validate_update(self, ctx: WriteContext) -> Sequence[Cause]:
        return self.validate_create(ctx) if ctx.subresource != "status" else ()


def _conditions(holder: dict[str, Any], path: str) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, condition in enumerate(holder.get("matchConditions") or ()):
        at = f"{path}.matchConditions[{index}]"
        name = condition.get("name", "")
        if name in seen:
            yield Cause("FieldValueDuplicate", f'Duplicate value: "{name}"', f"{at}.name")
        seen.add(name)
        yield from _compiled(condition.get("expression", ""), f"{at}.expression")


def _compiled(expression: str, path: str) -> Iterator[Cause]:
    from machinery import cel

    if not expression.strip():
        yield Cause("FieldValueRequired", "Required value", path)
        return
    try:
        cel.compile(expression, _CONDITION_VARIABLES)
    except cel.CelError as err:
        yield Cause("FieldValueInvalid", f'Invalid value: "{expression}": {err}', path)
