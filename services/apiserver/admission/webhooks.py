"""Mutating and validating admission webhooks.

Mutating ones are asked one after another, by configuration name and then in their order; one that wants to be reinvoked
is asked again if a later one changed the object. Validating ones are asked together. Upstream:
k8s.io/apiserver/pkg/admission/plugin/webhook.
"""

from __future__ import annotations

import asyncio
import base64
import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from machinery.api import errors
from services.apiserver import codec
from services.apiserver.admission import rules
from services.apiserver.admission.chain import AsyncPlugin
from services.apiserver.admission.expressions import Bound, conditions_hold
from services.apiserver.admission.review import put_back, request_of, seen_as
from services.apiserver.admission.webhook_client import WebhookClient, WebhookFailed, failed
from services.apiserver.auth.rbac import Authorizer
from services.apiserver.registry.resource import Registry, Resource
from services.apiserver.watch_cache import WatchCache
from services.apiserver.write_context import WriteContext

TIMEOUT_SECONDS = 10
_NO_SIDE_EFFECTS = ("None", "NoneOnDryRun")


@dataclass(frozen=True, slots=True)
class _Hook:
    """One webhook of one configuration."""

    configuration: str
    spec: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.spec.get("name", ""))

    @property
    def fails_closed(self) -> bool:
        return bool(self.spec.get("failurePolicy", "Fail") == "Fail")


class Webhooks(AsyncPlugin):
    """What both kinds share: which hooks there are, and which are for a write."""

    storage = ""

    def __init__(self, registry: Registry, cache: WatchCache, client: WebhookClient, authorizer: Authorizer) -> None:
        self._registry = registry
        self._authorizer = authorizer
        self._cache = cache
        self._client = client
        self._hooks: list[_Hook] | None = None
        self._following = False

    def cares(self, ctx: WriteContext) -> bool:
        return ctx.resource.storage not in rules.EXEMPT

    def hooks(self) -> list[_Hook]:
        """All webhooks, in the order in which they are asked."""
        if not self._following:
            self._cache.of(self.storage).listeners.append(self._forget)
            self._following = True
        if self._hooks is None:
            self._hooks = [
                _Hook(entry.name, spec)
                for entry in self._cache.of(self.storage).listed("")
                for spec in codec.decode(entry.value).get("webhooks") or ()
            ]
        return self._hooks

    def _forget(self, _old: Any, _new: Any) -> None:
        self._hooks = None

    async def wanted(self, hook: _Hook, ctx: WriteContext) -> Resource | None:
        """The row as which the hook is asked about this write; None if it is not. Raises InternalError (conditions,
        failing closed)."""
        spec = hook.spec
        if not rules.namespace_selected(spec.get("namespaceSelector"), ctx):
            return None
        if not rules.object_selected(spec.get("objectSelector"), ctx):
            return None
        policy = spec.get("matchPolicy") or "Equivalent"
        row = rules.matching_row(spec.get("rules") or (), policy, ctx, self._registry)
        if row is None:
            return None
        conditions = spec.get("matchConditions")
        if conditions:
            hold, problem = conditions_hold(conditions, Bound(ctx, row, await seen_as(ctx, row), self._authorizer))
            if problem and hook.fails_closed:
                raise failed(hook.name, f"match conditions could not be evaluated: {problem}")
            if not hold:
                return None
        if ctx.dry_run and spec.get("sideEffects") not in _NO_SIDE_EFFECTS:
            raise errors.BadRequest(f"admission webhook {hook.name!r} does not support dry run".replace("'", '"'))
        return row

    async def ask(self, hook: _Hook, ctx: WriteContext, row: Resource) -> Mapping[str, Any] | None:
        """The hook's answer; None if it failed and may be ignored. Raises InternalError, or what the hook refuses
        with."""
        request = request_of(ctx, row, await seen_as(ctx, row))
        review = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}
        timeout = hook.spec.get("timeoutSeconds") or TIMEOUT_SECONDS
        try:
            answer = await self._client.post(hook.spec.get("clientConfig") or {}, review, timeout)
            response = answer.get("response") if isinstance(answer, dict) else None
            if not isinstance(response, dict) or response.get("uid") != request["uid"]:
                raise WebhookFailed("the answer is not an AdmissionReview with the request's uid")
        except WebhookFailed as err:
            if hook.fails_closed:
                raise failed(hook.name, str(err)) from err
            return None
        ctx.warnings += [str(warning) for warning in response.get("warnings") or ()]
        if not response.get("allowed"):
            raise refusal(hook.name, response.get("status") or {})
        return response


class MutatingWebhooks(Webhooks):
    """MutatingAdmissionWebhook."""

    operations = frozenset(("CREATE", "UPDATE", "DELETE", "CONNECT"))
    storage = f"mutatingwebhookconfigurations.{rules.GROUP}"

    async def mutate_async(self, ctx: WriteContext) -> bool:
        hooks = self.hooks()
        if not hooks:
            return False
        changed_by: list[int] = []
        for index, hook in enumerate(hooks):
            if await self._apply(hook, ctx):
                changed_by.append(index)
        if changed_by:
            for index, hook in enumerate(hooks):
                again = hook.spec.get("reinvocationPolicy") == "IfNeeded" and changed_by[-1] > index
                if again:
                    await self._apply(hook, ctx)
        return bool(changed_by)

    async def _apply(self, hook: _Hook, ctx: WriteContext) -> bool:
        row = await self.wanted(hook, ctx)
        if row is None:
            return False
        response = await self.ask(hook, ctx, row)
        patch = (response or {}).get("patch")
        if not patch:
            return False
        if ctx.operation in ("DELETE", "CONNECT"):
            raise errors.InternalError(
                f'admission webhook "{hook.name}" attempted to modify the object, '
                "which is not supported for this operation"
            )
        return await self._patched(hook, ctx, row, patch)

    async def _patched(self, hook: _Hook, ctx: WriteContext, row: Resource, patch: str) -> bool:
        from services.apiserver.patch import json_patch

        try:
            operations = orjson.loads(base64.b64decode(patch))
            document, _ = await seen_as(ctx, row)
            changed = json_patch.apply(copy.deepcopy(document), operations)
        except (ValueError, errors.ApiError) as err:
            raise errors.InternalError(
                f'Internal error occurred: webhook "{hook.name}" sent a patch that can not be applied: {err}'
            ) from err
        if changed == document:
            return False
        await put_back(ctx, row, changed)
        return True


class ValidatingWebhooks(Webhooks):
    """ValidatingAdmissionWebhook."""

    operations = frozenset(("CREATE", "UPDATE", "DELETE", "CONNECT"))
    storage = f"validatingwebhookconfigurations.{rules.GROUP}"

    async def validate_async(self, ctx: WriteContext) -> None:
        due = [(hook, row) for hook in self.hooks() if (row := await self.wanted(hook, ctx)) is not None]
        if len(due) < 2:
            for hook, row in due:
                await self.ask(hook, ctx, row)
            return
        outcomes = await asyncio.gather(*(self.ask(hook, ctx, row) for hook, row in due), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome


def refusal(name: str, status: Mapping[str, Any]) -> errors.ApiError:
    """A webhook's refusal as the caller's error: the webhook chooses the code, 403 if it does not."""
    message, reason = status.get("message") or "", status.get("reason") or ""
    text = f'admission webhook "{name}" denied the request'
    text += f": {message or reason}" if message or reason else " without explanation"
    known = errors.from_status({**status, "message": text, "code": status.get("code") or 403})
    if not reason and not status.get("code"):
        return errors.Forbidden(text)
    return known
