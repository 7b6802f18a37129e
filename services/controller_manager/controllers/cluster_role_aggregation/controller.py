"""ClusterRoles that are the sum of others, chosen by label."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from machinery.api import kinds
from services.controller_manager.actions import Patch, Plan
from services.controller_manager.reconciler import OfKind
from services.controller_manager.views.cluster import ClusterRole


def plan(role: ClusterRole, roles: Iterable[ClusterRole]) -> Plan:
    """Give the role the rules of all others that it aggregates, in the order of their names, each once."""
    if role.aggregationRule is None or role.metadata.deletionTimestamp is not None:
        return Plan()
    rules: list[dict[str, Any]] = []
    for other in sorted(roles, key=lambda each: each.metadata.name):
        if other.metadata.name == role.metadata.name:
            continue
        if not any(selector.matches(other.metadata.labels) for selector in role.aggregationRule.clusterRoleSelectors):
            continue
        rules += [rule for rule in other.rules or () if rule not in rules]
    if rules == list(role.rules or ()):
        return Plan()
    meta = role.metadata
    return Plan([Patch(kinds.CLUSTER_ROLE, "", meta.name, {"rules": rules}, uid=meta.uid, revision=meta.revision)])


class ClusterRoleAggregationController(OfKind):
    """clusterrole-aggregation"""

    name = "clusterrole-aggregation"
    kind = kinds.CLUSTER_ROLE

    def watch(self) -> None:
        """ClusterRoles: each change may concern every aggregating one."""
        self.on(kinds.CLUSTER_ROLE, self._on_role)

    def _on_role(self, old: ClusterRole | None, new: ClusterRole | None) -> None:
        if old is not None and new is not None and _content(old) == _content(new):
            return
        for role in self.lister(kinds.CLUSTER_ROLE):
            if role.aggregationRule is not None:
                self.add(role.metadata.name)

    async def reconcile(self, key: str) -> Plan | None:
        """See `plan`."""
        role: ClusterRole | None = self.lister(kinds.CLUSTER_ROLE).by_key(key)
        return plan(role, self.lister(kinds.CLUSTER_ROLE)) if role is not None else None


def _content(role: ClusterRole) -> tuple[object, ...]:
    return role.rules, role.metadata.labels, role.aggregationRule
