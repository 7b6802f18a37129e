"""Certificates by CertificateSigningRequest: a new key, a request, and the answer of the controller-manager.

Certificate and key lie in one PEM file that is replaced atomically: nobody reads the one of before with the other of
now. The key never leaves the host.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lab.errors import LabError
from lab.join.rest import Rest

REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
# The controllers answer within milliseconds; a cluster under load may take its time.
ISSUE_SECONDS = 30.0
ASK_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Wanted:
    """A certificate: whose, by which signer, and for a server its names and addresses."""

    common_name: str
    signer: str
    organizations: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()

    @property
    def usage(self) -> str:
        return "server auth" if self.signer == KUBELET_SERVING else "client auth"


def request_of(wanted: Wanted, key: ec.EllipticCurvePrivateKey, seconds: int | None) -> dict[str, Any]:
    """The CertificateSigningRequest for a key. `seconds`: how long the certificate shall be valid; the signer may give
    less."""
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in wanted.organizations]
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, wanted.common_name)])
    )
    if wanted.hosts:
        alternatives = x509.SubjectAlternativeName([_general_name(host) for host in wanted.hosts])
        builder = builder.add_extension(alternatives, critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    spec: dict[str, Any] = {
        "request": base64.b64encode(pem).decode(),
        "signerName": wanted.signer,
        "usages": ["digital signature", wanted.usage],
    }
    if seconds is not None:
        spec["expirationSeconds"] = seconds
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "cutaway-join-"},
        "spec": spec,
    }


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def obtain(client: Rest, wanted: Wanted, path: Path, *, seconds: int | None = None) -> None:
    """Ask for a certificate with a new key and put both into `path`. Raises LabError if it is not issued."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = client.post(REQUESTS, request_of(wanted, key, seconds))["metadata"]["name"]
    deadline = time.monotonic() + ISSUE_SECONDS
    while True:
        status = client.get(f"{REQUESTS}/{name}").get("status") or {}
        if status.get("certificate"):
            write(path, base64.b64decode(status["certificate"]), key)
            return
        if (refusal := refusal_of(status)) or time.monotonic() > deadline:
            who, hint = wanted.common_name, f"`kubectl describe csr {name}` shows it; `kubectl certificate approve`"
            raise LabError(f"no certificate for {who}: {refusal or 'nobody has approved it'}", hint)
        time.sleep(ASK_PAUSE_SECONDS)


def refusal_of(status: dict[str, Any]) -> str:
    """Why a request will never be issued; empty if it may."""
    refused = [entry for entry in status.get("conditions") or () if entry.get("type") in ("Denied", "Failed")]
    return f"{refused[0]['type']}: {refused[0].get('message', '')}" if refused else ""


def write(path: Path, certificate_pem: bytes, key: ec.EllipticCurvePrivateKey) -> None:
    """Put a certificate with its key in place, both at once (0600)."""
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(certificate_pem + secret)
    temporary.replace(path)


def write_provisional(path: Path, common_name: str) -> None:
    """A certificate signed by itself, for a server that must start before its real one can be asked for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    write(path, certificate.public_bytes(serialization.Encoding.PEM), key)


def renew_at(path: Path, chance: float) -> datetime.datetime:
    """When to renew: at 70 to 90 % of its life by `chance` (0..1), as upstream's kubelet; at once if it is
    provisional or unreadable."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return datetime.datetime.fromtimestamp(0, datetime.UTC)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if certificate.issuer == certificate.subject:
        return begin
    return begin + (end - begin) * (0.7 + 0.2 * chance)


def chances(count: int) -> Sequence[float]:
    """Random fractions, so that a hundred hosts that joined together do not renew together."""
    return [random.random() for _ in range(count)]  # noqa: S311 - jitter
