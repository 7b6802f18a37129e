"""No one grants more than they hold: the checks on writing roles and bindings.

The verbs `escalate` (on roles) and `bind` (on bindings) lift them, as upstream's do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from machinery.api import errors
from services.apiserver.auth.attributes import Attributes
from services.apiserver.auth.rbac import RBAC_GROUP, Authorizer, role_key
from services.apiserver.auth.rules import Rule
from services.apiserver.request import User


def check_role(
    authorizer: Authorizer, user: User, resource: str, obj: Mapping[str, Any], old: Mapping[str, Any] | None = None
) -> None:
    """Refuse (Forbidden) a Role or ClusterRole that grants what `user` does not hold. `resource` is "roles" or
    "clusterroles".
    """
    meta = obj["metadata"]
    namespace, name = meta.get("namespace") or "", meta.get("name") or ""
    if (
        old is not None
        and old.get("rules") == obj.get("rules")
        and old.get("aggregationRule") == obj.get("aggregationRule")
    ):
        return
    ask = Attributes(user, "escalate", RBAC_GROUP, "*", resource, "", namespace, name)
    if authorizer.authorize(ask).allowed:
        return
    rules: list[Rule] = list(obj.get("rules") or ())
    if obj.get("aggregationRule"):
        # Whatever it will gather can't be known now, so its author must hold everything.
        rules += [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, {"verbs": ["*"], "nonResourceURLs": ["*"]}]
    _refuse_uncovered(authorizer, user, namespace, rules, resource, name)


def check_binding(
    authorizer: Authorizer, user: User, resource: str, obj: Mapping[str, Any], old: Mapping[str, Any] | None = None
) -> None:
    """Refuse (Forbidden) a binding to a role with rights that `user` does not hold. `resource` is "rolebindings" or
    the like.
    """
    meta = obj["metadata"]
    namespace, name = meta.get("namespace") or "", meta.get("name") or ""
    same_role = old is not None and old.get("roleRef") == obj.get("roleRef")
    if same_role and old is not None and old.get("subjects") == obj.get("subjects"):
        return
    key = role_key(obj, namespace)
    role_resource = "roles" if key[0] else "clusterroles"
    ask = Attributes(user, "bind", RBAC_GROUP, "*", role_resource, "", namespace, key[1])
    if authorizer.authorize(ask).allowed:
        return
    rules = authorizer.rbac.role_rules(key)
    if rules is None:
        raise errors.not_found(RBAC_GROUP, role_resource, key[1])
    _refuse_uncovered(authorizer, user, namespace, rules, resource, name)


def _refuse_uncovered(
    authorizer: Authorizer, user: User, namespace: str, rules: Iterable[Rule], resource: str, name: str
) -> None:
    missing = authorizer.uncovered(user, namespace, rules)
    if missing:
        groups = " ".join(f'"{group}"' for group in user.groups)
        listed = "\n".join(dict.fromkeys(_text(part) for part in missing))
        who = f'user "{user.name}" (groups=[{groups}])'
        why = f"{who} is attempting to grant RBAC permissions not currently held:\n{listed}"
        raise errors.forbidden(RBAC_GROUP, resource, name, why)


def _text(rule: Rule) -> str:
    names = {
        "apiGroups": "APIGroups",
        "resources": "Resources",
        "resourceNames": "ResourceNames",
        "nonResourceURLs": "NonResourceURLs",
        "verbs": "Verbs",
    }
    parts = [
        f"{title}:[" + " ".join(f'"{value}"' for value in rule[field]) + "]"
        for field, title in names.items()
        if rule.get(field)
    ]
    return "{" + ", ".join(parts) + "}"
