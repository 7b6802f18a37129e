"""Approves kubelets' own requests, signs what is approved, forgets what is old.

Three controllers on one kind, as upstream.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from machinery.api import kinds
from services.controller_manager.actions import Plan
from services.controller_manager.controllers.csr import plan as planner
from services.controller_manager.controllers.csr.request import Refused, read
from services.controller_manager.reconciler import OfKind
from services.controller_manager.views.cluster import CertificateSigningRequest
from services.controller_manager.views.pod import Node


class _OfRequests(OfKind):
    kind = kinds.CERTIFICATE_SIGNING_REQUEST

    def watch(self) -> None:
        """Requests."""
        self.on_own(self.kind)

    def _get(self, key: str) -> CertificateSigningRequest | None:
        request: CertificateSigningRequest | None = self.lister(self.kind).by_key(key)
        return request


class CsrApprover(_OfRequests):
    """csrapproving"""

    name = "csrapproving"

    def watch(self) -> None:
        """Requests; nodes are read."""
        super().watch()
        self.informers.of(kinds.NODE)

    async def reconcile(self, key: str) -> Plan | None:
        """Approve what the requester has the right to, by the authorizer's word."""
        request = self._get(key)
        if request is None:
            return None
        now = self.env.now()
        needed = planner.permission(request)
        if needed is not None:
            subresource, message = needed
            if await self._allowed(request, subresource):
                return Plan(planner.approve(request, message, now))
            return None
        node = self._node(request)
        if node is not None and planner.serves_itself(request, node.status.addresses):
            text = "Auto approving kubelet serving certificate for the node's own addresses."
            return Plan(planner.approve(request, text, now))
        return None

    def _node(self, request: CertificateSigningRequest) -> Node | None:
        try:
            name = planner.node_of(read(request))
        except Refused:
            return None
        node: Node | None = self.lister(kinds.NODE).by_key(name)
        return node

    async def _allowed(self, request: CertificateSigningRequest, subresource: str) -> bool:
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": request.spec.username,
                "groups": list(request.spec.groups),
                "resourceAttributes": {
                    "group": "certificates.k8s.io",
                    "resource": "certificatesigningrequests",
                    "verb": "create",
                    "subresource": subresource,
                    "version": "*",
                },
            },
        }
        answer = await self.env.client.create(kinds.SUBJECT_ACCESS_REVIEW, review)
        return bool(answer.status and answer.status.allowed)


class CsrSigner(_OfRequests):
    """csrsigning"""

    name = "csrsigning"

    def watch(self) -> None:
        """Requests. The CA is read once, when the controller starts."""
        config = self.env.config
        self.authority = planner.Authority(
            Path(config.signing_ca_file).read_bytes(),
            Path(config.signing_key_file).read_bytes(),
            timedelta(hours=config.signing_hours),
        )
        super().watch()

    async def reconcile(self, key: str) -> Plan | None:
        """See `plan.sign`."""
        request = self._get(key)
        return Plan(planner.sign(request, self.authority, self.env.now())) if request is not None else None


class CsrCleaner(_OfRequests):
    """csrcleaner"""

    name = "csrcleaner"
    workers = 1

    async def reconcile(self, key: str) -> Plan | None:
        """See `plan.clean`."""
        request = self._get(key)
        return planner.clean(request, self.env.now()) if request is not None else None
