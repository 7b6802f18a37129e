"""Tokens of an OpenID Connect provider: ID tokens whose claims name the user and their groups.

The provider's keys are fetched when a token shows one that is not known, at most every ten seconds, and without
following redirects. Only signatures by keys count (RS256, ES256 and their longer forms), never `none` and never a
shared secret.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp
import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from services.apiserver.auth.oidc_settings import OidcSettings
from services.apiserver.request import User

FETCH_SECONDS_MIN = 10.0
FETCH_SECONDS_MAX = 10.0
DOCUMENT_BYTES_MAX = 1024 * 1024
ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")


class OidcTokens:
    """Verifies ID tokens of one provider (a `TokenSource` of the Authenticator)."""

    def __init__(self, settings: OidcSettings, *, clock: Callable[[], float] = time.time) -> None:
        if not settings.issuer_url.startswith("https://"):
            raise ValueError(f"oidc.issuer_url: {settings.issuer_url!r} must begin with https://")
        if not settings.client_id:
            raise ValueError("oidc.client_id is needed: tokens for another client must not be accepted")
        self._settings = settings
        self._clock = clock
        self._keys: KeySet | None = None
        self._known: frozenset[str] = frozenset()
        self._fetched = float("-inf")
        self._lock = asyncio.Lock()

    async def user_of(self, token: str, audiences: Sequence[str]) -> tuple[User, tuple[str, ...]] | None:
        """The user that a token proves; None if it is not one of this provider's that is good now."""
        try:
            parsed = jws.extract_compact(token.encode())
            header, claims = parsed.headers(), msgspec.json.decode(parsed.payload)
        except (JoseError, ValueError, TypeError):
            return None
        settings = self._settings
        # The issuer is looked at first, so that others' tokens cause no fetching.
        if not isinstance(claims, dict) or claims.get("iss") != settings.issuer_url:
            return None
        keys = await self._keys_with(str(header.get("kid", "")))
        if keys is None or header.get("alg") not in ALGORITHMS:
            return None
        try:
            jws.deserialize_compact(token, keys, algorithms=list(ALGORITHMS))
        except (JoseError, ValueError, TypeError):
            return None
        if not self._holds(claims):
            return None
        user = self._user(claims)
        return None if user is None else (user, (settings.client_id,) if settings.client_id in audiences else ())

    def _holds(self, claims: Mapping[str, Any]) -> bool:
        now, expires, audience = self._clock(), claims.get("exp"), claims.get("aud")
        if not isinstance(expires, int | float) or now >= expires:
            return False
        not_before = claims.get("nbf", 0)
        if not isinstance(not_before, int | float) or now < not_before - 5:
            return False
        if self._settings.client_id not in (audience if isinstance(audience, list) else [audience]):
            return False
        return all(claims.get(name) == value for name, value in self._settings.required_claims.items())

    def _user(self, claims: Mapping[str, Any]) -> User | None:
        settings = self._settings
        name = claims.get(settings.username_claim)
        if not isinstance(name, str) or not name:
            return None
        if settings.username_claim == "email" and claims.get("email_verified", True) is not True:
            return None
        prefix = settings.username_prefix
        if prefix is None:
            prefix = "" if settings.username_claim == "email" else f"{settings.issuer_url}#"
        elif prefix == "-":
            prefix = ""
        groups = claims.get(settings.groups_claim, []) if settings.groups_claim else []
        names = [groups] if isinstance(groups, str) else [group for group in groups if isinstance(group, str)]
        return User(
            prefix + name, groups=(*(settings.groups_prefix + group for group in names), "system:authenticated")
        )

    async def _keys_with(self, key_id: str) -> KeySet | None:
        """The provider's keys, fetched again if this one is not among them."""
        async with self._lock:
            now = time.monotonic()
            if key_id in self._known or now - self._fetched < FETCH_SECONDS_MIN:
                return self._keys
            self._fetched = now
            try:
                document = await self._fetch()
                self._keys = KeySet.import_key_set(document)
                self._known = frozenset(str(key.get("kid", "")) for key in document["keys"])
            except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError, JoseError):
                # The provider is away or talks nonsense: what was known stays good.
                return self._keys
            return self._keys

    async def _fetch(self) -> Any:
        settings = self._settings
        context = ssl.create_default_context(cafile=settings.ca_file or None)
        timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS_MAX)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), timeout=timeout) as session:
            base = settings.issuer_url.rstrip("/")
            discovery = await _get(session, f"{base}/.well-known/openid-configuration")
            if discovery["issuer"] != settings.issuer_url:
                raise ValueError("the provider calls itself something else")
            return await _get(session, discovery["jwks_uri"])


async def _get(session: aiohttp.ClientSession, url: str) -> Any:
    if not url.startswith("https://"):
        raise ValueError(f"{url} is not https")
    async with session.get(url, allow_redirects=False) as answer:
        if answer.status != 200:
            raise ValueError(f"{url} answers {answer.status}")
        return msgspec.json.decode(await answer.content.read(DOCUMENT_BYTES_MAX))
