"""Which tokens and certificates a kubelet may ask for: those of pods on its node, and its own name's."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from services.apiserver.auth.attributes import Attributes
from services.apiserver.auth.rbac import Authorizer
from services.apiserver.lookup import Lookup
from services.apiserver.write_context import WriteContext

AUDIENCE_VERB = "request-serviceaccounts-token-audience"
"""By which RBAC lets nodes ask for tokens that no volume of the pod names (a registry's credential provider)."""
NODE_SIGNERS = frozenset(("kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"))


def token_refusal(authorizer: Authorizer, ctx: WriteContext, node: str) -> str:
    """Why a node may not have the token that a TokenRequest asks for; empty if it may."""
    spec = ctx.spec()
    ref = spec.get("boundObjectRef") or {}
    if ref.get("kind") != "Pod" or ref.get("apiVersion") != "v1" or not ref.get("name"):
        return "node requested token not bound to a pod"
    if not ref.get("uid"):
        return "node requested token with a pod binding without a uid"
    pod = ctx.lookup.get("pods", ctx.namespace, ref["name"])
    if pod is None or pod["metadata"]["uid"] != ref["uid"]:
        return f"the UID in the bound object reference ({ref['uid']}) does not match the UID in record"
    if pod["spec"].get("nodeName") != node:
        return "node requested token bound to a pod scheduled on a different node"
    audiences = spec.get("audiences") or [""]
    if len(audiences) > 1:
        return "node may only request 0 or 1 audiences"
    if audiences[0] in _audiences(ctx.lookup, pod):
        return ""
    ask = Attributes(ctx.user, AUDIENCE_VERB, "", "v1", audiences[0], "", ctx.namespace, ctx.name)
    if audiences[0] and authorizer.authorize(ask).allowed:
        return ""
    return (
        f'audience "{audiences[0]}" not found in pod spec volume, {ctx.user.name} is not authorized to request '
        "tokens for this audience"
    )


def _audiences(lookup: Lookup, pod: dict[str, Any]) -> Iterator[str]:
    """The audiences that a pod's volumes name: projected tokens, and what its CSI drivers want."""
    namespace = pod["metadata"]["namespace"]
    for volume in pod["spec"].get("volumes") or ():
        for source in (volume.get("projected") or {}).get("sources") or ():
            if source.get("serviceAccountToken"):
                yield source["serviceAccountToken"].get("audience") or ""
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName", "")
        if volume.get("ephemeral"):
            claim = f"{pod['metadata']['name']}-{volume['name']}"
        driver = (volume.get("csi") or {}).get("driver") or (_claim_driver(lookup, namespace, claim) if claim else "")
        found = lookup.get("csidrivers.storage.k8s.io", "", driver) if driver else None
        for request in ((found or {}).get("spec") or {}).get("tokenRequests") or ():
            yield request.get("audience") or ""


def _claim_driver(lookup: Lookup, namespace: str, name: str) -> str:
    claim = lookup.get("persistentvolumeclaims", namespace, name) or {}
    volume = lookup.get("persistentvolumes", "", (claim.get("spec") or {}).get("volumeName") or "") or {}
    return str(((volume.get("spec") or {}).get("csi") or {}).get("driver") or "")


def signing_refusal(spec: dict[str, Any], node: str) -> str:
    """Why a node may not ask for the certificate of a CertificateSigningRequest's spec; empty if it may."""
    if spec.get("signerName") not in NODE_SIGNERS:
        return ""
    try:
        names, _ = subject(spec)
    except ValueError as error:
        return f"unable to parse csr: {error}"
    return "" if names == [f"system:node:{node}"] else f"can only create a node CSR with CN=system:node:{node}"


def subject(spec: dict[str, Any]) -> tuple[list[str], list[str]]:
    """(common names, organizations) that a CertificateSigningRequest's spec asks for. Raises ValueError."""
    try:
        asked = x509.load_pem_x509_csr(base64.b64decode(spec.get("request") or "", validate=True)).subject
    except binascii.Error as error:
        raise ValueError(str(error)) from error
    return (
        [str(name.value) for name in asked.get_attributes_for_oid(NameOID.COMMON_NAME)],
        [str(name.value) for name in asked.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)],
    )
