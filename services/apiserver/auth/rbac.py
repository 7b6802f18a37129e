"""The Authorizer that every request passes: masters, then nodes, then RBAC.

RBAC is kept compiled: for each subject (a user, a group) the rules that its bindings give, cluster-wide and per
namespace, merged into one `RuleSet`. A decision is then a few dictionary look-ups for each of the caller's groups. A
change of a role or a binding throws away only the compiled sets of the subjects that it touches; they are compiled
again when they are next asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from services.apiserver.auth.attributes import ALLOWED_MASTER, NO_OPINION, Attributes, Decision
from services.apiserver.auth.node import NodeAuthorizer, node_name, selected
from services.apiserver.auth.rules import Rule, RuleSet
from services.apiserver.request import User

MASTERS_GROUP = "system:masters"
RBAC_GROUP = "rbac.authorization.k8s.io"
_EMPTY = RuleSet()

# What `changed` and `read` name resources by: the key under which the store keeps them.
ROLES = f"roles.{RBAC_GROUP}"
CLUSTER_ROLES = f"clusterroles.{RBAC_GROUP}"
ROLE_BINDINGS = f"rolebindings.{RBAC_GROUP}"
CLUSTER_ROLE_BINDINGS = f"clusterrolebindings.{RBAC_GROUP}"
WATCHED = (
    CLUSTER_ROLES,
    ROLES,
    CLUSTER_ROLE_BINDINGS,
    ROLE_BINDINGS,
    "persistentvolumes",
    "persistentvolumeclaims",
    "pods",
    "volumeattachments.storage.k8s.io",
)

# ("User", name) or ("Group", name); a service account is the user that it authenticates as.
Subject = tuple[str, str]
# (namespace or "" for a ClusterRole, name)
RoleKey = tuple[str, str]

Document = Mapping[str, Any] | bytes | None


class Rbac:
    """Roles and bindings, compiled by subject.

    Invariants: `_granted[scope][subject]` holds the keys of the bindings in that scope ("" is the cluster) which
    name the subject; `_bound[role]` the bindings that refer to the role; `_compiled[(scope, subject)]` exists only
    while it agrees with both.
    """

    def __init__(self) -> None:
        self._roles: dict[RoleKey, list[Rule]] = {}
        # binding key (scope, name) -> (role, subjects)
        self._bindings: dict[tuple[str, str], tuple[RoleKey, tuple[Subject, ...]]] = {}
        self._granted: dict[str, dict[Subject, set[str]]] = {}
        self._bound: dict[RoleKey, set[tuple[str, str]]] = {}
        self._compiled: dict[tuple[str, Subject], RuleSet] = {}

    def set_role(self, key: RoleKey, rules: Iterable[Rule] | None) -> None:
        """Add, replace or (None) remove a role."""
        if rules is None:
            self._roles.pop(key, None)
        else:
            self._roles[key] = list(rules)
        for scope, name in self._bound.get(key, ()):
            for subject in self._bindings[scope, name][1]:
                self._compiled.pop((scope, subject), None)

    def set_binding(self, scope: str, name: str, role: RoleKey | None, subjects: Iterable[Subject] = ()) -> None:
        """Add, replace or (None) remove a binding."""
        old = self._bindings.pop((scope, name), None)
        if old is not None:
            old_role, old_subjects = old
            self._bound[old_role].discard((scope, name))
            if not self._bound[old_role]:
                del self._bound[old_role]
            for subject in old_subjects:
                self._granted[scope][subject].discard(name)
                if not self._granted[scope][subject]:
                    del self._granted[scope][subject]
                self._compiled.pop((scope, subject), None)
        if role is None:
            return
        unique = tuple(dict.fromkeys(subjects))
        self._bindings[scope, name] = (role, unique)
        self._bound.setdefault(role, set()).add((scope, name))
        in_scope = self._granted.setdefault(scope, {})
        for subject in unique:
            in_scope.setdefault(subject, set()).add(name)
            self._compiled.pop((scope, subject), None)

    def _rule_set(self, scope: str, subject: Subject) -> RuleSet:
        compiled = self._compiled.get((scope, subject))
        if compiled is not None:
            return compiled
        in_scope = self._granted.get(scope)
        names = in_scope.get(subject) if in_scope is not None else None
        if not names:
            return _EMPTY
        compiled = RuleSet()
        for name in names:
            for rule in self._roles.get(self._bindings[scope, name][0], ()):
                compiled.add(rule)
        self._compiled[scope, subject] = compiled
        return compiled

    def rule_sets(self, user: User, namespace: str) -> Iterable[RuleSet]:
        """The compiled rules of each subject that `user` is, cluster-wide and in `namespace`."""
        for scope in ("", namespace) if namespace else ("",):
            if scope not in self._granted:
                continue
            yield self._rule_set(scope, ("User", user.name))
            for group in user.groups:
                yield self._rule_set(scope, ("Group", group))

    def rules_of(self, user: User, namespace: str) -> list[Rule]:
        """The rules as the roles say them, for reviews."""
        rules: list[Rule] = []
        for scope in ("", namespace) if namespace else ("",):
            in_scope = self._granted.get(scope, {})
            names: set[str] = set()
            for subject in (("User", user.name), *(("Group", group) for group in user.groups)):
                names |= in_scope.get(subject, set())
            for name in sorted(names):
                rules.extend(self._roles.get(self._bindings[scope, name][0], ()))
        return rules

    def role_rules(self, key: RoleKey) -> list[Rule] | None:
        """The rules of one role; None if there is no such role."""
        return self._roles.get(key)


class Authorizer:
    """Answers every "may they?" of the apiserver.

    `read` gives the objects of a resource at start (as dicts or as stored bytes); afterwards every committed change
    of a resource in `WATCHED` is fed to `changed`. The order of feeding must be the commit order of each object.
    """

    def __init__(self, read: Callable[[str], Iterable[Mapping[str, Any] | bytes]] | None = None) -> None:
        self.rbac = Rbac()
        self.node = NodeAuthorizer()
        self._feeds: dict[str, Callable[[Mapping[str, Any] | None, Mapping[str, Any] | None], None]] = {
            ROLES: self._role_changed,
            CLUSTER_ROLES: self._role_changed,
            ROLE_BINDINGS: self._binding_changed,
            CLUSTER_ROLE_BINDINGS: self._binding_changed,
            "pods": self.node.pod_changed,
            "persistentvolumeclaims": self.node.claim_changed,
            "persistentvolumes": self.node.volume_changed,
            "volumeattachments.storage.k8s.io": self.node.attachment_changed,
        }
        if read is not None:
            for resource in WATCHED:
                for obj in read(resource):
                    self.changed(resource, None, obj)

    def authorize(self, attrs: Attributes) -> Decision:
        """Whether `attrs.user` may. Pure memory look-ups, microseconds."""
        user = attrs.user
        if MASTERS_GROUP in user.groups:
            return ALLOWED_MASTER
        if attrs.field_selector and not attrs.name:
            # A list or watch of one object is judged as that object, so that rules with names can grant it.
            attrs = replace(attrs, name=selected(attrs.field_selector, "metadata.name"))
        reason = ""
        node = node_name(attrs)
        if node:
            refused = self.node.authorize(node, attrs)
            if refused is None:
                return ALLOWED_MASTER
            reason = refused
        if attrs.resource:
            for rules in self.rbac.rule_sets(user, attrs.namespace):
                if rules.allows(attrs.verb, attrs.group, attrs.resource, attrs.subresource, attrs.name):
                    return Decision(True, "RBAC")
        else:
            for rules in self.rbac.rule_sets(user, ""):
                if rules.allows_path(attrs.verb, attrs.path):
                    return Decision(True, "RBAC")
        return Decision(False, reason) if reason else NO_OPINION

    def rules_for(self, user: User, namespace: str) -> list[Rule]:
        """Every rule that holds for `user` in `namespace` (SelfSubjectRulesReview)."""
        rules = self.rbac.rules_of(user, namespace)
        if MASTERS_GROUP in user.groups:
            everything: list[Rule] = [
                {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
                {"verbs": ["*"], "nonResourceURLs": ["*"]},
            ]
            rules = everything + [rule for rule in rules if rule not in everything]
        return rules

    def uncovered(self, user: User, namespace: str, rules: Iterable[Rule]) -> list[dict[str, Any]]:
        """The parts of `rules` that `user` does not hold in `namespace`; empty if they may grant them."""
        held = RuleSet(self.rules_for(user, namespace))
        return [part for rule in rules for part in held.covers(rule)]

    def changed(self, resource: str, old: Document, new: Document) -> None:
        """Feed one committed change; a resource that no decision depends on is ignored."""
        feed = self._feeds.get(resource)
        if feed is not None:
            feed(_decoded(old), _decoded(new))

    def _role_changed(self, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
        meta = (new or old or {})["metadata"]
        key = (meta.get("namespace") or "", meta["name"])
        self.rbac.set_role(key, None if new is None else new.get("rules") or ())

    def _binding_changed(self, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
        meta = (new or old or {})["metadata"]
        scope = meta.get("namespace") or ""
        if new is None:
            self.rbac.set_binding(scope, meta["name"], None)
            return
        self.rbac.set_binding(scope, meta["name"], role_key(new, scope), map(subject_key, new.get("subjects") or ()))


def role_key(binding: Mapping[str, Any], namespace: str) -> RoleKey:
    """Which role a binding refers to."""
    ref = binding.get("roleRef") or {}
    return (namespace if ref.get("kind") == "Role" else "", ref.get("name", ""))


def subject_key(subject: Mapping[str, Any]) -> Subject:
    """A binding's subject as the user or group that requests come with."""
    if subject.get("kind") == "ServiceAccount":
        return ("User", f"system:serviceaccount:{subject.get('namespace', '')}:{subject.get('name', '')}")
    return (subject.get("kind", ""), subject.get("name", ""))


def _decoded(document: Document) -> Mapping[str, Any] | None:
    if document is None or isinstance(document, Mapping):
        return document
    decoded: Mapping[str, Any] = msgspec.json.decode(document)
    return decoded
