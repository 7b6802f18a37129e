"""NodeRestriction: a kubelet writes only its own Node, its own Lease, and the pods that are bound to it.

What a kubelet may *read* is the Node authorizer's business. Upstream: plugin/pkg/admission/noderestriction.
"""

from __future__ import annotations

from machinery.api import errors
from services.apiserver.admission.chain import Plugin
from services.apiserver.write_context import WriteContext

NODE_PREFIX = "system:node:"
NODES_GROUP = "system:nodes"
MIRROR = "kubernetes.io/config.mirror"
_RESTRICTED_PREFIX = "node-restriction.kubernetes.io"
_OWN_LABELS = frozenset(
    (
        "kubernetes.io/hostname", "kubernetes.io/arch", "kubernetes.io/os", "node.kubernetes.io/instance-type",
        "beta.kubernetes.io/instance-type", "beta.kubernetes.io/os", "beta.kubernetes.io/arch",
        "failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/zone", "topology.kubernetes.io/region",
    )
)  # fmt: skip
_OWN_PREFIXES = ("kubelet.kubernetes.io", "node.kubernetes.io")


class NodeRestriction(Plugin):
    """Judges writes of users in `system:nodes`; nobody else's."""

    resources = frozenset(
        ("pods", "nodes", "persistentvolumeclaims", "leases.coordination.k8s.io", "csinodes.storage.k8s.io")
    )
    operations = frozenset(("CREATE", "UPDATE", "DELETE"))
    subresources = frozenset(("", "status", "ephemeralcontainers", "resize"))

    def validate(self, ctx: WriteContext) -> None:
        node = node_of(ctx)
        if node is None:
            return
        if not node:
            raise _refused(ctx, f"could not determine node from user {ctx.user.name!r}")
        judge = {
            "pods": _judge_pod,
            "nodes": _judge_node,
            "persistentvolumeclaims": _judge_claim,
            "leases.coordination.k8s.io": _judge_lease,
            "csinodes.storage.k8s.io": _judge_csi_node,
        }[ctx.resource.storage]
        judge(ctx, node)


def node_of(ctx: WriteContext) -> str | None:
    """The caller's node; empty if its name does not say; None if it is no kubelet."""
    if NODES_GROUP not in ctx.user.groups:
        return None
    return ctx.user.name.removeprefix(NODE_PREFIX) if ctx.user.name.startswith(NODE_PREFIX) else ""


def _judge_pod(ctx: WriteContext, node: str) -> None:
    if ctx.operation == "CREATE":
        _judge_mirror(ctx, node)
        return
    assert ctx.old is not None
    if ctx.operation == "UPDATE" and ctx.subresource != "status":
        raise _refused(ctx, f"node {node!r} can only update the status of pods")
    if (ctx.old.get("spec") or {}).get("nodeName") != node:
        raise _refused(ctx, f"node {node!r} can only {ctx.operation.lower()} pods with spec.nodeName set to itself")
    if ctx.operation == "UPDATE":
        if (ctx.obj["metadata"].get("labels") or {}) != (ctx.old["metadata"].get("labels") or {}):
            raise _refused(ctx, f"node {node!r} cannot update labels through pod status")
        claims = (ctx.obj.get("status") or {}).get("resourceClaimStatuses")
        if claims != (ctx.old.get("status") or {}).get("resourceClaimStatuses"):
            raise _refused(ctx, f"node {node!r} cannot update resource claim statuses")


def _judge_mirror(ctx: WriteContext, node: str) -> None:
    spec = ctx.spec()
    if MIRROR not in (ctx.metadata.get("annotations") or {}):
        raise _refused(ctx, f"pod does not have {MIRROR!r} annotation, node {node!r} can only create mirror pods")
    if spec.get("nodeName") != node:
        raise _refused(ctx, f"node {node!r} can only create pods with spec.nodeName set to itself")
    owners = ctx.metadata.get("ownerReferences") or []
    if len(owners) > 1 or any(
        owner.get("kind") != "Node" or owner.get("name") != node or owner.get("apiVersion") != "v1" for owner in owners
    ):
        raise _refused(ctx, f"node {node!r} can only create pods with an owner reference set to itself")
    own = ctx.lookup.get("nodes", "", node)
    if owners and (own is None or owners[0].get("uid") != own["metadata"]["uid"]):
        raise _refused(ctx, f"node {node!r} can only create pods with an owner reference that has its own UID")
    for field in ("serviceAccountName", "resourceClaims"):
        if spec.get(field):
            raise _refused(ctx, f"node {node!r} can not create pods that reference {field}")
    for volume in spec.get("volumes") or ():
        for source in ("secret", "configMap", "persistentVolumeClaim", "projected"):
            if source in volume:
                raise _refused(ctx, f"node {node!r} can not create pods that reference a {source}")


def _judge_node(ctx: WriteContext, node: str) -> None:
    if ctx.name != node:
        raise _refused(ctx, f"node {node!r} is not allowed to modify node {ctx.name!r}")
    if ctx.operation == "DELETE":
        raise _refused(ctx, f"node {node!r} cannot delete nodes")
    labels = ctx.metadata.get("labels") or {}
    old_labels: dict[str, str] = {}
    if ctx.operation == "UPDATE":
        assert ctx.old is not None
        old_labels = ctx.old["metadata"].get("labels") or {}
        if (ctx.spec().get("taints") or []) != ((ctx.old.get("spec") or {}).get("taints") or []):
            raise _refused(ctx, f"node {node!r} is not allowed to modify taints")
        if ctx.spec().get("configSource") != (ctx.old.get("spec") or {}).get("configSource"):
            raise _refused(ctx, f"node {node!r} is not allowed to update configSource to a new non-nil configSource")
        owners = ctx.metadata.get("ownerReferences") or []
        if owners != (ctx.old["metadata"].get("ownerReferences") or []):
            raise _refused(ctx, f"node {node!r} is not allowed to modify ownerReferences")
    changed = {key for key in labels.keys() | old_labels.keys() if labels.get(key) != old_labels.get(key)}
    forbidden = sorted(key for key in changed if _is_reserved(key))
    if forbidden:
        raise _refused(ctx, f"is not allowed to modify labels: {', '.join(forbidden)}")


def _is_reserved(label: str) -> bool:
    if label in _OWN_LABELS or "/" not in label:
        return False
    domain = label.partition("/")[0]
    if domain == _RESTRICTED_PREFIX or domain.endswith(f".{_RESTRICTED_PREFIX}"):
        return True
    if any(domain == prefix or domain.endswith(f".{prefix}") for prefix in _OWN_PREFIXES):
        return False
    return any(domain == suffix or domain.endswith(f".{suffix}") for suffix in ("kubernetes.io", "k8s.io"))


def _judge_claim(ctx: WriteContext, node: str) -> None:
    if ctx.operation != "UPDATE" or ctx.subresource != "status":
        raise _refused(ctx, f"node {node!r} may only update the status of PersistentVolumeClaims")


def _judge_lease(ctx: WriteContext, node: str) -> None:
    if ctx.namespace != "kube-node-lease":
        raise _refused(ctx, 'can only access leases in the "kube-node-lease" system namespace')
    if ctx.name != node:
        raise _refused(ctx, f"can only access node lease with the same name as the requesting node {node!r}")


def _judge_csi_node(ctx: WriteContext, node: str) -> None:
    if ctx.name != node:
        raise _refused(ctx, f"can only access CSINode with the same name as the requesting node {node!r}")


def _refused(ctx: WriteContext, why: str) -> errors.Forbidden:
    return errors.forbidden(ctx.resource.group, ctx.resource.plural, ctx.name, why.replace("'", '"'))
