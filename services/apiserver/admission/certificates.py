"""CertificateApproval, CertificateSigning, CertificateSubjectRestriction: who may approve and sign for which signer,
and what no signer of this cluster ever signs.

Upstream: plugin/pkg/admission/certificates. The rights are the verbs `approve` and `sign` on `signers`, by the signer's
name or `domain/*`.
"""

from __future__ import annotations

from machinery.api import errors
from services.apiserver.admission.chain import Plugin
from services.apiserver.admission.node_credentials import subject
from services.apiserver.auth.attributes import Attributes
from services.apiserver.auth.rbac import MASTERS_GROUP, Authorizer
from services.apiserver.write_context import WriteContext

GROUP = "certificates.k8s.io"
CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"
_VERBS = {"approval": "approve", "status": "sign"}


class Certificates(Plugin):
    """Judges CertificateSigningRequests and what is done to them."""

    resources = frozenset((f"certificatesigningrequests.{GROUP}",))
    subresources = frozenset(("", "approval", "status"))

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    def validate(self, ctx: WriteContext) -> None:
        if not ctx.subresource:
            _refuse_masters(ctx)
            return
        assert ctx.old is not None
        old, new = ctx.old.get("status") or {}, ctx.obj.get("status") or {}
        if ctx.subresource == "status" and all(old.get(key) == new.get(key) for key in ("certificate", "conditions")):
            return
        # The signer that stands in the stored object: what the write says it is does not count.
        signer = (ctx.old.get("spec") or {}).get("signerName") or ""
        verb = _VERBS[ctx.subresource]
        domain = signer.partition("/")[0]
        for name in (signer, f"{domain}/*"):
            if self._authorizer.authorize(Attributes(ctx.user, verb, GROUP, "*", "signers", "", "", name)).allowed:
                return
        raise _refused(ctx, f'user not permitted to {verb} requests with signerName "{signer}"')


def _refuse_masters(ctx: WriteContext) -> None:
    if ctx.spec().get("signerName") != CLIENT_SIGNER:
        return
    try:
        _, groups = subject(ctx.spec())
    except ValueError as error:
        raise _refused(ctx, f"failed to parse CSR: {error}") from error
    if MASTERS_GROUP in groups:
        raise _refused(ctx, f"use of {CLIENT_SIGNER} signer with {MASTERS_GROUP} group is not allowed")


def _refused(ctx: WriteContext, why: str) -> errors.Forbidden:
    return errors.forbidden(GROUP, ctx.resource.plural, ctx.name, why)
