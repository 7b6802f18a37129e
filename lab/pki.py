"""The cluster's own certificate authority and every certificate that it signs.

Two kinds of leaf, never mixed: `<name>.crt` proves a client (clientAuth only) and `<name>-server.crt` a server
(serverAuth only), so that a stolen client certificate can't pose as a server. Subjects are Kubernetes users: CN is the
user's name, each O a group.

Layout of the directory: `ca.crt ca.key sa.key sa.pub front-proxy-ca.crt front-proxy-ca.key <name>.crt <name>.key`; keys
are 0600.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 3650
LEAF_DAYS = 365
RENEW_SHARE = 3
"""A certificate is renewed when less than one part in so many of its life is left."""
# A clock that is a little behind must not refuse a certificate made a moment ago.
BACKDATE = datetime.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA's certificate and key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Identity:
    """Where a certificate, its key, and the CA that judges its peers lie."""

    ca_file: Path
    cert_file: Path
    key_file: Path


class Pki:
    """The CA in one directory. Every method makes what is missing and leaves what is there alone."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def ca_file(self) -> Path:
        return self.directory / "ca.crt"

    def ensure(self, cluster: str) -> None:
        """Make the authorities and the service-account key pair where they are missing."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, common_name in (
            ("ca", f"cutaway-ca-{cluster}"),
            ("front-proxy-ca", f"cutaway-front-proxy-ca-{cluster}"),
        ):
            if not (self.directory / f"{name}.crt").exists():
                _write_authority(self.directory, name, common_name)
        if not (self.directory / "sa.key").exists():
            key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            _write_private(self.directory / "sa.key", _key_pem(key))
            (self.directory / "sa.pub").write_bytes(
                key.public_key().public_bytes(
                    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
                )
            )

    def client(self, name: str, user: str, groups: Sequence[str] = (), *, authority: str = "ca") -> Identity:
        """A client certificate for `user` in `groups`."""
        return self._leaf(name, user, groups, ExtendedKeyUsageOID.CLIENT_AUTH, (), authority)

    def server(self, name: str, common_name: str, hosts: Iterable[str], groups: Sequence[str] = ()) -> Identity:
        """A server certificate valid for `hosts` (DNS names and IP addresses), renewed when a host is added."""
        wanted = set(hosts)
        path = self.directory / f"{name}-server.crt"
        if path.exists():
            present = _hosts_of(x509.load_pem_x509_certificate(path.read_bytes()))
            if not wanted <= present:
                # What it was valid for it stays valid for: others may know the server by that.
                wanted |= present
                path.unlink()
        return self._leaf(f"{name}-server", common_name, groups, ExtendedKeyUsageOID.SERVER_AUTH, sorted(wanted), "ca")

    def _leaf(
        self,
        name: str,
        common_name: str,
        groups: Sequence[str],
        usage: x509.ObjectIdentifier,
        hosts: Sequence[str],
        authority_name: str,
    ) -> Identity:
        identity = Identity(self.ca_file, self.directory / f"{name}.crt", self.directory / f"{name}.key")
        if identity.cert_file.exists() and identity.key_file.exists():
            return identity
        authority = self.authority(authority_name)
        key = ec.generate_private_key(ec.SECP256R1())
        organizations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*organizations, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = (
            _builder(subject, authority.certificate.subject, key.public_key(), LEAF_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(_authority_key_identifier(authority), critical=False)
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(h) for h in hosts]), critical=False
            )
        certificate = builder.sign(authority.key, hashes.SHA256())
        _write_private(identity.key_file, _key_pem(key))
        identity.cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return identity

    def certificates(self) -> Iterator[tuple[str, x509.Certificate]]:
        """Every certificate of the directory, by name."""
        for path in sorted(self.directory.glob("*.crt")):
            yield path.stem, x509.load_pem_x509_certificate(path.read_bytes())

    def is_due(self, certificate: x509.Certificate, now: datetime.datetime) -> bool:
        """Whether it should be renewed."""
        starts, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        return ends - now < (ends - starts) / RENEW_SHARE

    def renew_due(self, now: datetime.datetime) -> list[str]:
        """Renew whatever is due, but the authorities; what was."""
        due = [name for name, found in self.certificates() if found.issuer != found.subject and self.is_due(found, now)]
        for name in due:
            self.renew(name)
        return due

    def renew(self, name: str) -> None:
        """A new key, and a certificate that says the same as the one that there is, from now on."""
        path = self.directory / f"{name}.crt"
        old = x509.load_pem_x509_certificate(path.read_bytes())
        authority = next(
            found for found in map(self.authority, ("ca", "front-proxy-ca")) if found.certificate.subject == old.issuer
        )
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(old.subject, authority.certificate.subject, key.public_key(), LEAF_DAYS)
        for extension in old.extensions:
            if not isinstance(extension.value, x509.AuthorityKeyIdentifier):
                builder = builder.add_extension(extension.value, critical=extension.critical)
        builder = builder.add_extension(_authority_key_identifier(authority), critical=False)
        certificate = builder.sign(authority.key, hashes.SHA256())
        # Each file is whole at any time. Who reads between the two finds that they don't fit, and reads again later.
        for target, content in (
            (path.with_suffix(".key"), _key_pem(key)),
            (path, certificate.public_bytes(serialization.Encoding.PEM)),
        ):
            fresh = target.with_name(f".{target.name}.{os.getpid()}")
            _write_private(fresh, content)
            fresh.chmod(target.stat().st_mode & 0o777)
            fresh.replace(target)

    def authority(self, name: str = "ca") -> Authority:
        """The CA's certificate and key, to sign with."""
        certificate = x509.load_pem_x509_certificate((self.directory / f"{name}.crt").read_bytes())
        key = serialization.load_pem_private_key((self.directory / f"{name}.key").read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return Authority(certificate, key)


def _write_authority(directory: Path, name: str, common_name: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate = (
        _builder(subject, subject, key.public_key(), CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_private(directory / f"{name}.key", _key_pem(key))
    (directory / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=signs_certificates, crl_sign=signs_certificates, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _authority_key_identifier(authority: Authority) -> x509.AuthorityKeyIdentifier:
    identifier = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _hosts_of(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in names}


def _key_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(path: Path, content: bytes) -> None:
    # Created 0600 from the start: no moment in which another user can open it.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
