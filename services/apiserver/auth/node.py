"""The Node authorizer: a kubelet gets what its own pods need, and nothing else.

A kubelet (user `system:node:<name>` in group `system:nodes`) may read a Secret, ConfigMap, claim, volume or service
account only if a pod that is bound to its node refers to it. The references are kept as a graph that `pod_changed`
and `volume_changed` feed; an edge is counted once a pod, so that the last pod to go takes the right with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from services.apiserver.auth.attributes import READ_VERBS, Attributes
from services.apiserver.auth.rules import RuleSet

NODE_USER_PREFIX = "system:node:"
NODES_GROUP = "system:nodes"

# (resource, namespace, name)
Reference = tuple[str, str, str]

# What every kubelet may do whatever runs on its node. Which nodes and pods a write may touch is narrowed further by
# the NodeRestriction admission plugin; here stands only what needs no graph.
_NODE_RULES: tuple[dict[str, Any], ...] = (
    {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
    {
        "apiGroups": ["authorization.k8s.io"],
        "resources": ["subjectaccessreviews", "localsubjectaccessreviews"],
        "verbs": ["create"],
    },
    {"apiGroups": [""], "resources": ["services"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["create"]},
    {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]},
    {
        "apiGroups": ["certificates.k8s.io"],
        "resources": ["certificatesigningrequests"],
        "verbs": ["create", "get", "list", "watch"],
    },
    {"apiGroups": ["storage.k8s.io"], "resources": ["csidrivers"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["node.k8s.io"], "resources": ["runtimeclasses"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["certificates.k8s.io"], "resources": ["clustertrustbundles"], "verbs": ["get", "list", "watch"]},
)


def node_name(attrs: Attributes) -> str:
    """The node whose kubelet asks, or "" if the user is no kubelet."""
    user = attrs.user
    if user.name.startswith(NODE_USER_PREFIX) and NODES_GROUP in user.groups:
        return user.name[len(NODE_USER_PREFIX) :]
    return ""


class NodeAuthorizer:
    """Judges kubelets.

    Invariant: `_edges[node][ref]` is the set of uids of the pods on that node that refer to `ref`; empty sets are
    removed.
    """

    def __init__(self) -> None:
        self._rules = RuleSet(_NODE_RULES)
        self._edges: dict[str, dict[Reference, set[str]]] = {}
        self._pods: dict[str, tuple[str, frozenset[Reference]]] = {}
        self._pods_by_node: dict[str, dict[tuple[str, str], str]] = {}
        # claim (ns, name) -> volume name, as the claim says; volume -> its secrets.
        self._claim_volume: dict[tuple[str, str], str] = {}
        self._volume_secrets: dict[str, frozenset[Reference]] = {}
        self._attachment_node: dict[str, str] = {}
        self._judges: dict[tuple[str, str], Callable[[str, Attributes], str]] = {
            ("", "secrets"): self._read_by_reference,
            ("", "configmaps"): self._read_by_reference,
            ("", "persistentvolumeclaims"): self._claim,
            ("", "persistentvolumes"): self._read_by_reference,
            ("", "serviceaccounts"): self._service_account,
            ("", "nodes"): self._node,
            ("", "pods"): self._pod,
            ("coordination.k8s.io", "leases"): self._lease,
            ("storage.k8s.io", "csinodes"): self._csi_node,
            ("storage.k8s.io", "volumeattachments"): self._attachment,
            ("resource.k8s.io", "resourceclaims"): self._read_by_reference,
            ("resource.k8s.io", "resourceslices"): self._slice,
            ("certificates.k8s.io", "podcertificaterequests"): self._pod_certificate,
        }

    def authorize(self, node: str, attrs: Attributes) -> str | None:
        """None if allowed, else why not."""
        if not attrs.resource:
            return f"no relationship found between node '{node}' and this path"
        if self._rules.allows(attrs.verb, attrs.group, attrs.resource, attrs.subresource, attrs.name):
            return None
        judge = self._judges.get((attrs.group, attrs.resource))
        if judge is None:
            return f"node '{node}' has no rights on {attrs.resource}"
        return judge(node, attrs) or None

    # -- what each resource needs: "" allows, anything else is the reason of the refusal --

    def _linked(self, node: str, ref: Reference) -> bool:
        edges = self._edges.get(node)
        if edges is None:
            return False
        if ref in edges:
            return True
        resource, _namespace, name = ref
        if resource == "persistentvolumes":
            return any(
                self._claim_volume.get((ns, claim)) == name
                for kind, ns, claim in edges
                if kind == "persistentvolumeclaims"
            )
        if resource == "secrets":
            return any(
                ref in self._volume_secrets.get(self._claim_volume.get((ns, claim), ""), ())
                for kind, ns, claim in edges
                if kind == "persistentvolumeclaims"
            )
        return False

    def _read_by_reference(self, node: str, attrs: Attributes) -> str:
        if attrs.verb not in READ_VERBS:
            return f"can only read resources of this type ({attrs.resource})"
        if attrs.subresource:
            return "cannot get subresource"
        if not attrs.name:
            return "No Object name found"
        if self._linked(node, (attrs.resource, attrs.namespace, attrs.name)):
            return ""
        return f"no relationship found between node '{node}' and this object"

    def _claim(self, node: str, attrs: Attributes) -> str:
        allowed = ("get", "patch", "update") if attrs.subresource == "status" else ("get",)
        if attrs.subresource not in ("", "status") or attrs.verb not in allowed:
            return "can only get claims, and update their status"
        if self._linked(node, (attrs.resource, attrs.namespace, attrs.name)):
            return ""
        return f"no relationship found between node '{node}' and this object"

    def _service_account(self, node: str, attrs: Attributes) -> str:
        wanted = (attrs.verb == "create" and attrs.subresource == "token") or (
            attrs.verb == "get" and not attrs.subresource
        )
        if not wanted:
            return "can only get service accounts and create tokens for them"
        if self._linked(node, ("serviceaccounts", attrs.namespace, attrs.name)):
            return ""
        return f"no relationship found between node '{node}' and this object"

    def _node(self, node: str, attrs: Attributes) -> str:
        if attrs.subresource not in ("", "status"):
            return f"cannot use the subresource {attrs.subresource}"
        if attrs.verb in READ_VERBS:
            name = attrs.name or selected(attrs.field_selector, "metadata.name")
            return "" if name == node else f"node '{node}' cannot read all nodes, only its own Node object"
        if attrs.verb in ("update", "patch") and attrs.name == node:
            return ""
        return f"node '{node}' cannot {attrs.verb} node '{attrs.name}', only its own Node object"

    def _pod(self, node: str, attrs: Attributes) -> str:
        on_node = (attrs.namespace, attrs.name) in self._pods_by_node.get(node, {})
        if attrs.verb in READ_VERBS and not attrs.subresource:
            wanted = selected(attrs.field_selector, "spec.nodeName")
            if wanted == node or (attrs.name and on_node):
                return ""
            return "can only list/watch pods with spec.nodeName field selector"
        if not attrs.name or not on_node:
            return f"no relationship found between node '{node}' and this object"
        if attrs.verb == "delete" and not attrs.subresource:
            return ""
        if attrs.subresource == "status" and attrs.verb in ("update", "patch"):
            return ""
        if attrs.subresource == "eviction" and attrs.verb == "create":
            return ""
        return f"cannot {attrs.verb} pods/{attrs.subresource}" if attrs.subresource else f"cannot {attrs.verb} pods"

    def _lease(self, node: str, attrs: Attributes) -> str:
        if attrs.namespace != "kube-node-lease":
            return f"can only access leases in the 'kube-node-lease' system namespace, not '{attrs.namespace}'"
        if attrs.verb == "create" and attrs.name in ("", node):
            return ""
        if attrs.verb in ("get", "update", "patch", "delete") and attrs.name == node:
            return ""
        return f"can only access node lease with the same name as the requesting node '{node}'"

    def _csi_node(self, node: str, attrs: Attributes) -> str:
        if attrs.verb == "create" and attrs.name in ("", node):
            return ""
        if attrs.verb in ("get", "update", "patch", "delete") and attrs.name == node:
            return ""
        return "can only access CSINode with the same name as the requesting node"

    def _attachment(self, node: str, attrs: Attributes) -> str:
        if attrs.verb == "get" and self._attachment_node.get(attrs.name) == node:
            return ""
        return f"no relationship found between node '{node}' and this object"

    def _slice(self, node: str, attrs: Attributes) -> str:
        if attrs.verb in ("list", "watch", "deletecollection"):
            own = selected(attrs.field_selector, "spec.nodeName") == node
            return (
                "" if own else "can only list/watch/deletecollection resourceslices with spec.nodeName field selector"
            )
        return "" if attrs.verb in ("create", "get", "update", "patch", "delete") else "unsupported verb"

    def _pod_certificate(self, node: str, attrs: Attributes) -> str:
        if attrs.verb == "create":
            return ""
        own = attrs.verb in READ_VERBS and selected(attrs.field_selector, "spec.nodeName") == node
        return "" if own else f"no relationship found between node '{node}' and this object"

    # -- the graph --

    def pod_changed(self, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
        """Feed one change of a pod: (None, new) added, (old, new) changed, (old, None) gone."""
        if new is None:
            if old is not None:
                self._forget_pod(old["metadata"])
            return
        meta, spec = new["metadata"], new.get("spec") or {}
        node = spec.get("nodeName") or ""
        uid = meta.get("uid") or f"{meta.get('namespace')}/{meta['name']}"
        refs = frozenset(pod_references(meta.get("namespace", ""), spec, meta["name"])) if node else frozenset()
        if node:
            refs |= _made_claims(meta.get("namespace", ""), new.get("status") or {})
        if self._pods.get(uid) == (node, refs):
            return
        self._forget_pod(meta)
        if not node:
            return
        self._pods[uid] = (node, refs)
        self._pods_by_node.setdefault(node, {})[(meta.get("namespace", ""), meta["name"])] = uid
        edges = self._edges.setdefault(node, {})
        for ref in refs:
            edges.setdefault(ref, set()).add(uid)

    def _forget_pod(self, meta: Mapping[str, Any]) -> None:
        uid = meta.get("uid") or f"{meta.get('namespace')}/{meta['name']}"
        known = self._pods.pop(uid, None)
        if known is None:
            return
        node, refs = known
        by_name = self._pods_by_node.get(node, {})
        key = (meta.get("namespace", ""), meta["name"])
        if by_name.get(key) == uid:
            del by_name[key]
        edges = self._edges.get(node, {})
        for ref in refs:
            users = edges.get(ref)
            if users is not None:
                users.discard(uid)
                if not users:
                    del edges[ref]

    def claim_changed(self, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
        """Feed one change of a PersistentVolumeClaim."""
        obj = new or old or {}
        meta = obj["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        volume = ((new or {}).get("spec") or {}).get("volumeName")
        if volume:
            self._claim_volume[key] = volume
        else:
            self._claim_volume.pop(key, None)

    def volume_changed(self, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
        """Feed one change of a PersistentVolume."""
        name = (new or old or {})["metadata"]["name"]
        refs = frozenset(_volume_secret_references((new or {}).get("spec") or {}))
        if refs:
            self._volume_secrets[name] = refs
        else:
            self._volume_secrets.pop(name, None)

    def attachment_changed(self, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
        """Feed one change of a VolumeAttachment."""
        name = (new or old or {})["metadata"]["name"]
        if new is None:
            self._attachment_node.pop(name, None)
        else:
            self._attachment_node[name] = (new.get("spec") or {}).get("nodeName", "")


def selected(field_selector: str, field: str) -> str:
    """The value that a field selector requires of `field`, or ""."""
    for part in field_selector.split(","):
        key, sign, value = part.partition("=")
        if sign and key.strip() == field:
            return value.lstrip("=").strip()
    return ""


def pod_references(namespace: str, spec: Mapping[str, Any], pod: str = "") -> Iterable[Reference]:
    """Everything that a pod's node needs to read in order to run it."""
    if spec.get("serviceAccountName"):
        yield ("serviceaccounts", namespace, spec["serviceAccountName"])
    for secret in spec.get("imagePullSecrets") or ():
        if secret.get("name"):
            yield ("secrets", namespace, secret["name"])
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(field) or ():
            yield from _container_references(namespace, container)
    for volume in spec.get("volumes") or ():
        yield from _volume_references(namespace, volume)
        if volume.get("ephemeral"):
            # The claim is made for the pod and is named after both.
            yield ("persistentvolumeclaims", namespace, f"{pod}-{volume.get('name', '')}")
    for claim in spec.get("resourceClaims") or ():
        if claim.get("resourceClaimName"):
            yield ("resourceclaims", namespace, claim["resourceClaimName"])


def _made_claims(namespace: str, status: Mapping[str, Any]) -> frozenset[Reference]:
    """The claims that were made for a pod, by their controller and the scheduler. Only these may say which."""
    names = [each.get("resourceClaimName") for each in status.get("resourceClaimStatuses") or ()]
    names.append((status.get("extendedResourceClaimStatus") or {}).get("resourceClaimName"))
    return frozenset(("resourceclaims", namespace, name) for name in names if name)


def _container_references(namespace: str, container: Mapping[str, Any]) -> Iterable[Reference]:
    for source in container.get("envFrom") or ():
        if source.get("configMapRef"):
            yield ("configmaps", namespace, source["configMapRef"].get("name", ""))
        if source.get("secretRef"):
            yield ("secrets", namespace, source["secretRef"].get("name", ""))
    for variable in container.get("env") or ():
        value_from = variable.get("valueFrom") or {}
        if value_from.get("configMapKeyRef"):
            yield ("configmaps", namespace, value_from["configMapKeyRef"].get("name", ""))
        if value_from.get("secretKeyRef"):
            yield ("secrets", namespace, value_from["secretKeyRef"].get("name", ""))


def _volume_references(namespace: str, volume: Mapping[str, Any]) -> Iterable[Reference]:
    if volume.get("secret"):
        yield ("secrets", namespace, volume["secret"].get("secretName", ""))
    if volume.get("configMap"):
        yield ("configmaps", namespace, volume["configMap"].get("name", ""))
    if volume.get("persistentVolumeClaim"):
        yield ("persistentvolumeclaims", namespace, volume["persistentVolumeClaim"].get("claimName", ""))
    for source in (volume.get("projected") or {}).get("sources") or ():
        if source.get("secret"):
            yield ("secrets", namespace, source["secret"].get("name", ""))
        if source.get("configMap"):
            yield ("configmaps", namespace, source["configMap"].get("name", ""))
    for plugin in ("iscsi", "cephfs", "rbd", "flexVolume", "scaleIO", "storageos"):
        name = ((volume.get(plugin) or {}).get("secretRef") or {}).get("name")
        if name:
            yield ("secrets", namespace, name)
    name = ((volume.get("csi") or {}).get("nodePublishSecretRef") or {}).get("name")
    if name:
        yield ("secrets", namespace, name)


def _volume_secret_references(spec: Mapping[str, Any]) -> Iterable[Reference]:
    csi = spec.get("csi") or {}
    for field in ("nodeStageSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"):
        ref = csi.get(field) or {}
        if ref.get("name"):
            yield ("secrets", ref.get("namespace", ""), ref["name"])
    for plugin in ("iscsi", "cephfs", "rbd", "flexVolume", "scaleIO"):
        ref = (spec.get(plugin) or {}).get("secretRef") or {}
        if ref.get("name"):
            yield ("secrets", ref.get("namespace") or (spec.get("claimRef") or {}).get("namespace", ""), ref["name"])
