"""Small plugins about where pods may stay and what new nodes and claims get."""

from __future__ import annotations

from typing import Any

from services.apiserver.admission.chain import Plugin
from services.apiserver.write_context import WriteContext

TOLERATION_SECONDS = 300
_NODE_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
DEFAULT_CLASS_BETA = "storageclass.beta.kubernetes.io/is-default-class"
DEFAULT_INGRESS_CLASS = "ingressclass.kubernetes.io/is-default-class"


class DefaultTolerationSeconds(Plugin):
    """A pod stays five minutes on a node that is not ready or not reachable, unless it says otherwise."""

    resources = frozenset(("pods",))

    def mutate(self, ctx: WriteContext) -> None:
        spec = ctx.obj.get("spec")
        if not isinstance(spec, dict):
            return
        tolerations: list[dict[str, Any]] = spec.get("tolerations") or []
        missing = [key for key in _NODE_TAINTS if not any(_tolerates(item, key) for item in tolerations)]
        if missing:
            spec["tolerations"] = tolerations + [
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS}
                for key in missing
            ]


def _tolerates(toleration: dict[str, Any], key: str) -> bool:
    effect = toleration.get("effect") in (None, "", "NoExecute")
    return effect and (toleration.get("key") == key or not toleration.get("key"))


class TaintNodes(Plugin):
    """A new node takes no pods until it has been seen ready."""

    resources = frozenset(("nodes",))
    operations = frozenset(("CREATE",))

    def mutate(self, ctx: WriteContext) -> None:
        spec = ctx.obj.setdefault("spec", {})
        taints = spec.setdefault("taints", [])
        if not any(taint.get("key") == NOT_READY["key"] and taint.get("effect") == "NoSchedule" for taint in taints):
            taints.append(dict(NOT_READY))


class DefaultStorageClass(Plugin):
    """A claim that names no class gets the default one (the newest, if there are several)."""

    resources = frozenset(("persistentvolumeclaims",))
    operations = frozenset(("CREATE",))

    def mutate(self, ctx: WriteContext) -> None:
        spec = ctx.obj.get("spec")
        if not isinstance(spec, dict) or "storageClassName" in spec:
            return
        if "volume.beta.kubernetes.io/storage-class" in (ctx.metadata.get("annotations") or {}):
            return
        default = _newest_default(ctx, "storageclasses.storage.k8s.io", DEFAULT_CLASS, DEFAULT_CLASS_BETA)
        if default:
            spec["storageClassName"] = default


class DefaultIngressClass(Plugin):
    """An Ingress that names no class gets the default one; of several the newest, then the first by name."""

    resources = frozenset(("ingresses.networking.k8s.io",))
    operations = frozenset(("CREATE",))

    def mutate(self, ctx: WriteContext) -> None:
        spec = ctx.obj.get("spec")
        if not isinstance(spec, dict) or spec.get("ingressClassName"):
            return
        if "kubernetes.io/ingress.class" in (ctx.metadata.get("annotations") or {}):
            return
        name = _newest_default(ctx, "ingressclasses.networking.k8s.io", DEFAULT_INGRESS_CLASS)
        if name:
            spec["ingressClassName"] = name


def _newest_default(ctx: WriteContext, storage: str, *annotations: str) -> str:
    marked = [
        item["metadata"]
        for item in ctx.lookup.list(storage)
        if any((item["metadata"].get("annotations") or {}).get(name) == "true" for name in annotations)
    ]
    latest = max((item["creationTimestamp"] for item in marked), default="")
    return min((item["name"] for item in marked if item["creationTimestamp"] == latest), default="")


class StorageObjectInUse(Plugin):
    """Claims and volumes that are in use are held by a finalizer until nobody uses them."""

    resources = frozenset(("persistentvolumeclaims", "persistentvolumes"))
    operations = frozenset(("CREATE",))

    def mutate(self, ctx: WriteContext) -> None:
        suffix = "pvc-protection" if ctx.resource.storage == "persistentvolumeclaims" else "pv-protection"
        finalizers = ctx.metadata.setdefault("finalizers", [])
        if f"kubernetes.io/{suffix}" not in finalizers:
            finalizers.append(f"kubernetes.io/{suffix}")
