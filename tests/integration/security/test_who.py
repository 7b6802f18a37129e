"""Who are you: nobody gets in who does not belong."""

from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import hmac
import json
import ssl
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from joserfc import jws

from lab.pki import Identity, Pki
from services.apiserver.auth.tokens import TokenIssuer
from tests.integration.security.conftest import Target


async def status_of(target: Target, identity: Identity | None, path: str = "/api/v1/pods", **headers: str) -> int:
    async with target.session(identity, **headers) as session, session.get(path) as answer:
        return answer.status


async def test_without_a_certificate_one_is_anonymous_and_sees_only_what_is_public(target: Target) -> None:
    assert await status_of(target, None) == 403
    assert await status_of(target, None, "/version") == 200
    assert await status_of(target, None, "/livez") == 200
    assert await status_of(target, None, "/api") == 403
    assert await status_of(target, None, "/metrics") == 403
    assert await status_of(target, None, "/openapi/v3") == 403


async def refused(target: Target, identity: Identity) -> bool:
    """Whether the TLS handshake (or the first read after it, in TLS 1.3) fails."""
    try:
        await status_of(target, identity)
    except (TimeoutError, aiohttp.ClientError, ssl.SSLError, ConnectionError):
        return True
    return False


async def test_a_certificate_of_another_authority_is_refused(target: Target, tmp_path: Path) -> None:
    other = Pki(tmp_path / "other")
    other.ensure("other")
    assert await refused(target, other.client("admin", "kubernetes-admin", ["system:masters"]))


def forged(target: Target, tmp_path: Path, *, usage: Any, days: tuple[int, int]) -> Identity:
    """A certificate by the right authority with the given usage and validity."""
    authority = target.pki.authority()
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:masters"),
            x509.NameAttribute(NameOID.COMMON_NAME, "mallory"),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=days[0]))
        .not_valid_after(now + datetime.timedelta(days=days[1]))
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    cert_file, key_file = tmp_path / "x.crt", tmp_path / "x.key"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return Identity(target.pki.ca_file, cert_file, key_file)


@pytest.mark.parametrize(
    ("usage", "days"),
    [
        (ExtendedKeyUsageOID.CLIENT_AUTH, (-10, -1)),
        (ExtendedKeyUsageOID.CLIENT_AUTH, (1, 10)),
        (ExtendedKeyUsageOID.SERVER_AUTH, (-1, 10)),
    ],
    ids=["expired", "not yet valid", "a server's"],
)
async def test_an_expired_or_early_or_servers_certificate_is_refused(
    target: Target, tmp_path: Path, usage: Any, days: tuple[int, int]
) -> None:
    assert await refused(target, forged(target, tmp_path, usage=usage, days=days))


async def service_account_token(target: Target, name: str, **spec: Any) -> str:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
    await target.create("/api/v1/namespaces/default/serviceaccounts", account)
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    path = f"/api/v1/namespaces/default/serviceaccounts/{name}/token"
    async with target.session(target.process.admin) as admin, admin.post(path, json=request) as answer:
        assert answer.status == 201, await answer.text()
        token: str = (await answer.json())["status"]["token"]
        return token


async def whoami(target: Target, token: str) -> int:
    return await status_of(target, None, "/api", Authorization=f"Bearer {token}")


async def test_forged_tokens_are_refused(target: Target) -> None:
    token = await service_account_token(target, "robot")
    assert await whoami(target, token) == 200
    head, payload, signature = token.split(".")
    header = json.loads(base64.urlsafe_b64decode(head + "=="))

    def encoded(document: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()

    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["kubernetes.io"]["serviceaccount"]["name"] = "admin"
    for bad in (
        f"{encoded({**header, 'alg': 'none'})}.{payload}.",
        f"{head}.{encoded(claims)}.{signature}",
        f"{head}.{payload}.{signature[:-4]}AAAA",
        f"{head}.{payload}",
        "garbage",
        "a" * 20_000,
    ):
        assert await whoami(target, bad) in (400, 401), bad[:60]


async def test_a_token_for_another_audience_is_refused(target: Target) -> None:
    token = await service_account_token(target, "vaulter", audiences=["vault"])
    assert await whoami(target, token) == 401


async def test_the_token_of_a_deleted_account_ends_within_ten_seconds(target: Target) -> None:
    token = await service_account_token(target, "leaver")
    assert await whoami(target, token) == 200
    path = "/api/v1/namespaces/default/serviceaccounts/leaver"
    async with target.session(target.process.admin) as admin, admin.delete(path) as answer:
        assert answer.status == 200
    deadline = time.monotonic() + 10
    while await whoami(target, token) != 401:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_bad_token_is_not_ignored_where_anonymous_would_pass(target: Target) -> None:
    assert await status_of(target, None, "/version", Authorization="Bearer nonsense") == 401
    assert await status_of(target, None, "/version", Authorization="Basic YTpi") == 401


async def test_identity_headers_of_a_proxy_are_not_believed(target: Target) -> None:
    headers = {"X-Remote-User": "kubernetes-admin", "X-Remote-Group": "system:masters"}
    assert await status_of(target, None, "/api/v1/pods", **headers) == 403


async def test_impersonation_needs_its_own_right_for_each_part(target: Target) -> None:
    jane = target.user("jane")
    for headers in (
        {"Impersonate-User": "kubernetes-admin"},
        {"Impersonate-User": "jane", "Impersonate-Group": "system:masters"},
        {"impersonate-user": "kubernetes-admin"},
        {"IMPERSONATE-USER": "kubernetes-admin"},
    ):
        assert await status_of(target, jane, "/api", **headers) == 403, headers
    for headers in ({"Impersonate-Group": "system:masters"}, {"Impersonate-Extra-scopes": "all"}):
        assert await status_of(target, jane, "/api", **headers) == 400, headers


def _encoded(document: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


async def test_a_token_signed_with_what_everybody_can_read_is_refused(target: Target) -> None:
    """HS256 with the public key: whoever takes the header's word for the algorithm takes the key for a password."""
    token = await service_account_token(target, "classic")
    head, payload, _ = token.split(".")
    header = json.loads(base64.urlsafe_b64decode(head + "=="))
    async with target.session(target.process.admin) as admin, admin.get("/openid/v1/jwks") as answer:
        keys = (await answer.json(content_type=None))["keys"]
    public = serialization.load_pem_private_key((target.pki.directory / "sa.key").read_bytes(), None).public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for secret in (pem, pem.strip(), json.dumps(keys[0]).encode(), b""):
        for changed in ({}, {"kid": keys[0]["kid"]}, {"jwk": keys[0]}, {"kid": ""}):
            signed = f"{_encoded({**header, **changed, 'alg': 'HS256'})}.{payload}"
            mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
            forged_token = f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
            assert await whoami(target, forged_token) == 401


async def test_a_token_signed_with_a_key_of_its_own_is_refused(target: Target) -> None:
    """By `jwk`, `jku` and `x5u` a header could bring its key along."""
    token = await service_account_token(target, "keyring")
    head, payload, _ = token.split(".")
    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    jwk = {
        "kty": "EC", "crv": "P-256",
        **{name: base64.urlsafe_b64encode(value.to_bytes(32, "big")).rstrip(b"=").decode()
           for name, value in (("x", numbers.x), ("y", numbers.y))},
    }  # fmt: skip
    header = json.loads(base64.urlsafe_b64decode(head + "=="))
    for extra in ({"jwk": jwk}, {"jku": "https://127.0.0.1:1/keys"}, {"x5u": "https://127.0.0.1:1/cert"}, {"kid": "x"}):
        signed = f"{_encoded({**header, 'alg': 'ES256', **extra})}.{payload}"
        r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        signature = base64.urlsafe_b64encode(r.to_bytes(32, "big") + s.to_bytes(32, "big")).rstrip(b"=").decode()
        assert await whoami(target, f"{signed}.{signature}") == 401


async def test_an_expired_token_is_refused(target: Target) -> None:
    """Signed with the cluster's own key: only its time is over, or has not come, or nobody said when."""
    token = await service_account_token(target, "late")
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    issuer = TokenIssuer.from_files(target.pki.directory / "sa.key", lambda *_: None)
    now = int(time.time())

    def signed(**changes: Any) -> str:
        header = {"alg": issuer._algorithm, "kid": issuer._key_id}
        body = {key: value for key, value in {**claims, **changes}.items() if value is not None}
        return jws.serialize_compact(header, json.dumps(body).encode(), issuer._signing, algorithms=[issuer._algorithm])

    assert await whoami(target, signed()) == 200
    for changes in (
        {"exp": now - 1},
        {"exp": None},
        {"exp": "never"},
        {"nbf": now + 600},
        {"aud": []},
        {"aud": "elsewhere"},
        {"iss": "https://elsewhere.example"},
        {"sub": "system:serviceaccount:kube-system:admin"},
        {"kubernetes.io": None},
    ):
        assert await whoami(target, signed(**changes)) == 401, changes


@pytest.mark.parametrize("kind", ["Pod", "Secret", "Node"])
async def test_a_token_ends_with_what_it_is_bound_to(target: Target, kind: str) -> None:
    name = f"short-lived-{kind.lower()}"
    path = {"Pod": "/api/v1/namespaces/default/pods", "Secret": "/api/v1/namespaces/default/secrets",
            "Node": "/api/v1/nodes"}[kind]  # fmt: skip
    await service_account_token(target, name)
    body: dict[str, Any] = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}
    if kind == "Pod":
        body["spec"] = {"serviceAccountName": name, "containers": [{"name": "c", "image": "i"}]}
    await target.create(path, body)
    bound = {"apiVersion": "v1", "kind": kind, "name": name}
    token = await service_account_token(target, name, boundObjectRef=bound)
    assert await whoami(target, token) == 200
    deletion = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
    async with target.session(target.process.admin) as admin, admin.delete(f"{path}/{name}", json=deletion) as answer:
        assert answer.status == 200
    deadline = time.monotonic() + 10
    while await whoami(target, token) != 401:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    # One of the same name is another one.
    await target.create(path, body)
    assert await whoami(target, token) == 401
