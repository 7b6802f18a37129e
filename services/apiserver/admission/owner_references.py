"""OwnerReferencesPermissionEnforcement: who makes an object block its owner's deletion must be allowed to change the
owner's finalizers."""

from __future__ import annotations

from typing import Any

from machinery.api import errors
from services.apiserver.admission.chain import Plugin
from services.apiserver.auth.attributes import Attributes
from services.apiserver.auth.rbac import Authorizer
from services.apiserver.registry.resource import Registry
from services.apiserver.write_context import WriteContext


class OwnerReferences(Plugin):
    """Judges owner references that newly have `blockOwnerDeletion`."""

    def __init__(self, authorizer: Authorizer, registry: Registry) -> None:
        self._authorizer = authorizer
        self._registry = registry

    def validate(self, ctx: WriteContext) -> None:
        owners = ctx.metadata.get("ownerReferences")
        if not owners:
            return
        old = (ctx.old or {}).get("metadata", {}).get("ownerReferences") or []
        blocked_before = {owner.get("uid") for owner in old if owner.get("blockOwnerDeletion")}
        for owner in owners:
            if owner.get("blockOwnerDeletion") and owner.get("uid") not in blocked_before:
                self._judge(ctx, owner)

    def _judge(self, ctx: WriteContext, owner: dict[str, Any]) -> None:
        row = self._registry.by_kind(owner.get("apiVersion", ""), owner.get("kind", ""))
        if row is None:
            why = f"cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion " \
                  f"{owner.get('apiVersion')} Kind {owner.get('kind')}"  # fmt: skip
            raise errors.forbidden(ctx.resource.group, ctx.resource.plural, ctx.name, why)
        namespace = ctx.namespace if row.namespaced else ""
        attributes = Attributes(
            user=ctx.user, verb="update", group=row.group, version=row.version, resource=row.plural,
            subresource="finalizers",
            namespace=namespace, name=owner.get("name", ""),
        )  # fmt: skip
        if not self._authorizer.authorize(attributes).allowed:
            why = (
                "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: "
            )
            raise errors.forbidden(ctx.resource.group, ctx.resource.plural, ctx.name, why)
