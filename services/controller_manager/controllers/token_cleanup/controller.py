"""Secrets that hold tokens nobody may use any more: of deleted service accounts, and expired ones for joining nodes."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Any

import msgspec

from machinery.api import kinds, objects
from machinery.api.kinds import Kind
from services.controller_manager.actions import Delete, Plan
from services.controller_manager.reconciler import Reconciler
from services.controller_manager.views.meta import Meta, View, nothing

_ACCOUNT_NAME = "kubernetes.io/service-account.name"
_ACCOUNT_UID = "kubernetes.io/service-account.uid"
_BOOTSTRAP_NAMESPACE = "kube-system"


class TokenSecret(View, frozen=True, gc=False):
    """A Secret with its data, in base64."""

    metadata: Meta = Meta()
    data: dict[str, str] = msgspec.field(default_factory=nothing)

    def text(self, name: str) -> str:
        """A value in the clear; empty if it is absent or no text."""
        try:
            return base64.b64decode(self.data.get(name, ""), validate=True).decode()
        except (ValueError, binascii.Error, UnicodeDecodeError):
            return ""


def of_account(secret: TokenSecret, account: Any) -> bool:
    """Whether the secret's account is another one now, or gone (`account` None)."""
    uid = secret.metadata.annotations.get(_ACCOUNT_UID)
    return bool(uid) and (account is None or account.metadata.uid != uid)


def expiry(secret: TokenSecret) -> datetime | None:
    """When a bootstrap token expires; None if it does not say, or says nonsense (then it is no valid token anyway)."""
    try:
        text = secret.text("expiration")
        return objects.parse_time(text) if text else None
    except ValueError:
        return None


class _TokenSecrets(Reconciler):
    secret_type: str

    def watch(self) -> None:
        """Secrets of one type."""
        self.secrets = self.informers.selected(kinds.SECRET, TokenSecret, f"type={self.secret_type}")
        self.secrets.add_handler(self._on_secret)

    def _on_secret(self, old: TokenSecret | None, new: TokenSecret | None) -> None:
        secret = new or old
        assert secret is not None
        self.add(secret.metadata.key)

    def keys(self) -> list[str]:
        """Every such secret."""
        return [secret.metadata.key for secret in self.secrets.lister]

    def _delete(self, secret: TokenSecret) -> Plan:
        meta = secret.metadata
        return Plan([Delete(kinds.SECRET, meta.namespace, meta.name, uid=meta.uid, revision=meta.revision)])


class AccountTokenCleaner(_TokenSecrets):
    """legacy-serviceaccount-token-cleaner-controller"""

    name = "legacy-serviceaccount-token-cleaner-controller"
    secret_type = "kubernetes.io/service-account-token"  # noqa: S105 - a type, not a secret

    def watch(self) -> None:
        """Secrets, and accounts that go."""
        super().watch()
        self.on(kinds.SERVICE_ACCOUNT, self._on_account)

    def _on_account(self, old: Any, new: Any) -> None:
        if new is not None:
            return
        for secret in self.secrets.lister.list(old.metadata.namespace):
            if secret.metadata.annotations.get(_ACCOUNT_NAME) == old.metadata.name:
                self.add(secret.metadata.key)

    async def reconcile(self, key: str) -> Plan | None:
        """Delete it if its account is gone, by the apiserver's own word."""
        secret: TokenSecret | None = self.secrets.lister.by_key(key)
        if secret is None:
            return None
        kind: Kind = kinds.SERVICE_ACCOUNT
        name = secret.metadata.annotations.get(_ACCOUNT_NAME, "")
        account = self.lister(kind).get(secret.metadata.namespace, name)
        if not of_account(secret, account):
            return None
        uid = secret.metadata.annotations[_ACCOUNT_UID]
        if await self.lives(kind, secret.metadata.namespace, name, uid):
            return Plan(requeue_after=5)
        return self._delete(secret)


class BootstrapTokens(_TokenSecrets):
    """What looks at the tokens that nodes join with."""

    secret_type = "bootstrap.kubernetes.io/token"  # noqa: S105 - a type, not a secret

    def tokens(self) -> list[TokenSecret]:
        """Those in the one namespace where such tokens count."""
        return list(self.secrets.lister.list(_BOOTSTRAP_NAMESPACE))


class BootstrapTokenCleaner(BootstrapTokens):
    """token-cleaner-controller"""

    name = "token-cleaner-controller"

    async def reconcile(self, key: str) -> Plan | None:
        """Delete it when it has expired."""
        secret: TokenSecret | None = self.secrets.lister.by_key(key)
        if secret is None or secret.metadata.namespace != _BOOTSTRAP_NAMESPACE:
            return None
        moment = expiry(secret)
        if moment is None:
            return None
        left = (moment - self.env.now()).total_seconds()
        return Plan(requeue_after=left) if left > 0 else self._delete(secret)
