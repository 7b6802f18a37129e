"""Which plugins there are, in upstream's recommended order."""

from __future__ import annotations

from services.apiserver.admission.chain import Chain
from services.apiserver.admission.namespace_lifecycle import NamespaceLifecycle
from services.apiserver.admission.pod_defaults import (
    DefaultIngressClass,
    DefaultStorageClass,
    DefaultTolerationSeconds,
    StorageObjectInUse,
    TaintNodes,
)
from services.apiserver.admission.priority import Priority
from services.apiserver.admission.rbac_escalation import RbacEscalation
from services.apiserver.admission.service_account import ServiceAccount
from services.apiserver.auth.rbac import Authorizer
from services.apiserver.lookup import Lookup


def build_chain(authorizer: Authorizer, lookup: Lookup) -> Chain:
    """The admission chain of this apiserver."""
    return Chain(
        [
            NamespaceLifecycle(),
            ServiceAccount(),
            TaintNodes(),
            Priority(),
            DefaultTolerationSeconds(),
            StorageObjectInUse(),
            DefaultStorageClass(),
            DefaultIngressClass(),
            RbacEscalation(authorizer),
        ]
    )
