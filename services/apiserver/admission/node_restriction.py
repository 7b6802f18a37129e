"""NodeRestriction: a kubelet writes only its own Node, its own Lease, and what belongs to pods bound to it.

What a kubelet may *read* is the Node authorizer's business. Upstream: plugin/pkg/admission/noderestriction. Tokens and
certificates that a kubelet asks for are judged in `node_credentials`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from machinery.api import errors
from services.apiserver.admission import node_credentials
from services.apiserver.admission.chain import Plugin
from services.apiserver.auth.rbac import Authorizer
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

    operations = frozenset(("CREATE", "UPDATE", "DELETE"))
    subresources = frozenset(("", "status", "ephemeralcontainers", "resize", "eviction", "token"))

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer
        self._judges = {
            "pods": _judge_pod,
            "nodes": _judge_node,
            "persistentvolumeclaims": _judge_claim,
            "serviceaccounts": self._judge_account,
            "leases.coordination.k8s.io": _judge_lease,
            "csinodes.storage.k8s.io": _judge_csi_node,
            "resourceslices.resource.k8s.io": _judge_slice,
            "certificatesigningrequests.certificates.k8s.io": _judge_signing_request,
        }
        self.resources = frozenset(self._judges)

    def validate(self, ctx: WriteContext) -> None:
        node = node_of(ctx)
        if node is None:
            return
        if not node:
            raise _refused(ctx, f"could not determine node from user {ctx.user.name!r}")
        self._judges[ctx.resource.storage](ctx, node)

    def _judge_account(self, ctx: WriteContext, node: str) -> None:
        if ctx.subresource == "token":
            why = node_credentials.token_refusal(self._authorizer, ctx, node)
            if why:
                raise _refused(ctx, why)


def node_of(ctx: WriteContext) -> str | None:
    """The caller's node; empty if its name does not say; None if it is no kubelet."""
    if NODES_GROUP not in ctx.user.groups:
        return None
    return ctx.user.name.removeprefix(NODE_PREFIX) if ctx.user.name.startswith(NODE_PREFIX) else ""


def _judge_pod(ctx: WriteContext, node: str) -> None:
    if ctx.subresource == "eviction":
        pod = ctx.lookup.get("pods", ctx.namespace, ctx.name)
        if pod is not None and (pod.get("spec") or {}).get("nodeName") != node:
            raise _refused(ctx, f"node {node!r} can only evict pods with spec.nodeName set to itself")
        return
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
        for field in ("resourceClaimStatuses", "extendedResourceClaimStatus"):
            if (ctx.obj.get("status") or {}).get(field) != (ctx.old.get("status") or {}).get(field):
                raise _refused(ctx, f"node {node!r} cannot update status.{field}")


def _judge_mirror(ctx: WriteContext, node: str) -> None:
    spec = ctx.spec()
    if MIRROR not in (ctx.metadata.get("annotations") or {}):
        raise _refused(ctx, f"pod does not have {MIRROR!r} annotation, node {node!r} can only create mirror pods")
    if spec.get("nodeName") != node:
        raise _refused(ctx, f"node {node!r} can only create pods with spec.nodeName set to itself")
    owners = ctx.metadata.get("ownerReferences") or []
    own = ctx.lookup.get("nodes", "", node)
    if own is None:
        raise errors.not_found("", "nodes", node)
    wanted = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": own["metadata"]["uid"], "controller": True}
    if len(owners) != 1 or {key: value for key, value in owners[0].items() if value is not False} != wanted:
        raise _refused(
            ctx, f"node {node!r} can only create pods with one owner reference, to itself as their controller"
        )
    for what in _api_references(spec):
        raise _refused(ctx, f"node {node!r} can not create pods that reference {what}")


# What a volume can be without the API being asked for anything: any other source is refused, also one that is not known
# yet. Upstream: HasAPIObjectReference (CVE-2025-4563).
_PLAIN_VOLUMES = frozenset(
    (
        "awsElasticBlockStore", "azureDisk", "cephfs", "cinder", "downwardAPI", "emptyDir", "fc", "flexVolume",
        "flocker", "gcePersistentDisk", "gitRepo", "hostPath", "image", "iscsi", "nfs", "photonPersistentDisk",
        "portworxVolume", "quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume",
    )
)  # fmt: skip


def _api_references(spec: dict[str, Any]) -> Iterator[str]:
    """What of the API a pod reaches for: its node could read that by creating the pod."""
    for field, what in (
        ("serviceAccountName", "service accounts"), ("serviceAccount", "service accounts"),
        ("imagePullSecrets", "secrets"), ("resourceClaims", "resource claims"),
    ):  # fmt: skip
        if spec.get(field):
            yield what
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(field) or ():
            sources = [
                *(container.get("envFrom") or ()),
                *(v.get("valueFrom") or {} for v in container.get("env") or ()),
            ]
            if any(key.startswith(("secret", "configMap")) and source[key] for source in sources for key in source):
                yield "secrets or config maps in their environment"
    for volume in spec.get("volumes") or ():
        for key, source in volume.items():
            if key == "name" or source is None:
                continue
            if key == "projected":
                yield from (f"{part} projections" for parts in source.get("sources") or () for part in parts
                            if part != "downwardAPI" and parts[part] is not None)  # fmt: skip
            elif key not in _PLAIN_VOLUMES or (isinstance(source, dict) and source.get("secretRef")):
                yield f"{key} volumes"


def _judge_node(ctx: WriteContext, node: str) -> None:
    if ctx.name != node:
        raise _refused(ctx, f"node {node!r} is not allowed to modify node {ctx.name!r}")
    if ctx.operation == "DELETE":
        raise _refused(ctx, f"node {node!r} cannot delete nodes")
    labels = ctx.metadata.get("labels") or {}
    old_labels: dict[str, str] = {}
    source = ctx.spec().get("configSource")
    if source is not None and source != ((ctx.old or {}).get("spec") or {}).get("configSource"):
        raise _refused(ctx, f"node {node!r} is not allowed to set configSource")
    if ctx.operation == "UPDATE":
        assert ctx.old is not None
        old_labels = ctx.old["metadata"].get("labels") or {}
        if (ctx.spec().get("taints") or []) != ((ctx.old.get("spec") or {}).get("taints") or []):
            raise _refused(ctx, f"node {node!r} is not allowed to modify taints")
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


_CLAIM_STATUS = frozenset(("capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"))


def _judge_claim(ctx: WriteContext, node: str) -> None:
    if ctx.operation != "UPDATE" or ctx.subresource != "status" or ctx.old is None:
        raise _refused(ctx, f"node {node!r} may only update the status of PersistentVolumeClaims")
    if _beyond_claim_status(ctx.obj) != _beyond_claim_status(ctx.old):
        raise _refused(
            ctx, f"node {node!r} is not allowed to update fields other than status.capacity and status.conditions"
        )


def _beyond_claim_status(claim: dict[str, Any]) -> tuple[Any, ...]:
    """What of a claim a node leaves alone."""
    metadata = {
        k: v for k, v in claim["metadata"].items() if k not in ("managedFields", "resourceVersion", "generation")
    }
    status = {key: value for key, value in (claim.get("status") or {}).items() if key not in _CLAIM_STATUS}
    return metadata, claim.get("spec"), status


def _judge_lease(ctx: WriteContext, node: str) -> None:
    if ctx.namespace != "kube-node-lease":
        raise _refused(ctx, 'can only access leases in the "kube-node-lease" system namespace')
    if ctx.name != node:
        raise _refused(ctx, f"can only access node lease with the same name as the requesting node {node!r}")


def _judge_csi_node(ctx: WriteContext, node: str) -> None:
    if ctx.name != node:
        raise _refused(ctx, f"can only access CSINode with the same name as the requesting node {node!r}")


def _judge_slice(ctx: WriteContext, node: str) -> None:
    for state in (ctx.obj, ctx.old):
        if state is not None and (state.get("spec") or {}).get("nodeName") != node:
            raise _refused(ctx, f"can only write ResourceSlices with the same nodeName as the requesting node {node!r}")


def _judge_signing_request(ctx: WriteContext, node: str) -> None:
    if ctx.operation == "CREATE" and not ctx.subresource:
        why = node_credentials.signing_refusal(ctx.spec(), node)
        if why:
            raise _refused(ctx, why)


def _refused(ctx: WriteContext, why: str) -> errors.Forbidden:
    return errors.forbidden(ctx.resource.group, ctx.resource.plural, ctx.name, why.replace("'", '"'))
