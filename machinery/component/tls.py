"""Mutual TLS: who we are, whom we trust, and who a peer's certificate says it is.

Every server requires a client certificate by the cluster's own CA, and TLS libraries check the extended key usage: a
client's certificate can't serve and a server's can't call. Servers read their certificate again when its file
changes, so a renewal needs no restart.
"""

from __future__ import annotations

import datetime
import logging
import os
import ssl
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from machinery.component import certificate_subject

if TYPE_CHECKING:
    import grpc

SYSTEM_MASTERS = "system:masters"
"""The group whose members may do everything: what upstream calls it, and what the cluster's administrator is in."""


class TlsFiles(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """PEM files: a certificate with its key, and the CA that the other side's certificate must come from."""

    ca_file: Annotated[str, msgspec.Meta(description="PEM file of the CA that the other side must be signed by")] = ""
    cert_file: Annotated[str, msgspec.Meta(description="PEM file of our certificate (and its chain)")] = ""
    key_file: Annotated[str, msgspec.Meta(description="PEM file of our certificate's private key")] = ""

    @property
    def complete(self) -> bool:
        """Whether all three files are named."""
        return bool(self.ca_file and self.cert_file and self.key_file)


class TlsError(Exception):
    """A certificate, key or CA file is absent, unreadable or does not fit the others. The message names the file."""


class Identity(msgspec.Struct, frozen=True):
    """A user as a certificate names it: CN is the user, each O a group."""

    name: str
    groups: tuple[str, ...] = ()

    @property
    def is_master(self) -> bool:
        """Whether it may do everything."""
        return SYSTEM_MASTERS in self.groups


def _read(path: str, what: str) -> bytes:
    if not path:
        raise TlsError(f"no {what} is configured")
    try:
        return Path(path).read_bytes()
    except OSError as err:
        raise TlsError(f"{what} {path}: {err.strerror}") from err


def _read_all(files: TlsFiles) -> tuple[bytes, bytes, bytes]:
    return (
        _read(files.ca_file, "CA file"),
        _read(files.cert_file, "certificate file"),
        _read(files.key_file, "key file"),
    )


def check(files: TlsFiles) -> None:
    """Raise TlsError unless the files exist, can be parsed, and the key belongs to the certificate."""
    _read_all(files)
    client_context(files)


def check_validity(files: TlsFiles, now: datetime.datetime | None = None) -> None:
    """Raise TlsError if the certificate's time has not come or is over: then no client would take it, and each would
    say so in other words than that a clock is wrong."""
    from cryptography import x509  # Large, and needed by few.

    now = now or datetime.datetime.now(datetime.UTC)
    certificate = x509.load_pem_x509_certificate(_read(files.cert_file, "certificate file"))
    starts, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    said = f"this machine's clock says {now:%Y-%m-%d %H:%M:%S} UTC"
    if now < starts:
        raise TlsError(
            f"{files.cert_file} is not valid before {starts:%Y-%m-%d %H:%M:%S} UTC, and {said}: set the clock"
        )
    if now > ends:
        raise TlsError(
            f"{files.cert_file} was valid until {ends:%Y-%m-%d %H:%M:%S} UTC, and {said}: renew it, or set the clock"
        )


# --- gRPC -------------------------------------------------------------------------------------------------------------


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Credentials of a client. Raises TlsError."""
    import grpc

    check(files)
    ca, cert, key = _read_all(files)
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials of a server that requires client certificates and follows changes of its files. Raises TlsError."""
    import grpc

    check(files)

    def configuration() -> Any:
        ca, cert, key = _read_all(files)
        return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=ca)

    seen = stamp(files)

    def fetch() -> Any:
        # gRPC asks on its own thread at every handshake; None means: as before. A renewal that is half written must
        # not end the service: the old certificate stays in use and the next handshake tries again.
        nonlocal seen
        try:
            now = stamp(files)
            if now == seen:
                return None
            check(files)
            fresh = configuration()
        except TlsError as err:
            logging.getLogger(__name__).warning("serving certificate can't be reloaded: %s", err)
            return None
        seen = now
        return fresh

    return grpc.dynamic_ssl_server_credentials(configuration(), fetch, require_client_authentication=True)


def stamp(files: TlsFiles) -> tuple[tuple[int, int], ...]:
    """Differs once any of the files was replaced. Raises TlsError."""
    out = []
    for path in (files.ca_file, files.cert_file, files.key_file):
        try:
            status = os.stat(path)
        except OSError as err:
            raise TlsError(f"{path}: {err.strerror}") from err
        out.append((status.st_mtime_ns, status.st_ino))
    return tuple(out)


# --- asyncio and HTTP -------------------------------------------------------------------------------------------------


def _load(context: ssl.SSLContext, files: TlsFiles) -> ssl.SSLContext:
    _read_all(files)
    try:
        context.load_verify_locations(cafile=files.ca_file)
    except ssl.SSLError as err:
        raise TlsError(f"CA file {files.ca_file}: not a PEM certificate ({err.reason})") from err
    try:
        context.load_cert_chain(files.cert_file, files.key_file)
    except ssl.SSLError as err:
        raise TlsError(f"certificate {files.cert_file} with key {files.key_file}: {err.reason or err}") from err
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """An ssl context for HTTPS clients. Raises TlsError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return _load(context, files)


class ServerContext:
    """An ssl context for HTTPS servers; `reload_if_changed` brings a renewed certificate into it.

    With `require_client=False` a client may come without a certificate; one that it does show must be by the CA all
    the same.
    """

    def __init__(self, files: TlsFiles, *, require_client: bool = True) -> None:
        self.files = files
        self.ssl = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        self.ssl.verify_mode = ssl.CERT_REQUIRED if require_client else ssl.CERT_OPTIONAL
        _load(self.ssl, files)
        self._seen = stamp(files)

    def reload_if_changed(self) -> bool:
        """Load the files again if they changed; new connections use them. Raises TlsError and keeps what it has."""
        now = stamp(self.files)
        if now == self._seen:
            return False
        check(self.files)
        _load(self.ssl, self.files)
        self._seen = now
        return True


def server_context(files: TlsFiles, *, require_client: bool = True) -> ssl.SSLContext:
    """The bare ssl context for servers that do not reload. Raises TlsError."""
    return ServerContext(files, require_client=require_client).ssl


# --- who is it --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def subject_of(cert: bytes) -> tuple[str, tuple[str, ...]]:
    """(user, groups) of a certificate in PEM or DER. Cached: parsing one costs some 20 µs. Raises ValueError."""
    attributes = certificate_subject.subject(cert)
    names = [text for oid, text in attributes if oid == certificate_subject.COMMON_NAME]
    groups = tuple(text for oid, text in attributes if oid == certificate_subject.ORGANIZATION_NAME)
    return names[0] if names else "", groups


def identity_of_certificate(cert: bytes) -> Identity:
    """`subject_of` as an Identity."""
    return Identity(*subject_of(cert))


def identity_of_call(context: Any) -> Identity | None:
    """Who calls, by the client certificate of a gRPC call's `ServicerContext`; None on a connection without TLS."""
    certs = context.auth_context().get("x509_pem_cert")
    return identity_of_certificate(certs[0]) if certs else None


def identity_of_connection(ssl_object: ssl.SSLObject | None) -> Identity | None:
    """Who calls, by the client certificate of an HTTPS connection; None without one."""
    cert = ssl_object.getpeercert(binary_form=True) if ssl_object else None
    return identity_of_certificate(cert) if cert else None
