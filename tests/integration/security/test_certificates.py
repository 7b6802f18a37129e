"""Certificates by request: who may approve, who may sign, and what nobody gets."""

from __future__ import annotations

import base64
import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lab.pki import Authority, Identity
from tests.integration.security.conftest import Target
from tests.integration.security.test_what import call, grant, rule

GROUP = "certificates.k8s.io"
PATH = f"/apis/{GROUP}/v1/certificatesigningrequests"
CLIENT = "kubernetes.io/kube-apiserver-client"
MERGE = {"Content-Type": "application/merge-patch+json"}


def request(user: str, *groups: str) -> bytes:
    """A PEM certificate request."""
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    names.append(x509.NameAttribute(NameOID.COMMON_NAME, user))
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names)).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


def signing_request(name: str, signer: str, pem: bytes, usage: str = "client auth") -> dict[str, Any]:
    spec = {
        "request": base64.b64encode(pem).decode(),
        "signerName": signer,
        "usages": ["digital signature", usage],
        # Who asks is for the apiserver to say.
        "username": "system:admin",
        "groups": ["system:masters"],
    }
    kind = "CertificateSigningRequest"
    return {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def condition(kind: str = "Approved") -> dict[str, Any]:
    return {"status": {"conditions": [{"type": kind, "status": "True", "reason": "x", "message": "x"}]}}


async def test_masters_and_false_names_are_not_to_be_had(target: Target) -> None:
    await grant(target, "asker", rule("create,get", "certificatesigningrequests", GROUP))
    masters = signing_request("masters", CLIENT, request("me", "system:masters"))
    assert await call(target, "asker", "POST", PATH, json=masters) == 403
    body = signing_request("plain", CLIENT, request("me"))
    async with target.session(target.user("asker")) as session, session.post(PATH, json=body) as answer:
        assert answer.status == 201
        spec = (await answer.json())["spec"]
    assert (spec["username"], spec["groups"]) == ("asker", ["system:authenticated"])


@pytest.mark.parametrize(
    ("subresource", "verb", "patch"),
    [
        ("approval", "approve", condition()),
        ("status", "sign", {"status": {"certificate": base64.b64encode(b"x").decode()}}),
        ("status", "sign", condition("Failed")),
    ],
)
async def test_the_right_to_the_subresource_is_not_the_right_to_the_signer(
    target: Target, subresource: str, verb: str, patch: dict[str, Any]
) -> None:
    name = f"wanted-{subresource}-{len(str(patch))}"
    await target.create(PATH, signing_request(name, CLIENT, request("me")))
    path = f"{PATH}/{name}/{subresource}"
    update = rule("get,update,patch", f"certificatesigningrequests/{subresource}", GROUP)
    other = {**rule(verb, "signers", GROUP), "resourceNames": ["example.com/*", "kubernetes.io/kubelet-serving"]}
    await grant(target, f"no-{verb}", update, other)
    assert await call(target, f"no-{verb}", "PATCH", path, json=patch, headers=MERGE) == 403
    for which in (CLIENT, "kubernetes.io/*"):
        user = f"{verb}-{which.replace('/', '-').replace('*', 'all')}-{len(str(patch))}"
        await grant(target, user, update, {**rule(verb, "signers", GROUP), "resourceNames": [which]})
        status = await call(target, user, "PATCH", path, json=patch, headers=MERGE)
        # Not refused for the signer's sake; what is no certificate may be refused as invalid.
        assert status in (200, 422), which


async def test_an_approval_changes_nothing_else(target: Target) -> None:
    await target.create(PATH, signing_request("kept", CLIENT, request("me")))
    patch = {**condition(), "spec": {"signerName": "kubernetes.io/kubelet-serving", "username": "system:admin"}}
    patch["status"]["certificate"] = base64.b64encode(b"mine").decode()
    async with target.session(target.process.admin) as admin:
        async with admin.patch(f"{PATH}/kept/approval", json=patch, headers=MERGE) as answer:
            made = await answer.json()
        assert answer.status in (200, 422), made
        async with admin.get(f"{PATH}/kept") as answer:
            kept = await answer.json()
    assert kept["spec"]["signerName"] == CLIENT
    assert kept["spec"]["username"] == "kubernetes-admin"
    assert not (kept.get("status") or {}).get("certificate")


def issued(authority: Authority, directory: Path, ca_file: Path, user: str, *groups: str) -> Identity:
    """A client certificate by an authority, outside of its PKI's folder."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    names.append(x509.NameAttribute(NameOID.COMMON_NAME, user))
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(names))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    cert_file, key_file = directory / f"{user}.crt", directory / f"{user}.key"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return Identity(ca_file, cert_file, key_file)
