"""Says in the status of every ValidatingAdmissionPolicy that it was seen, and what its expressions have against the
types that it is for.

Upstream: pkg/controller/validatingadmissionpolicystatus. Every apiserver does this; the writes are idempotent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from machinery.api import errors
from machinery.cel import typed
from services.apiserver import codec, ownership
from services.apiserver.admission.expressions import VARIABLES
from services.apiserver.reconcile import Reconciler
from services.apiserver.registry.resource import Registry, Resource
from services.apiserver.request import SYSTEM, Request, WriteOptions
from services.apiserver.schema.cel_types import declare
from services.apiserver.watch_cache import WatchCache
from services.apiserver.writes import Writer

GROUP, PLURAL = "admissionregistration.k8s.io", "validatingadmissionpolicies"
TYPES_MAX = 10
"""Of how many kinds a policy is checked at most, as upstream has it: each costs a tenth of a second."""
_OPTIONS = WriteOptions(field_manager="validatingadmissionpolicy-status", field_validation="Ignore")

Obj = Mapping[str, Any]


def matched(policy: Obj, registry: Registry) -> list[Resource]:
    """The rows whose types are checked: those that rules name without wildcards, by group, version and kind."""
    found: dict[tuple[str, str, str], Resource] = {}
    for rule in (policy["spec"].get("matchConstraints") or {}).get("resourceRules") or ():
        parts = [rule.get(key) or [] for key in ("apiGroups", "apiVersions", "resources")]
        if any(value == "*" or "/" in value for values in parts for value in values):
            continue
        for group in sorted(parts[0]):
            for version in sorted(parts[1]):
                for plural in sorted(parts[2]):
                    row = registry.find(group, version, plural)
                    if row is not None:
                        found[group, version, row.kind.kind] = row
    return [found[key] for key in sorted(found)[:TYPES_MAX]]


def warnings(policy: Obj, rows: list[Resource], params: Resource | None) -> list[dict[str, str]]:
    """The expression warnings of a policy for the rows that it is for and the one of its parameters."""
    kinds = [(row, *_types(row, params)) for row in rows]
    found = []
    for field, expression in _expressions(policy):
        lines = []
        for row, types, variables in kinds:
            problem = typed.check(expression, types, variables)
            if problem:
                kind = row.kind
                lines.append(f"{kind.group}/{kind.version}, Kind={kind.kind}: {problem}\n")
        if lines:
            found.append({"fieldRef": field, "warning": "\n".join(lines)})
    return found


def _types(row: Resource, params: Resource | None) -> tuple[typed.Types, dict[str, str]]:
    types = typed.Types()
    variables = dict.fromkeys(VARIABLES, "")
    for names, one in ((("object", "oldObject"), row), (("params",), params)):
        node = ownership.served_node(one) if one is not None else None
        # A kind without a schema, or one that takes anything, is not checked.
        if one is not None and node is not None and node.fields and not node.open_fields:
            variables |= dict.fromkeys(names, declare(types, node, f"{one.kind.group}_{one.kind.kind}"))
    return types, variables


def _expressions(policy: Obj) -> Iterator[tuple[str, str]]:
    for index, validation in enumerate(policy["spec"].get("validations") or ()):
        for key in ("expression", "messageExpression"):
            if validation.get(key):
                yield f"spec.validations[{index}].{key}", validation[key]


class PolicyStatus:
    """Follows the policies."""

    def __init__(self, registry: Registry, cache: WatchCache, writer: Writer) -> None:
        self._registry = registry
        self._cache = cache
        self._writer = writer
        self.reconciler = Reconciler("the status of ValidatingAdmissionPolicies", self._look_at_all)

    def follow(self) -> None:
        """Hear of policies from now on."""
        self._cache.of(f"{PLURAL}.{GROUP}").listeners.append(self.reconciler.wake)

    async def _look_at_all(self) -> None:
        for entry in list(self._cache.of(f"{PLURAL}.{GROUP}").listed("")):
            await self._look_at(codec.decode(entry.value))

    async def _look_at(self, policy: Obj) -> None:
        generation = policy["metadata"].get("generation", 1)
        if (policy.get("status") or {}).get("observedGeneration", 0) >= generation:
            return
        kind = policy["spec"].get("paramKind") or {}
        params = self._registry.by_kind(kind.get("apiVersion", ""), kind.get("kind", ""))
        # In a thread: the first check of a kind takes a while, and others want to be served.
        found = await asyncio.to_thread(warnings, policy, matched(policy, self._registry), params)
        checking: dict[str, Any] = {"expressionWarnings": found or None}
        row = self._registry.resolve(GROUP, "v1", PLURAL)
        req = Request(SYSTEM, "patch", row, "status", "", policy["metadata"]["name"], "kube-apiserver")
        status = {"observedGeneration": generation, "typeChecking": checking}
        try:
            await self._writer.patch(req, "merge", {"status": status}, _OPTIONS)
        except errors.NotFound:
            return
