"""The one table of controllers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module

from services.controller_manager.config import ControllerManagerConfig
from services.controller_manager.reconciler import Environment, Reconciler


def _always(config: ControllerManagerConfig) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Entry:
    """A controller's name, where it is (imported only if it runs), and what in the configuration it needs."""

    name: str
    module: str
    class_name: str
    wanted: Callable[[ControllerManagerConfig], bool] = _always


def _entry(
    name: str, folder: str, class_name: str, wanted: Callable[[ControllerManagerConfig], bool] = _always
) -> Entry:
    return Entry(name, f"services.controller_manager.controllers.{folder}.controller", class_name, wanted)


CONTROLLERS: tuple[Entry, ...] = (
    _entry("namespace", "namespace", "NamespaceController"),
    _entry("serviceaccount", "service_account", "ServiceAccountController"),
    _entry("root-ca-certificate-publisher", "root_ca", "RootCAController", lambda config: bool(config.root_ca_file)),
    _entry("node-ipam", "node_ipam", "NodeIpamController", lambda config: config.allocate_node_cidrs),
    _entry("node-lifecycle", "node_lifecycle", "NodeLifecycleController"),
    _entry("taint-eviction-controller", "taint_eviction", "TaintEvictionController"),
    _entry("deployment", "deployment", "DeploymentController"),
    _entry("replicaset", "replicaset", "ReplicaSetController"),
    _entry("replicationcontroller", "replicaset", "ReplicationControllerController"),
    _entry("statefulset", "stateful_set", "StatefulSetController"),
    _entry("daemonset", "daemon_set", "DaemonSetController"),
    _entry("job", "job", "JobController"),
    _entry("cronjob", "cron_job", "CronJobController"),
    _entry("ttl-after-finished-controller", "ttl_after_finished", "TtlAfterFinishedController"),
    _entry("endpointslice", "endpoint_slice", "EndpointSliceController"),
    _entry("endpoints", "endpoints", "EndpointsController"),
    _entry("endpointslice-mirroring", "endpoint_slice_mirroring", "EndpointSliceMirroringController"),
    _entry("disruption", "disruption", "DisruptionController"),
    _entry("resourcequota", "resource_quota", "ResourceQuotaController"),
    _entry("clusterrole-aggregation", "cluster_role_aggregation", "ClusterRoleAggregationController"),
    _entry(
        "service-lb-controller",
        "load_balancer",
        "LoadBalancerController",
        lambda config: bool(config.load_balancer_addresses),
    ),
    _entry("horizontal-pod-autoscaler", "horizontal_pod_autoscaler", "HorizontalPodAutoscalerController"),
    _entry("persistentvolume-binder", "persistent_volume", "PersistentVolumeBinder"),
    _entry("local-path-provisioner", "persistent_volume", "LocalPathProvisioner"),
    _entry("persistentvolume-expander", "persistent_volume", "VolumeExpander"),
    _entry("persistentvolumeclaim-protection-controller", "persistent_volume", "ClaimProtection"),
    _entry("persistentvolume-protection-controller", "persistent_volume", "VolumeProtection"),
    _entry("volumeattributesclass-protection-controller", "persistent_volume", "AttributesClassProtection"),
    _entry("ephemeral-volume-controller", "persistent_volume", "EphemeralVolumes"),
    _entry("resourceclaim-controller", "resource_claim", "ResourceClaimController"),
    _entry("device-taint-eviction-controller", "device_taint_eviction", "DeviceTaintEvictionController"),
    _entry("customresourcedefinition-cleanup", "crd_cleanup", "CrdCleanupController"),
    _entry("csrapproving", "csr", "CsrApprover"),
    _entry(
        "csrsigning",
        "csr",
        "CsrSigner",
        lambda config: bool(config.signing_ca_file and config.signing_key_file),
    ),
    _entry("csrcleaner", "csr", "CsrCleaner"),
    _entry("legacy-serviceaccount-token-cleaner-controller", "token_cleanup", "AccountTokenCleaner"),
    _entry("token-cleaner-controller", "token_cleanup", "BootstrapTokenCleaner"),
    _entry("bootstrap-signer-controller", "bootstrap_signer", "BootstrapSigner"),
    _entry("ttl-controller", "node_ttl", "NodeTtlController"),
    _entry("service-cidr-controller", "service_cidr", "ServiceCidrController"),
    _entry("garbage-collector", "garbage_collector", "GarbageCollector"),
    _entry("pod-garbage-collector", "pod_gc", "PodGarbageCollector"),
)


class UnknownController(ValueError):
    """The configuration names a controller that there is not."""


def chosen(config: ControllerManagerConfig) -> list[Entry]:
    """The controllers that the configuration asks for. Raises UnknownController."""
    names = {entry.name for entry in CONTROLLERS}
    for word in config.controllers:
        if word != "*" and word.removeprefix("-") not in names:
            raise UnknownController(f"controllers: {word!r} is not one of *, {', '.join(sorted(names))}")
    everything = "*" in config.controllers
    return [
        entry
        for entry in CONTROLLERS
        if f"-{entry.name}" not in config.controllers
        and (everything or entry.name in config.controllers)
        and entry.wanted(config)
    ]


def build(entries: Iterable[Entry], env: Environment) -> dict[str, Reconciler]:
    """Make the controllers."""
    return {entry.name: getattr(import_module(entry.module), entry.class_name)(env) for entry in entries}
