"""Service-account tokens: what proves something, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwt
from joserfc.jwk import RSAKey

from services.apiserver.auth.tokens import BoundObject, TokenIssuer, TokenRefused


@cache
def key_pem(kind: str, number: int = 0) -> bytes:
    key: Any = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem


class World:
    """What lives, and what time it is."""

    def __init__(self, kind: str = "rsa") -> None:
        self.now = 1_700_000_000.0
        self.alive = {("serviceaccounts", "a", "robot"): "sa-1", ("pods", "a", "web"): "pod-1"}
        self.issuer = TokenIssuer(
            key_pem(kind), lambda *key: self.alive.get(key), audiences=("api",), clock=lambda: self.now
        )

    def issue(self, **more: Any) -> str:
        return self.issuer.issue("a", "robot", "sa-1", **more)[0]


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_a_token_proves_its_service_account(kind: str) -> None:
    world = World(kind)
    user, audiences = world.issuer.verify(world.issue())
    assert user.name == "system:serviceaccount:a:robot"
    assert user.uid == "sa-1"
    assert set(user.groups) == {"system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"}
    assert audiences == ("api",)


def test_it_ends_with_its_time() -> None:
    world = World()
    token = world.issue(seconds=600)
    world.now += 599
    world.issuer.verify(token)
    world.now += 2
    with pytest.raises(TokenRefused, match="expired"):
        world.issuer.verify(token)


def test_it_ends_with_the_service_account_and_with_the_pod() -> None:
    world = World()
    bound = world.issue(bound=BoundObject("Pod", "web", "pod-1"))
    user, _ = world.issuer.verify(bound)
    assert user.extra["authentication.kubernetes.io/pod-name"] == ["web"]
    world.alive["pods", "a", "web"] = "pod-2"
    with pytest.raises(TokenRefused, match="gone"):
        world.issuer.verify(bound)
    plain = world.issue()
    world.issuer.verify(plain)
    del world.alive["serviceaccounts", "a", "robot"]
    with pytest.raises(TokenRefused, match="gone"):
        world.issuer.verify(plain)


def test_it_is_good_only_for_its_audiences() -> None:
    world = World()
    vault = world.issue(audiences=("vault",))
    with pytest.raises(TokenRefused):
        world.issuer.verify(vault)
    assert world.issuer.verify(vault, ("vault", "other"))[1] == ("vault",)


def test_a_pod_that_asks_for_an_hour_gets_a_year_and_a_warning() -> None:
    world = World()
    token, expires = world.issuer.issue("a", "robot", "sa-1", seconds=3607, bound=BoundObject("Pod", "web", "pod-1"))
    assert expires == world.now + 3607
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["kubernetes.io"]["warnafter"] == world.now + 3607
    assert claims["exp"] == world.now + 365 * 24 * 3600


def _parts(token: str) -> tuple[dict[str, Any], bytes]:
    header, payload, _ = token.split(".")
    return json.loads(base64.urlsafe_b64decode(header + "==")), payload.encode()


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_alg_none_is_refused() -> None:
    world = World()
    header, payload = _parts(world.issue())
    forged = f"{_b64(json.dumps({**header, 'alg': 'none'}).encode())}.{payload.decode()}."
    with pytest.raises(TokenRefused):
        world.issuer.verify(forged)


def test_hmac_with_the_public_key_is_refused() -> None:
    world = World()
    header, payload = _parts(world.issue())
    public = serialization.load_pem_private_key(key_pem("rsa"), None).public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signed = f"{_b64(json.dumps({**header, 'alg': 'HS256'}).encode())}.{payload.decode()}"
    signature = _b64(hmac.new(pem, signed.encode(), hashlib.sha256).digest())
    with pytest.raises(TokenRefused):
        world.issuer.verify(f"{signed}.{signature}")


def test_another_key_another_issuer_a_changed_claim_and_garbage_are_refused() -> None:
    world = World()
    token = world.issue()
    header, _ = _parts(token)
    stranger = RSAKey.import_key(key_pem("rsa", 1))
    claims = {"iss": world.issuer.issuer, "aud": ["api"], "exp": world.now + 60, "sub": "system:serviceaccount:a:robot"}
    forged = jwt.encode({"alg": "RS256", "kid": header["kid"]}, claims, stranger)
    head, payload, signature = token.split(".")
    changed = json.loads(base64.urlsafe_b64decode(payload + "=="))
    changed["kubernetes.io"]["serviceaccount"]["name"] = "admin"
    foreign = TokenIssuer(key_pem("rsa"), lambda *_: "sa-1", issuer="https://elsewhere", audiences=("api",))
    for bad in (
        forged,
        f"{head}.{_b64(json.dumps(changed).encode())}.{signature}",
        foreign.issue("a", "robot", "sa-1")[0],
        "",
        "a.b.c",
        "x" * 5000,
        f"{head}.{payload}",
    ):
        with pytest.raises(TokenRefused):
            world.issuer.verify(bad)


def test_an_older_key_still_verifies() -> None:
    old = World("ec")
    token = old.issue()
    public = serialization.load_pem_private_key(key_pem("ec"), None).public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    new = TokenIssuer(
        key_pem("rsa"), lambda *_: "sa-1", audiences=("api",), older_public_keys=[pem], clock=lambda: old.now
    )
    assert new.verify(token)[0].name == "system:serviceaccount:a:robot"
    assert {key["kty"] for key in new.jwks()["keys"]} == {"RSA", "EC"}
    assert not any("d" in key for key in new.jwks()["keys"])
