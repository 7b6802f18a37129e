"""Which plugins there are, in upstream's recommended order."""

from __future__ import annotations

from services.apiserver.admission.certificates import Certificates
from services.apiserver.admission.chain import Chain
from services.apiserver.admission.limit_ranger import LimitRanger
from services.apiserver.admission.mutations import MutatingPolicies
from services.apiserver.admission.namespace_lifecycle import NamespaceLifecycle
from services.apiserver.admission.node_restriction import NodeRestriction
from services.apiserver.admission.not_enforced import NotEnforced
from services.apiserver.admission.owner_references import OwnerReferences
from services.apiserver.admission.pod_defaults import (
    DefaultIngressClass,
    DefaultStorageClass,
    DefaultTolerationSeconds,
    StorageObjectInUse,
    TaintNodes,
)
from services.apiserver.admission.pod_security import PodSecurity
from services.apiserver.admission.policies import ValidatingPolicies
from services.apiserver.admission.priority import Priority
from services.apiserver.admission.rbac_escalation import RbacEscalation
from services.apiserver.admission.resource_quota import ResourceQuota
from services.apiserver.admission.runtime_class import RuntimeClass
from services.apiserver.admission.service_account import ServiceAccount
from services.apiserver.admission.webhook_client import WebhookClient
from services.apiserver.admission.webhooks import MutatingWebhooks, ValidatingWebhooks
from services.apiserver.auth.rbac import Authorizer
from services.apiserver.registry.resource import Registry
from services.apiserver.watch_cache import WatchCache


def build_chain(authorizer: Authorizer, registry: Registry, cache: WatchCache, webhooks: WebhookClient) -> Chain:
    """The admission chain of this apiserver. ResourceQuota is last: what it charges must not be refused afterwards."""
    return Chain(
        [
            NamespaceLifecycle(),
            LimitRanger(),
            ServiceAccount(cache),
            NodeRestriction(authorizer),
            TaintNodes(),
            PodSecurity(),
            Priority(),
            DefaultTolerationSeconds(),
            RuntimeClass(),
            Certificates(authorizer),
            StorageObjectInUse(),
            DefaultStorageClass(),
            DefaultIngressClass(),
            OwnerReferences(authorizer, registry),
            RbacEscalation(authorizer),
            MutatingPolicies(registry, cache, authorizer),
            MutatingWebhooks(registry, cache, webhooks, authorizer),
            ValidatingPolicies(registry, cache, authorizer),
            ValidatingWebhooks(registry, cache, webhooks, authorizer),
            NotEnforced(),
            ResourceQuota(registry),
        ]
    )
