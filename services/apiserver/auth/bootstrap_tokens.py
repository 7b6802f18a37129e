"""Bootstrap tokens: what a host that is to become a node proves itself with before it has a certificate.

A token `ID.SECRET` is the Secret `kube-system/bootstrap-token-ID` (KEP-130; Kubernetes' "Authenticating with Bootstrap
Tokens"). It proves the user `system:bootstrap:ID` in `system:bootstrappers` and in the groups that the Secret adds.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from machinery.api import objects
from services.apiserver.request import User

SECRET_TYPE = "bootstrap.kubernetes.io/token"  # noqa: S105 - a type, not a secret
_NAMESPACE = "kube-system"
_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")
_GROUP_ALL = "system:bootstrappers"

SecretLookup = Callable[[str, str, str], dict[str, Any] | None]
"""(storage, namespace, name) to the object."""


class BootstrapTokens:
    """Judges bootstrap tokens by the Secrets that there are (a `TokenSource` of the Authenticator)."""

    def __init__(self, get: SecretLookup, *, clock: Callable[[], float] = time.time) -> None:
        self._get = get
        self._clock = clock

    async def user_of(self, token: str, audiences: Sequence[str]) -> tuple[User, tuple[str, ...]] | None:
        """The user that a token proves; None if it is no bootstrap token that is good now."""
        parts = _TOKEN.fullmatch(token)
        if parts is None:
            return None
        token_id, secret = parts.groups()
        found = self._get("secrets", _NAMESPACE, f"bootstrap-token-{token_id}")
        groups = None if found is None else groups_of(found, token_id, secret, self._clock())
        if groups is None:
            return None
        return User(f"system:bootstrap:{token_id}", groups=(*groups, "system:authenticated")), ()


def groups_of(stored: Mapping[str, Any], token_id: str, secret: str, now: float) -> tuple[str, ...] | None:
    """The groups of who shows this token; None if the stored Secret does not bear it out at `now` (Unix seconds)."""
    if stored.get("type") != SECRET_TYPE or stored["metadata"].get("deletionTimestamp"):
        return None
    data = stored.get("data") or {}
    if not hmac.compare_digest(_text(data, "token-secret").encode(), secret.encode()):
        return None
    if _text(data, "token-id") != token_id or _text(data, "usage-bootstrap-authentication") != "true":
        return None
    if _expired(_text(data, "expiration"), now):
        return None
    extra = [group for group in _text(data, "auth-extra-groups").split(",") if group]
    # A Secret with a group outside of its own name space proves nothing at all.
    if not all(_GROUP.fullmatch(group) for group in extra):
        return None
    return (_GROUP_ALL, *dict.fromkeys(extra))


def _expired(text: str, now: float) -> bool:
    if not text:
        return False
    try:
        return objects.parse_time(text).timestamp() <= now
    except ValueError:
        return True


def _text(data: Mapping[str, Any], name: str) -> str:
    try:
        return base64.b64decode(data.get(name) or "", validate=True).decode()
    except (ValueError, binascii.Error):
        return ""
