"""The ConfigMap `kube-root-ca.crt` in every namespace: what pods verify the apiserver's certificate with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from machinery.api import kinds
from services.controller_manager.actions import Create, Patch, Plan, merge_diff
from services.controller_manager.reconciler import OfKind
from services.controller_manager.views.cluster import Namespace
from services.controller_manager.views.meta import Meta, View, nothing

NAME = "kube-root-ca.crt"
_DESCRIPTION = {
    "kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using"
    " internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed"
    " across distributions of Kubernetes clusters."
}


class Published(View, frozen=True, gc=False):
    """The ConfigMap, with its data."""

    metadata: Meta = Meta()
    data: dict[str, str] = msgspec.field(default_factory=nothing)


def plan(namespace: Namespace, current: Published | None, certificate: str) -> Plan:
    """Create it, or bring its content back."""
    if namespace.metadata.deletionTimestamp is not None:
        return Plan()
    data = {"ca.crt": certificate}
    if current is None:
        metadata = {"name": NAME, "namespace": namespace.metadata.name, "annotations": _DESCRIPTION}
        obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        return Plan([Create(kinds.CONFIG_MAP, obj, exists_ok=True)])
    if changed := merge_diff(current.data, data):
        return Plan([Patch(kinds.CONFIG_MAP, current.metadata.namespace, NAME, {"data": changed})])
    return Plan()


class RootCAController(OfKind):
    """root-ca-certificate-publisher"""

    name = "root-ca-certificate-publisher"
    kind = kinds.NAMESPACE

    def watch(self) -> None:
        """Namespaces, and these ConfigMaps alone."""
        self.certificate = Path(self.env.config.root_ca_file).read_text(encoding="utf-8")
        self.published = self.informers.selected(kinds.CONFIG_MAP, Published, f"metadata.name={NAME}")
        self.on_own(kinds.NAMESPACE)
        self.published.add_handler(self._on_published)

    def _on_published(self, old: Any, new: Any) -> None:
        self.add((new or old).metadata.namespace)

    async def reconcile(self, key: str) -> Plan | None:
        """See `plan`."""
        namespace: Namespace | None = self.lister(kinds.NAMESPACE).by_key(key)
        if namespace is None:
            return None
        return plan(namespace, self.published.lister.get(key, NAME), self.certificate)
