"""Acting as another user: the Impersonate-* headers, each of which needs its own permission."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote

from machinery.api import errors
from services.apiserver.auth.attributes import Attributes, denied
from services.apiserver.auth.rbac import Authorizer
from services.apiserver.auth.tokens import SERVICE_ACCOUNT_PREFIX
from services.apiserver.request import User

_EXTRA_PREFIX = "impersonate-extra-"
_IMPLIED = {"system:authenticated", "system:unauthenticated"}


def impersonated(user: User, headers: Iterable[tuple[str, str]], authorizer: Authorizer) -> User:
    """The user to act as: `user` itself without impersonation headers. Raises Forbidden or BadRequest."""
    name, uid = "", ""
    groups: list[str] = []
    extra: dict[str, list[str]] = {}
    for header, value in headers:
        lower = header.lower()
        if lower == "impersonate-user":
            name = value
        elif lower == "impersonate-group":
            groups.append(value)
        elif lower == "impersonate-uid":
            uid = value
        elif lower.startswith(_EXTRA_PREFIX):
            extra.setdefault(unquote(lower[len(_EXTRA_PREFIX) :]), []).append(value)
    if not name:
        if groups or uid or extra:
            raise errors.BadRequest("requested impersonation of groups, uid or extra without impersonating a user")
        return user
    _check(user, authorizer, name, uid, groups, extra)
    account = service_account_parts(name)
    if account is not None:
        groups = groups or ["system:serviceaccounts", f"system:serviceaccounts:{account[0]}"]
    implied = "system:unauthenticated" if name == "system:anonymous" else "system:authenticated"
    if not _IMPLIED & set(groups):
        groups.append(implied)
    return User(name, uid, tuple(dict.fromkeys(groups)), extra)


def service_account_parts(name: str) -> tuple[str, str] | None:
    """(namespace, name) if `name` is a service account's user name."""
    if not name.startswith(SERVICE_ACCOUNT_PREFIX):
        return None
    namespace, _, account = name[len(SERVICE_ACCOUNT_PREFIX) :].partition(":")
    return (namespace, account) if namespace and account and ":" not in account else None


def _check(
    user: User, authorizer: Authorizer, name: str, uid: str, groups: list[str], extra: dict[str, list[str]]
) -> None:
    account = service_account_parts(name)
    if account is not None:
        asked = [Attributes(user, "impersonate", "", "v1", "serviceaccounts", "", account[0], account[1])]
    else:
        asked = [Attributes(user, "impersonate", "", "v1", "users", "", "", name)]
    asked += [Attributes(user, "impersonate", "", "v1", "groups", "", "", group) for group in groups]
    if uid:
        asked.append(Attributes(user, "impersonate", "authentication.k8s.io", "v1", "uids", "", "", uid))
    for key, values in extra.items():
        asked += [
            Attributes(user, "impersonate", "authentication.k8s.io", "v1", "userextras", key, "", v) for v in values
        ]
    for attrs in asked:
        decision = authorizer.authorize(attrs)
        if not decision.allowed:
            raise denied(attrs, decision.reason)
