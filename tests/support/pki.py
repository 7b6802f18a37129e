"""Certificates for tests: one CA a directory, servers with serverAuth only, clients with clientAuth only."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from machinery.component.tls import TlsFiles


class Pki:
    """A CA in a directory, and what it signs."""

    def __init__(self, directory: Path, name: str = "cutaway-test-ca") -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(self._name, self._key.public_key(), timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = builder.add_extension(usage, critical=True)
        self.ca_file = directory / "ca.crt"
        self.ca_file.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, life: timedelta) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        end = now + life
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, end) - timedelta(hours=1))
            .not_valid_after(end)
        )

    def client(self, name: str, *groups: str, file: str = "", life: timedelta = timedelta(hours=1)) -> TlsFiles:
        """A clientAuth certificate: CN is the user, each O a group."""
        return self._issue(file or name.replace(":", "-"), name, groups, ExtendedKeyUsageOID.CLIENT_AUTH, (), life)

    def server(self, name: str, *hosts: str, file: str = "", life: timedelta = timedelta(hours=1)) -> TlsFiles:
        """A serverAuth certificate for localhost, 127.0.0.1 and the hosts given."""
        names = ("localhost", "127.0.0.1", *hosts)
        return self._issue(file or name, name, (), ExtendedKeyUsageOID.SERVER_AUTH, names, life)

    def _issue(
        self,
        file: str,
        name: str,
        groups: tuple[str, ...],
        usage: x509.ObjectIdentifier,
        hosts: tuple[str, ...],
        life: timedelta,
    ) -> TlsFiles:
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key.public_key(), life)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(h) for h in hosts]), critical=False
            )
        cert_file, key_file = self.directory / f"{file}.crt", self.directory / f"{file}.key"
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        cert_file.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return TlsFiles(ca_file=str(self.ca_file), cert_file=str(cert_file), key_file=str(key_file))


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
