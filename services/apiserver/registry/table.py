"""Which strategy each built-in kind has: the place where a new special kind is named."""

from __future__ import annotations

from services.apiserver.registry import builtin
from services.apiserver.registry.admission_configuration import PolicyStrategy, WebhookConfigurationStrategy
from services.apiserver.registry.allocation import ServiceRange
from services.apiserver.registry.cluster import (
    ConditionalStrategy,
    CreateOnUpdateStrategy,
    LeaseStrategy,
    NodeStrategy,
    ReturningStrategy,
    SigningRequestStrategy,
    VolumeStrategy,
)
from services.apiserver.registry.conversions import AutoscalerConversion, EventConversion
from services.apiserver.registry.custom_definitions import DefinitionStrategy
from services.apiserver.registry.devices import SliceStrategy, TaintRuleStrategy
from services.apiserver.registry.namespaces import NamespaceStrategy
from services.apiserver.registry.pods import PodStrategy
from services.apiserver.registry.resource import Conversion, Registry, Resource
from services.apiserver.registry.schemas import BuiltinSchema
from services.apiserver.registry.services import ServiceStrategy
from services.apiserver.registry.strategy import Strategy
from services.apiserver.registry.workloads import JobStrategy, ReplicationControllerStrategy

_STRATEGIES: dict[str, type[Strategy]] = {
    "pods": PodStrategy,
    "namespaces": NamespaceStrategy,
    "nodes": NodeStrategy,
    "persistentvolumes": VolumeStrategy,
    "persistentvolumeclaims": VolumeStrategy,
    "jobs.batch": JobStrategy,
    "replicationcontrollers": ReplicationControllerStrategy,
    "certificatesigningrequests.certificates.k8s.io": SigningRequestStrategy,
    "leases.coordination.k8s.io": LeaseStrategy,
    "endpoints": CreateOnUpdateStrategy,
    "events": CreateOnUpdateStrategy,
    "limitranges": CreateOnUpdateStrategy,
    "podtemplates": CreateOnUpdateStrategy,
    "roles.rbac.authorization.k8s.io": CreateOnUpdateStrategy,
    "clusterroles.rbac.authorization.k8s.io": CreateOnUpdateStrategy,
    "rolebindings.rbac.authorization.k8s.io": CreateOnUpdateStrategy,
    "clusterrolebindings.rbac.authorization.k8s.io": CreateOnUpdateStrategy,
    "serviceaccounts": ReturningStrategy,
    "resourcequotas": ReturningStrategy,
    "poddisruptionbudgets.policy": ConditionalStrategy,
    "customresourcedefinitions.apiextensions.k8s.io": DefinitionStrategy,
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": WebhookConfigurationStrategy,
    "validatingwebhookconfigurations.admissionregistration.k8s.io": WebhookConfigurationStrategy,
    "validatingadmissionpolicies.admissionregistration.k8s.io": PolicyStrategy,
    "volumeattachments.storage.k8s.io": ConditionalStrategy,
    "csidrivers.storage.k8s.io": ConditionalStrategy,
    "csinodes.storage.k8s.io": ConditionalStrategy,
    "runtimeclasses.node.k8s.io": ConditionalStrategy,
    "devicetaintrules.resource.k8s.io": TaintRuleStrategy,
    "resourceslices.resource.k8s.io": SliceStrategy,
    "flowschemas.flowcontrol.apiserver.k8s.io": ConditionalStrategy,
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": ConditionalStrategy,
}

_COUNT_GENERATIONS = frozenset(
    (
        "daemonsets.apps", "deployments.apps", "replicasets.apps", "statefulsets.apps", "cronjobs.batch",
        "podtemplates",
        "ingresses.networking.k8s.io", "ingressclasses.networking.k8s.io", "networkpolicies.networking.k8s.io",
        "poddisruptionbudgets.policy", "endpointslices.discovery.k8s.io", "priorityclasses.scheduling.k8s.io",
        "customresourcedefinitions.apiextensions.k8s.io",
        "mutatingwebhookconfigurations.admissionregistration.k8s.io",
        "validatingwebhookconfigurations.admissionregistration.k8s.io",
        "validatingadmissionpolicies.admissionregistration.k8s.io",
        "validatingadmissionpolicybindings.admissionregistration.k8s.io",
        "mutatingadmissionpolicies.admissionregistration.k8s.io",
        "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
        "flowschemas.flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
        "deviceclasses.resource.k8s.io",
    )
)  # fmt: skip

_CONVERSIONS: dict[str, Conversion] = {
    "events.k8s.io/v1": EventConversion(),
    "autoscaling/v1": AutoscalerConversion(),
}


def build_registry(services: ServiceRange) -> Registry:
    """The table of everything built in. `services` hands out addresses and node ports."""
    rows = list(builtin.rows())
    for row in rows:
        row.strategy = _strategy(row, services)
        row.schema = BuiltinSchema(row.kind, row.storage_kind)
        if row.kind != row.storage_kind:
            row.conversion = _CONVERSIONS[row.kind.api_version]
    return Registry(rows)


def _strategy(row: Resource, services: ServiceRange) -> Strategy:
    has_status = "status" in row.subresources
    if row.storage == "services":
        return ServiceStrategy(services, has_status=has_status)
    cls = _STRATEGIES.get(row.storage, Strategy)
    return cls(has_status=has_status, generation=True if row.storage in _COUNT_GENERATIONS else None)
