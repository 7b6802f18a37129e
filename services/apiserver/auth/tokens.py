"""Service-account tokens: issued, bound to what uses them, and verified.

A token is a JWT signed with the cluster's key (`sa.key`; RS256 for an RSA key, ES256 for an elliptic one). It is
bound: it ends with its expiry, and at once with the service account, pod, secret or node that it names. Claims
follow upstream's, so that clients and cloud providers that read them need no change; the public half is published as
OIDC discovery documents.
"""

from __future__ import annotations

import base64
import hashlib
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from services.apiserver.request import User

SERVICE_ACCOUNT_PREFIX = "system:serviceaccount:"
DEFAULT_ISSUER = "https://kubernetes.default.svc.cluster.local"
# Kubelets that ask for an hour get a year, as upstream's --service-account-extend-token-expiration does; `warnafter`
# tells when the asked-for hour has passed.
EXTENDED_SECONDS = 365 * 24 * 3600
PLAIN_POD_TOKEN_SECONDS = 3607
_CACHE_SIZE = 4096

# lookup(resource, namespace, name) -> uid of the live object, or None if there is none. An object that is being
# deleted counts as live.
Lookup = Callable[[str, str, str], str | None]


class TokenRefused(Exception):
    """The token proves nothing; the text says why (for logs, never for the caller)."""


@dataclass(frozen=True, slots=True)
class BoundObject:
    """What a token lives and dies with: a Pod, Secret or Node."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class _Verified:
    user: User
    audiences: tuple[str, ...]
    not_before: float
    expires: float
    # (resource, namespace, name, uid) of everything that must still be there
    bound: tuple[tuple[str, str, str, str], ...]


class TokenIssuer:
    """Signs and verifies tokens with one key; older public keys may still verify.

    Promises: a token is accepted only if one of *our* keys signed it with the algorithm that fits the key (never
    `none`, never an HMAC), our issuer stands in it, one of the wanted audiences is in `aud`, its time has come and
    not passed, and everything it is bound to is alive.
    """

    def __init__(
        self,
        private_key: bytes,
        lookup: Lookup,
        *,
        issuer: str = DEFAULT_ISSUER,
        audiences: Sequence[str] = (),
        older_public_keys: Sequence[bytes] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.issuer = issuer
        self.audiences = tuple(audiences) or (issuer,)
        self._lookup = lookup
        self._clock = clock
        self._signing, self._algorithm = _import_key(private_key, private=True)
        # Its public half is read once: each reading of an RSA key proves its primes, some tens of milliseconds.
        public_key = self._signing.as_pem(private=False)
        self._key_id = _key_id(public_key)
        self._public: dict[str, tuple[Any, str]] = {self._key_id: _import_key(public_key)}
        for pem in older_public_keys:
            self._public[_key_id(pem)] = _import_key(pem)
        self._cache: OrderedDict[str, _Verified] = OrderedDict()

    @classmethod
    def from_files(cls, private_key: Path | str, lookup: Lookup, **options: Any) -> TokenIssuer:
        """An issuer that signs with the PEM key in a file."""
        return cls(Path(private_key).read_bytes(), lookup, **options)

    def issue(
        self,
        namespace: str,
        service_account: str,
        service_account_uid: str,
        *,
        audiences: Sequence[str] = (),
        seconds: int = 3600,
        bound: BoundObject | None = None,
        node: BoundObject | None = None,
    ) -> tuple[str, float]:
        """A token and its time of expiry (epoch seconds)."""
        now = int(self._clock())
        audiences = tuple(audiences) or self.audiences
        kubernetes: dict[str, Any] = {
            "namespace": namespace,
            "serviceaccount": {"name": service_account, "uid": service_account_uid},
        }
        lifetime = seconds
        if bound is not None:
            kubernetes[bound.kind.lower()] = {"name": bound.name, "uid": bound.uid}
            if bound.kind == "Pod" and node is not None:
                kubernetes["node"] = {"name": node.name, "uid": node.uid}
            if bound.kind == "Pod" and seconds == PLAIN_POD_TOKEN_SECONDS and set(audiences) <= set(self.audiences):
                kubernetes["warnafter"] = now + seconds
                lifetime = EXTENDED_SECONDS
        claims = {
            "aud": list(audiences),
            "exp": now + lifetime,
            "iat": now,
            "iss": self.issuer,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": kubernetes,
            "nbf": now,
            "sub": f"{SERVICE_ACCOUNT_PREFIX}{namespace}:{service_account}",
        }
        header = {"alg": self._algorithm, "kid": self._key_id}
        token = jws.serialize_compact(header, msgspec.json.encode(claims), self._signing, algorithms=[self._algorithm])
        # The answer states the expiry that was asked for, also where the token itself lives longer.
        return token, float(now + seconds)

    def verify(self, token: str, audiences: Sequence[str] = ()) -> tuple[User, tuple[str, ...]]:
        """The user whom `token` proves and the audiences that matched. Raises TokenRefused."""
        verified = self._cache.get(token)
        if verified is None:
            verified = self._parse(token)
            self._cache[token] = verified
            if len(self._cache) > _CACHE_SIZE:
                self._cache.popitem(last=False)
        now = self._clock()
        if now < verified.not_before - 5:
            raise TokenRefused("the token is not valid yet")
        if now >= verified.expires:
            raise TokenRefused("the token has expired")
        wanted = tuple(audiences) or self.audiences
        matched = tuple(audience for audience in wanted if audience in verified.audiences)
        if not matched:
            raise TokenRefused(f"the token is for {list(verified.audiences)}, not for {list(wanted)}")
        for resource, namespace, name, uid in verified.bound:
            if self._lookup(resource, namespace, name) != uid:
                raise TokenRefused(f"{resource} {namespace}/{name} with uid {uid} is gone")
        return verified.user, matched

    def _parse(self, token: str) -> _Verified:
        claims = self._signed_claims(token)
        if claims.get("iss") != self.issuer:
            raise TokenRefused("another issuer")
        private = claims.get("kubernetes.io")
        audience, expires = claims.get("aud"), claims.get("exp")
        if not isinstance(private, dict) or not isinstance(expires, int | float):
            raise TokenRefused("no service-account claims")
        audiences = tuple(audience) if isinstance(audience, list) else (audience,) if isinstance(audience, str) else ()
        namespace, account = private.get("namespace"), private.get("serviceaccount") or {}
        if (
            not isinstance(namespace, str)
            or claims.get("sub") != f"{SERVICE_ACCOUNT_PREFIX}{namespace}:{account.get('name')}"
        ):
            raise TokenRefused("the subject does not agree with the claims")
        bound = [("serviceaccounts", namespace, account["name"], account.get("uid", ""))]
        extra: dict[str, list[str]] = {}
        if claims.get("jti"):
            extra["authentication.kubernetes.io/credential-id"] = [f"JTI={claims['jti']}"]
        for kind, resource, scope in (
            ("node", "nodes", ""),
            ("pod", "pods", namespace),
            ("secret", "secrets", namespace),
        ):
            ref = private.get(kind)
            if not ref:
                continue
            # A pod's token outlives its node's object; a token bound to the node itself does not.
            if kind != "node" or "pod" not in private:
                bound.append((resource, scope, ref["name"], ref.get("uid", "")))
            if kind != "secret":
                extra[f"authentication.kubernetes.io/{kind}-name"] = [ref["name"]]
                extra[f"authentication.kubernetes.io/{kind}-uid"] = [ref.get("uid", "")]
        user = service_account_user(namespace, account["name"], account.get("uid", ""), extra)
        return _Verified(user, audiences, float(claims.get("nbf", 0)), float(expires), tuple(bound))

    def _signed_claims(self, token: str) -> dict[str, Any]:
        try:
            unverified = jws.extract_compact(token.encode()).headers()
            key, algorithm = self._public.get(unverified.get("kid", ""), (None, ""))
            if key is None:
                raise TokenRefused("signed by a key that is not ours")
            # The algorithm is the key's, whatever the header says: this is what keeps `none` and
            # HMAC-with-the-public-key out.
            payload = jws.deserialize_compact(token, key, algorithms=[algorithm]).payload
            claims = msgspec.json.decode(payload)
        except (JoseError, ValueError, TypeError, AttributeError) as error:
            raise TokenRefused(f"not a token of ours: {error}") from error
        if not isinstance(claims, dict):
            raise TokenRefused("claims are no mapping")
        return claims

    # -- OIDC discovery --

    def openid_configuration(self, jwks_uri: str) -> dict[str, Any]:
        """The document at /.well-known/openid-configuration."""
        return {
            "issuer": self.issuer,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": sorted({algorithm for _, algorithm in self._public.values()}),
        }

    def jwks(self) -> dict[str, Any]:
        """The document at /openid/v1/jwks: the public keys."""
        keys = []
        for key_id, (key, algorithm) in self._public.items():
            keys.append({"use": "sig", "kid": key_id, "alg": algorithm, **key.as_dict(private=False)})
        return {"keys": keys}


def service_account_user(namespace: str, name: str, uid: str = "", extra: dict[str, list[str]] | None = None) -> User:
    """The user as which a service account's requests are judged."""
    return User(
        name=f"{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}",
        uid=uid,
        groups=("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"),
        extra=extra or {},
    )


def _public_key(pem: bytes) -> Any:
    if b"PRIVATE KEY" in pem:
        return serialization.load_pem_private_key(pem, None).public_key()
    return serialization.load_pem_public_key(pem)


def _import_key(pem: bytes, *, private: bool = False) -> tuple[Any, str]:
    key: Any
    if private:
        key = serialization.load_pem_private_key(pem, None)
        public = key.public_key()
    else:
        key = public = _public_key(pem)
    if isinstance(public, rsa.RSAPublicKey):
        return RSAKey.import_key(key), "RS256"
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name == "secp256r1":
        return ECKey.import_key(key), "ES256"
    raise ValueError("a service-account key must be RSA or an elliptic key on P-256")


def _key_id(pem: bytes) -> str:
    der = _public_key(pem).public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digest = hashlib.sha256(der).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
