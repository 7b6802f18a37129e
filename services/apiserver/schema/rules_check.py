"""Which `x-kubernetes-validations` may stand in a schema: they compile, name what is there, and can't cost too much.
Judged when a CustomResourceDefinition is written."""

from __future__ import annotations

import re
from typing import Any

from machinery import cel
from machinery.api.errors import Cause
from machinery.cel.shapes import DYN, Shape
from machinery.cel.tree import mentions
from machinery.cel.typed import escaped
from services.apiserver.schema import causes, rules_cost
from services.apiserver.schema.rules_cel import REASONS, estimated, program_of
from services.apiserver.schema.rules_types import RuleTypes
from services.apiserver.schema.structural import LIST_TYPE, RULES

Schema = dict[str, Any]

_LINE_BREAK = re.compile(r"[\n\r]")


def problems(schema: Schema, path: str) -> list[Cause]:
    """What is wrong with the rules of a schema that stands at `path` in its CRD: they are not well formed, don't
    compile, or could cost too much, one by one or together.
    """
    shape = rules_cost.shape_of(schema, root=True) or DYN
    check = _Check(RuleTypes(shape))
    check.walk(schema, path, shape, 1, "")
    return check.found + check.budget.verdict(path)


class _Check:
    """One walk over a schema."""

    def __init__(self, types: RuleTypes) -> None:
        self.found: list[Cause] = []
        self.budget = rules_cost.Budget()
        self._types = types

    def walk(self, schema: Schema, path: str, shape: Shape | None, times: int | None, uncorrelatable: str) -> None:
        """`times` is how often the node can stand in an object, `uncorrelatable` the path of the node above whose
        values can't be told from each other."""
        for index, rule in enumerate(schema.get(RULES) or ()):
            self._rule(rule, f"{path}.{RULES}[{index}]", shape or DYN, times, uncorrelatable)
        for name, below in (schema.get("properties") or {}).items():
            inner = shape and shape.fields.get(escaped(name))
            self.walk(below, f"{path}.properties[{name}]", inner, times, uncorrelatable)
        items, extra = schema.get("items"), schema.get("additionalProperties")
        more, inner = rules_cost.times_below(schema, times), shape and shape.item
        if isinstance(items, dict):
            lost = uncorrelatable or ("" if schema.get(LIST_TYPE) == "map" else path)
            self.walk(items, f"{path}.items", inner, more, lost)
        if isinstance(extra, dict):
            self.walk(extra, f"{path}.additionalProperties", inner, more, uncorrelatable)

    def _rule(self, rule: dict[str, Any], path: str, shape: Shape, times: int | None, uncorrelatable: str) -> None:
        malformed = _malformed(rule, path)
        self.found += malformed
        if malformed:
            return
        optional = rule.get("optionalOldSelf")
        for name, wanted in (("rule", "bool"), ("messageExpression", "string")):
            source = rule.get(name)
            if not source:
                continue
            here = f"{path}.{name}"
            wrong = self._uncompilable(name, source, wanted, shape, bool(optional))
            if wrong:
                self.found.append(causes.invalid(here, source, wrong))
                continue
            tree = cel.compile(source, ("self", "oldSelf")).tree
            cost = estimated(tree, shape, bool(optional))
            if name == "rule":
                self.found += self.budget.charge(here, "rule", rules_cost.total(cost, times, shape))
                self._old_self(source, mentions(tree, "oldSelf"), optional, path, uncorrelatable)
            else:
                self.found += self.budget.charge(here, name, cost)

    def _uncompilable(self, name: str, source: str, wanted: str, shape: Shape, optional: bool) -> str:
        """Why an expression can't be taken; empty if it can."""
        try:
            program_of(source, optional)
        except cel.CelError as error:
            return str(error) if name == "rule" else f"messageExpression {error}"
        wrong = self._types.problem(source, shape, wanted, old_is_optional=optional)
        if wrong == wanted:
            return f"{'cel expression' if name == 'rule' else name} must evaluate to a {wanted}"
        return wrong if name == "rule" or not wrong else f"messageExpression {wrong}"

    def _old_self(self, source: str, used: bool, optional: bool | None, path: str, uncorrelatable: str) -> None:
        if used and uncorrelatable:
            detail = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {uncorrelatable}"
            self.found.append(causes.invalid(f"{path}.rule", source, detail))
        if not used and optional is not None:
            detail = "may not be set if oldSelf is not used in rule"
            self.found.append(causes.invalid(f"{path}.optionalOldSelf", optional, detail))


def _malformed(rule: dict[str, Any], path: str) -> list[Cause]:
    """What is wrong with a rule's texts, whatever the expressions say."""
    found: list[Cause] = []
    source, message = rule.get("rule") or "", rule.get("message") or ""
    if not source.strip():
        found.append(causes.required(f"{path}.rule", "rule is not specified"))
    elif message and not message.strip():
        found.append(causes.invalid(f"{path}.message", message, "must be non-empty if specified"))
    elif _LINE_BREAK.search(message.strip()):
        found.append(causes.invalid(f"{path}.message", message, "must not contain line breaks"))
    elif _LINE_BREAK.search(source.strip()) and not message.strip():
        found.append(causes.required(f"{path}.message", "message must be specified if rule contains line breaks"))
    expression = rule.get("messageExpression") or ""
    if expression and not expression.strip():
        found.append(causes.required(f"{path}.messageExpression", "must be non-empty if specified"))
    reason, field_path = rule.get("reason"), rule.get("fieldPath") or ""
    if reason is not None and reason not in REASONS:
        found.append(causes.not_supported(f"{path}.reason", reason, REASONS))
    if field_path and not field_path.strip():
        found.append(causes.invalid(f"{path}.fieldPath", field_path, "must be non-empty if specified"))
    if _LINE_BREAK.search(field_path):
        found.append(causes.invalid(f"{path}.fieldPath", field_path, "must not contain line breaks"))
    return found
