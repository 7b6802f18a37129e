"""NamespaceLifecycle: nothing is created in a namespace that does not exist or is going away, and some namespaces never
go."""

from __future__ import annotations

from machinery.api import errors
from services.apiserver.admission.chain import Plugin
from services.apiserver.admission.rules import REVIEW_GROUPS
from services.apiserver.write_context import WriteContext

IMMORTAL = ("default", "kube-system", "kube-public")


class NamespaceLifecycle(Plugin):
    """Needed for correctness: the namespace controller could never finish emptying otherwise."""

    operations = frozenset(("CREATE", "DELETE"))

    def cares(self, ctx: WriteContext) -> bool:
        if ctx.operation == "DELETE":
            return ctx.resource.storage == "namespaces"
        # What a review says of a namespace, a refusal would say too: whether it exists.
        return ctx.operation == "CREATE" and ctx.resource.namespaced and ctx.resource.group not in REVIEW_GROUPS

    def validate(self, ctx: WriteContext) -> None:
        if ctx.operation == "DELETE" and ctx.name in IMMORTAL:
            raise errors.forbidden("", "namespaces", ctx.name, "this namespace may not be deleted")

    def mutate(self, ctx: WriteContext) -> None:
        if ctx.operation != "CREATE":
            return
        namespace = ctx.lookup.get("namespaces", "", ctx.namespace)
        if namespace is None:
            raise errors.not_found("", "namespaces", ctx.namespace)
        if "deletionTimestamp" in namespace["metadata"]:
            message = f"unable to create new content in namespace {ctx.namespace} because it is being terminated"
            error = errors.forbidden(ctx.resource.group, ctx.resource.plural, ctx.name, message)
            error.causes = (
                errors.Cause(
                    "NamespaceTerminating", f"namespace {ctx.namespace} is being terminated", "metadata.namespace"
                ),
            )
            raise error
