"""Which requests are approved, signed, refused and forgotten."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from machinery.api import kinds
from services.controller_manager.actions import Action, Delete, Patch, Plan, condition_json, rfc3339
from services.controller_manager.controllers.csr.request import (
    CLIENT,
    KUBELET_CLIENT,
    KUBELET_SERVING,
    LEGACY,
    Asked,
    Refused,
    check,
    is_own,
    read,
    state,
)
from services.controller_manager.views.cluster import CertificateSigningRequest
from services.controller_manager.views.pod import NodeAddress

# Who runs on every node besides the kubelet and may read what a node must know.
NODE_COMPONENTS = ("system:kube-proxy", "system:kube-dns")
SIGNED_HERE = (CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY)
_BACKDATE = timedelta(minutes=5)
# How long a request is kept once it is in a state.
_KEEP = {
    "Issued": timedelta(hours=1),
    "Approved": timedelta(hours=1),
    "Denied": timedelta(hours=1),
    "Failed": timedelta(hours=1),
    "Pending": timedelta(hours=24),
}
_USAGES = {
    "client auth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "server auth": ExtendedKeyUsageOID.SERVER_AUTH,
    "code signing": ExtendedKeyUsageOID.CODE_SIGNING,
    "email protection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "timestamping": ExtendedKeyUsageOID.TIME_STAMPING,
}


# --- approval ---------------------------------------------------------------------------------------------------------


def permission(obj: CertificateSigningRequest) -> tuple[str, str] | None:
    """(subresource, message).

    The right that the requester needs for this to be approved without a person; None if never.
    """
    if state(obj) != "Pending" or obj.spec.signerName not in (KUBELET_CLIENT, CLIENT):
        return None
    try:
        asked = read(obj)
        check(obj, asked)
    except Refused:
        return None
    if obj.spec.signerName == CLIENT:
        return _component_permission(obj, asked)
    if is_own(obj, asked):
        text = "Auto approving self kubelet client certificate after SubjectAccessReview."
        return "selfnodeclient", text
    return "nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."


def _component_permission(obj: CertificateSigningRequest, asked: Asked) -> tuple[str, str] | None:
    """For what runs on a node beside its kubelet. Upstream has no such rule: there these run as pods."""
    named_otherwise = asked.organizations or asked.dns_names or asked.ip_addresses or asked.other_names
    if asked.common_name not in NODE_COMPONENTS or named_otherwise:
        return None
    if obj.spec.username == asked.common_name:
        return "selfnodecomponentclient", "Auto approving own client certificate after SubjectAccessReview."
    return "nodecomponentclient", "Auto approving a node component's certificate after SubjectAccessReview."


def serves_itself(obj: CertificateSigningRequest, addresses: Sequence[NodeAddress]) -> bool:
    """Whether a node asks for a serving certificate, for nothing but itself.

    Its names and addresses as the API knows them.
    """
    if state(obj) != "Pending" or obj.spec.signerName != KUBELET_SERVING:
        return False
    try:
        asked = read(obj)
        check(obj, asked)
    except Refused:
        return False
    known = {entry.address for entry in addresses} | {node_of(asked)}
    return is_own(obj, asked) and set(asked.dns_names) | set(asked.ip_addresses) <= known


def node_of(asked: Asked) -> str:
    """The node's name in the subject."""
    return asked.common_name.rpartition(":")[2]


def approve(obj: CertificateSigningRequest, message: str, now: datetime) -> list[Action]:
    """Approve it."""
    return [_with_condition(obj, "approval", "Approved", "AutoApproved", message, now)]


def _with_condition(
    obj: CertificateSigningRequest, subresource: str, kind: str, reason: str, message: str, now: datetime
) -> Patch:
    moment = rfc3339(now)
    entry = {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastUpdateTime": moment,
        "lastTransitionTime": moment,
    }
    conditions = [condition_json(each) for each in obj.status.conditions if each.type != kind]
    patch = {"status": {"conditions": [*conditions, entry]}}
    meta = obj.metadata
    return Patch(
        kinds.CERTIFICATE_SIGNING_REQUEST, "", meta.name, patch, subresource, uid=meta.uid, revision=meta.revision
    )


# --- signing ----------------------------------------------------------------------------------------------------------


class Authority:
    """The CA that signs."""

    def __init__(self, certificate: bytes, key: bytes, longest: timedelta) -> None:
        self._certificate = x509.load_pem_x509_certificate(certificate)
        self._key: Any = serialization.load_pem_private_key(key, None)
        self._longest = longest

    def sign(self, obj: CertificateSigningRequest, asked: Asked, now: datetime) -> bytes:
        """A PEM certificate for exactly what the request's usages say, never for a CA."""
        life = self._longest
        if obj.spec.expirationSeconds is not None:
            life = min(life, max(timedelta(minutes=10), timedelta(seconds=obj.spec.expirationSeconds)))
        end = min(now + life, self._certificate.not_valid_after_utc)
        usages = set(obj.spec.usages)
        builder = (
            x509.CertificateBuilder()
            .subject_name(asked.csr.subject)
            .issuer_name(self._certificate.subject)
            .public_key(asked.csr.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATE)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._certificate.public_key()),  # type: ignore[arg-type]
                critical=False,
            )
        )
        if usages - set(_USAGES):
            # One that allows nothing would be taken by its word.
            builder = builder.add_extension(_key_usage(usages), critical=True)
        extended = [oid for name, oid in _USAGES.items() if name in usages]
        if extended:
            builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
        if asked.dns_names or asked.ip_addresses:
            names = asked.csr.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            builder = builder.add_extension(names.value, critical=names.critical)
        algorithm = None if type(self._key).__name__.startswith("Ed") else hashes.SHA256()
        return builder.sign(self._key, algorithm).public_bytes(serialization.Encoding.PEM)


def _key_usage(usages: set[str]) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature="digital signature" in usages,
        key_encipherment="key encipherment" in usages,
        content_commitment="content commitment" in usages,
        data_encipherment="data encipherment" in usages,
        key_agreement="key agreement" in usages,
        # Never a CA, whatever the request asks for.
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def sign(obj: CertificateSigningRequest, authority: Authority, now: datetime) -> list[Action]:
    """Sign an approved request, or say in a condition why not."""
    if state(obj) != "Approved" or obj.spec.signerName not in SIGNED_HERE:
        return []
    try:
        asked = read(obj)
        check(obj, asked)
    except Refused as err:
        return [_with_condition(obj, "status", "Failed", "SignerValidationFailure", str(err), now)]
    certificate = base64.b64encode(authority.sign(obj, asked, now)).decode()
    meta = obj.metadata
    patch = {"status": {"certificate": certificate}}
    return [
        Patch(kinds.CERTIFICATE_SIGNING_REQUEST, "", meta.name, patch, "status", uid=meta.uid, revision=meta.revision)
    ]


# --- cleaning ---------------------------------------------------------------------------------------------------------


def clean(obj: CertificateSigningRequest, now: datetime) -> Plan:
    """Delete a request that has been in its state for long enough."""
    now_in = state(obj)
    moments = [entry.lastUpdateTime or entry.lastTransitionTime for entry in obj.status.conditions]
    since = max((moment for moment in moments if moment is not None), default=obj.metadata.creationTimestamp)
    if since is None or obj.metadata.deletionTimestamp is not None:
        return Plan()
    left = (since + _KEEP[now_in] - now).total_seconds()
    if left > 0:
        return Plan(requeue_after=left)
    return Plan([Delete(kinds.CERTIFICATE_SIGNING_REQUEST, "", obj.metadata.name, uid=obj.metadata.uid)])
