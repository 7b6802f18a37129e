"""Certificates from Secrets: parsed whole and written anew, so that nothing but certificates and a key reaches the
proxy."""

from __future__ import annotations

import base64
import binascii
import datetime
from collections.abc import Mapping

from services.ingress.table import Certificate

TLS_TYPE = "kubernetes.io/tls"
DEFAULT_DAYS = 365
DEFAULT_NAME = "ingress.local"
PEM_BYTES_MAX = 256 * 1024


class BadCertificate(Exception):
    """Why the Secret can't be used: one sentence."""


def from_secret(kind: str, data: Mapping[str, str] | None) -> Certificate:
    """The certificate in a Secret's `type` and `data` (base64). Raises BadCertificate."""
    if kind != TLS_TYPE:
        raise BadCertificate(f"type: {kind!r} is not {TLS_TYPE}")
    return from_pem(_part(data, "tls.crt"), _part(data, "tls.key"))


def _part(data: Mapping[str, str] | None, key: str) -> bytes:
    text = (data or {}).get(key)
    if not text:
        raise BadCertificate(f"data[{key}]: is missing")
    try:
        found = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise BadCertificate(f"data[{key}]: is not base64") from error
    if len(found) > PEM_BYTES_MAX:
        raise BadCertificate(f"data[{key}]: has {len(found)} bytes; at most {PEM_BYTES_MAX} are taken")
    return found


def from_pem(chain_pem: bytes, key_pem: bytes) -> Certificate:
    """A chain, leaf first, and its key. Raises BadCertificate."""
    # Loaded when there is a certificate to look at: it is a third of this process' memory.
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    try:
        chain = x509.load_pem_x509_certificates(chain_pem)
    except ValueError as error:
        raise BadCertificate(f"data[tls.crt]: is not a PEM certificate ({_short(error)})") from error
    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadCertificate(f"data[tls.key]: is not an unencrypted PEM private key ({_short(error)})") from error
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise BadCertificate("data[tls.key]: is neither an RSA nor an elliptic curve key")
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < 2048:
        raise BadCertificate(f"data[tls.key]: has {key.key_size} bits; RSA needs 2048 or more")
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    try:
        fits = chain[0].public_key().public_bytes(*form) == key.public_key().public_bytes(*form)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadCertificate(f"data[tls.crt]: has a key that can't be read ({_short(error)})") from error
    if not fits:
        raise BadCertificate("data[tls.key]: does not belong to the first certificate of data[tls.crt]")
    parts = [certificate.public_bytes(serialization.Encoding.PEM) for certificate in chain]
    parts.append(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return Certificate(b"".join(parts).decode(), _names(chain[0]), chain[0].not_valid_after_utc.timestamp())


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__


def _names(certificate: object) -> tuple[str, ...]:
    from cryptography import x509

    assert isinstance(certificate, x509.Certificate)
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return tuple(name.lower() for name in found.value.get_values_for_type(x509.DNSName))
    except (x509.ExtensionNotFound, ValueError):
        return ()


def covers(certificate: Certificate, host: str) -> bool:
    """Whether a client that asks for this host accepts the certificate (RFC 6125: a wildcard is one whole label)."""
    wild = f"*.{host.partition('.')[2]}"
    return host in certificate.names or (not host.startswith("*.") and wild in certificate.names)


def self_signed(now: datetime.datetime) -> Certificate:
    """What is shown to clients that ask for a host without a certificate: nobody trusts it, but TLS works."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Cutaway ingress default certificate")])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=DEFAULT_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(DEFAULT_NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return from_pem(
        built.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
