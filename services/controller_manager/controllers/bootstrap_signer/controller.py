"""The ConfigMap `kube-public/cluster-info`: anybody may read it, and who joins with a bootstrap token finds a signature
made with that very token beside the kubeconfig (`kubeadm join` and its like look for it).

A signature is a detached JWS (RFC 7515, appendix F): HS256 with the token's secret, `kid` its id.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from machinery.api import kinds
from services.controller_manager.actions import Patch, Plan, merge_diff
from services.controller_manager.controllers.token_cleanup.controller import BootstrapTokens, TokenSecret, expiry
from services.controller_manager.views.meta import Meta, View, nothing

NAMESPACE, NAME = "kube-public", "cluster-info"
_CONTENT = "kubeconfig"
_SIGNATURE = "jws-kubeconfig-"
_KEY = f"{NAMESPACE}/{NAME}"


class ClusterInfo(View, frozen=True, gc=False):
    """The ConfigMap, with its data."""

    metadata: Meta = Meta()
    data: dict[str, str] = msgspec.field(default_factory=nothing)


def signature(content: str, token_id: str, secret: str) -> str:
    """The detached JWS of `content`: "header..mac"."""
    header = _base64(json.dumps({"alg": "HS256", "kid": token_id}, separators=(",", ":")).encode())
    signed = f"{header}.{_base64(content.encode())}".encode()
    return f"{header}..{_base64(hmac.digest(secret.encode(), signed, hashlib.sha256))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token_of(secret: TokenSecret, now: datetime) -> tuple[str, str] | None:
    """(id, secret) of a token that may sign now; None for one that may not."""
    token_id, value = secret.text("token-id"), secret.text("token-secret")
    if not token_id or not value or secret.metadata.name != f"bootstrap-token-{token_id}":
        return None
    if secret.text("usage-bootstrap-signing") != "true":
        return None
    if secret.text("expiration"):
        moment = expiry(secret)
        if moment is None or moment <= now:
            return None
    return token_id, value


def plan(info: ClusterInfo | None, secrets: Iterable[TokenSecret], now: datetime) -> Plan:
    """Bring the signatures in line with the tokens, and look again when the next one expires."""
    out = Plan()
    if info is None or _CONTENT not in info.data:
        return out
    content = info.data[_CONTENT]
    wanted = {}
    for secret in secrets:
        token = token_of(secret, now)
        if token is not None:
            wanted[_SIGNATURE + token[0]] = signature(content, *token)
            if (moment := expiry(secret)) is not None:
                out.wake((moment - now).total_seconds())
    present = {name: text for name, text in info.data.items() if name.startswith(_SIGNATURE)}
    if changed := merge_diff(present, wanted):
        meta = info.metadata
        # The content was read at this revision: another content must not end up with its signature.
        out.actions.append(
            Patch(kinds.CONFIG_MAP, NAMESPACE, NAME, {"data": changed}, uid=meta.uid, revision=meta.revision)
        )
    return out


class BootstrapSigner(BootstrapTokens):
    """bootstrap-signer-controller"""

    name = "bootstrap-signer-controller"
    workers = 1

    def watch(self) -> None:
        """Bootstrap tokens, and cluster-info alone of all ConfigMaps."""
        super().watch()
        selector = f"metadata.namespace={NAMESPACE},metadata.name={NAME}"
        self.infos = self.informers.selected(kinds.CONFIG_MAP, ClusterInfo, selector)
        self.infos.add_handler(lambda old, new: self.add(_KEY))

    def _on_secret(self, old: Any, new: Any) -> None:
        self.add(_KEY)

    def keys(self) -> list[str]:
        """The one ConfigMap."""
        return [_KEY]

    async def reconcile(self, key: str) -> Plan | None:
        """See `plan`."""
        return plan(self.infos.lister.get(NAMESPACE, NAME), self.tokens(), self.env.now())
