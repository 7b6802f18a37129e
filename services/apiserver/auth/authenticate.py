"""Who is asking: a client certificate or a bearer token becomes a `User`; neither is `system:anonymous`."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

from cryptography import x509
from cryptography.x509.oid import NameOID

from machinery.api import errors
from services.apiserver.auth.tokens import TokenIssuer, TokenRefused
from services.apiserver.request import User

ANONYMOUS = User("system:anonymous", groups=("system:unauthenticated",))
AUTHENTICATED_GROUP = "system:authenticated"
_CACHE_SIZE = 8192


class TokenSource(Protocol):
    """Another kind of bearer token (OIDC, a webhook)."""

    async def user_of(self, token: str, audiences: Sequence[str]) -> tuple[User, tuple[str, ...]] | None:
        """The user and matched audiences, or None if this source does not know the token."""


class Authenticator:
    """Turns credentials into users. TLS has already proven that the certificate is the caller's and that our CA
    signed it.
    """

    def __init__(
        self,
        tokens: TokenIssuer | None = None,
        *,
        others: Sequence[TokenSource] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.tokens = tokens
        self.others = tuple(others)
        self._clock = clock
        # DER -> (user, valid from, valid until): a connection shows the same certificate with every request.
        self._certificates: OrderedDict[bytes, tuple[User | None, float, float]] = OrderedDict()

    def from_certificate(self, der: bytes) -> User | None:
        """The user that a verified client certificate names: CN is the name, each O a group. None without CN, or out
        of its time.
        """
        known = self._certificates.get(der)
        if known is None:
            known = _parse_certificate(der)
            self._certificates[der] = known
            if len(self._certificates) > _CACHE_SIZE:
                self._certificates.popitem(last=False)
        user, start, end = known
        # The handshake checked this too, but a connection can outlive its certificate.
        return user if start <= self._clock() < end else None

    async def from_token(self, token: str, audiences: Sequence[str] = ()) -> User:
        """The user that a bearer token proves. Raises Unauthorized."""
        user, _ = await self.review_token(token, audiences)
        return user

    async def review_token(self, token: str, audiences: Sequence[str] = ()) -> tuple[User, tuple[str, ...]]:
        """The user and the audiences that matched. Raises Unauthorized; the caller is never told why."""
        if self.tokens is not None:
            try:
                return self.tokens.verify(token, audiences)
            except TokenRefused:
                pass
        for source in self.others:
            found = await source.user_of(token, audiences)
            if found is not None:
                return found
        raise errors.Unauthorized("Unauthorized")


def _parse_certificate(der: bytes) -> tuple[User | None, float, float]:
    certificate = x509.load_der_x509_certificate(der)
    start, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not names:
        return None, start, end
    groups = [str(part.value) for part in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    credential = f"X509SHA256={hashlib.sha256(der).hexdigest()}"
    user = User(
        name=str(names[0].value),
        groups=(*dict.fromkeys(groups), AUTHENTICATED_GROUP),
        extra={"authentication.kubernetes.io/credential-id": [credential]},
    )
    return user, start, end
