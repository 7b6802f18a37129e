"""A ServiceAccount `default` in every namespace, for pods that name none."""

from __future__ import annotations

from typing import Any

from machinery.api import kinds
from services.controller_manager.actions import Create, Plan
from services.controller_manager.reconciler import OfKind
from services.controller_manager.views.cluster import Namespace

_NAME = "default"


def plan(namespace: Namespace, exists: bool) -> Plan:
    """Create it where it is missing."""
    if exists or namespace.metadata.deletionTimestamp is not None:
        return Plan()
    metadata = {"name": _NAME, "namespace": namespace.metadata.name}
    obj = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    return Plan([Create(kinds.SERVICE_ACCOUNT, obj, exists_ok=True)])


class ServiceAccountController(OfKind):
    """serviceaccount"""

    name = "serviceaccount"
    kind = kinds.NAMESPACE

    def watch(self) -> None:
        """Namespaces, and the removal of an account."""
        self.on_own(kinds.NAMESPACE)
        self.on(kinds.SERVICE_ACCOUNT, self._on_account)

    def _on_account(self, old: Any, new: Any) -> None:
        if new is None and old.metadata.name == _NAME:
            self.add(old.metadata.namespace)

    async def reconcile(self, key: str) -> Plan | None:
        """See `plan`."""
        namespace: Namespace | None = self.lister(kinds.NAMESPACE).by_key(key)
        if namespace is None:
            return None
        return plan(namespace, self.lister(kinds.SERVICE_ACCOUNT).get(key, _NAME) is not None)
