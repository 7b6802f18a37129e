"""What a CertificateSigningRequest asks for, and whether its signer may give that."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

from services.controller_manager.views.cluster import CertificateSigningRequest
from services.controller_manager.views.meta import condition

CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
LEGACY = "kubernetes.io/legacy-unknown"

_NODE_PREFIX = "system:node:"
_NODES_GROUP = "system:nodes"
_MASTERS_GROUP = "system:masters"
_BASE_USAGES = frozenset(("digital signature", "key encipherment"))


class Refused(Exception):
    """The request is not what its signer signs. The message says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The content of a request."""

    csr: x509.CertificateSigningRequest
    common_name: str
    organizations: tuple[str, ...]
    dns_names: tuple[str, ...]
    ip_addresses: tuple[str, ...]
    other_names: bool


def read(obj: CertificateSigningRequest) -> Asked:
    """Decode it. Raises Refused."""
    try:
        csr = x509.load_pem_x509_csr(base64.b64decode(obj.spec.request, validate=True))
    except (ValueError, binascii.Error) as err:
        raise Refused(f"unable to parse csr {obj.metadata.name!r}: {err}") from err
    if not csr.is_signature_valid:
        raise Refused(f"csr {obj.metadata.name!r} is not signed by its own key")
    names = [str(entry.value) for entry in csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = tuple(str(entry.value) for entry in csr.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
    dns: list[str] = []
    ips: list[str] = []
    other = False
    try:
        names_extension = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns = list(names_extension.get_values_for_type(x509.DNSName))
        ips = [str(ip) for ip in names_extension.get_values_for_type(x509.IPAddress)]
        other = len(dns) + len(ips) != len(list(names_extension))
    except x509.ExtensionNotFound:
        pass
    return Asked(csr, names[0] if len(names) == 1 else "", groups, tuple(dns), tuple(ips), other)


def check(obj: CertificateSigningRequest, asked: Asked) -> None:
    """Hold the request against its signer's rules. Raises Refused."""
    usages = set(obj.spec.usages)
    signer = obj.spec.signerName
    if signer == CLIENT:
        # Unlike those of kubelets, what it is for is enough here.
        _check_usages(usages | {"digital signature"}, {"client auth"})
        if _MASTERS_GROUP in asked.organizations:
            raise Refused(f"no certificate is signed for group {_MASTERS_GROUP}")
    elif signer == KUBELET_CLIENT:
        _check_usages(usages, {"client auth"})
        _check_node(asked)
        if asked.dns_names or asked.ip_addresses or asked.other_names:
            raise Refused("subject alternative names are not allowed")
    elif signer == KUBELET_SERVING:
        _check_usages(usages, {"server auth"})
        _check_node(asked)
        if not asked.dns_names and not asked.ip_addresses:
            raise Refused("at least one of dnsNames or ipAddresses must be set")
        if asked.other_names:
            raise Refused("only DNS and IP subject alternative names are allowed")


def _check_usages(usages: set[str], purpose: set[str]) -> None:
    if not purpose <= usages or "digital signature" not in usages or usages - purpose - _BASE_USAGES:
        allowed = ", ".join(sorted(purpose | _BASE_USAGES))
        raise Refused(f"usages did not match: {sorted(usages)}; allowed are {allowed}")


def _check_node(asked: Asked) -> None:
    if asked.organizations != (_NODES_GROUP,):
        raise Refused(f"subject organization is not {_NODES_GROUP}")
    if not asked.common_name.startswith(_NODE_PREFIX) or asked.common_name == _NODE_PREFIX:
        raise Refused(f"subject common name does not begin with {_NODE_PREFIX}")


def is_own(obj: CertificateSigningRequest, asked: Asked) -> bool:
    """Whether a node asks for itself."""
    return obj.spec.username == asked.common_name and _NODES_GROUP in obj.spec.groups


def state(obj: CertificateSigningRequest) -> str:
    """Approved, Denied, Failed, Issued or Pending."""
    if obj.status.certificate:
        return "Issued"
    for kind in ("Denied", "Failed", "Approved"):
        entry = condition(obj.status.conditions, kind)
        if entry is not None and entry.status == "True":
            return kind
    return "Pending"
