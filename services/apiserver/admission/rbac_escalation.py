"""Nobody grants more than they hold: judged where roles and bindings are written, as upstream's RBAC storage does."""

from __future__ import annotations

from services.apiserver.admission.chain import Plugin
from services.apiserver.auth import escalation, rbac
from services.apiserver.request import SYSTEM
from services.apiserver.write_context import WriteContext


class RbacEscalation(Plugin):
    """Roles, ClusterRoles and their bindings."""

    resources = frozenset((rbac.ROLES, rbac.CLUSTER_ROLES, rbac.ROLE_BINDINGS, rbac.CLUSTER_ROLE_BINDINGS))

    def __init__(self, authorizer: rbac.Authorizer) -> None:
        self._authorizer = authorizer

    def validate(self, ctx: WriteContext) -> None:
        if ctx.user is SYSTEM:
            return
        judge = escalation.check_role if ctx.resource.plural.endswith("roles") else escalation.check_binding
        judge(self._authorizer, ctx.user, ctx.resource.plural, ctx.obj, ctx.old)
