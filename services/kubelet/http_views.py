"""What the kubelet tells of itself and of its pods over HTTPS, in upstream's words. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from services.kubelet.back_off import duration_text
from services.kubelet.config import KubeletConfig
from services.kubelet.pod_worker import PodWorker

Json = dict[str, Any]


def configz(config: KubeletConfig) -> Json:
    """The configuration as a KubeletConfiguration (kubelet.config.k8s.io/v1beta1); no paths of keys are in it."""
    address, _, port = config.http_address.rpartition(":")
    found = {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "address": address,
        "port": int(port) if port.isdigit() else 10250,
        "staticPodPath": config.manifests_dir,
        "containerRuntimeEndpoint": config.runtime_endpoint,
        "podLogsDir": config.pod_logs_dir,
        "clusterDomain": config.cluster_domain,
        "clusterDNS": config.cluster_dns,
        "resolvConf": config.resolv_conf,
        "cgroupDriver": config.cgroup_driver,
        "cgroupRoot": config.cgroup_root,
        "cgroupsPerQOS": True,
        "maxPods": config.max_pods,
        "podPidsLimit": config.pod_pids_limit,
        "registerNode": config.register_node,
        "registerWithTaints": config.node_taints,
        "providerID": config.provider_id,
        "systemReserved": config.system_reserved,
        "evictionHard": config.eviction_hard,
        "imageGCHighThresholdPercent": config.image_gc_high_percent,
        "imageGCLowThresholdPercent": config.image_gc_low_percent,
        "containerLogMaxSize": config.container_log_max_size,
        "containerLogMaxFiles": config.container_log_max_files,
        "nodeLeaseDurationSeconds": config.lease_seconds,
        "nodeStatusUpdateFrequency": duration_text(config.status_seconds),
        "nodeStatusReportFrequency": duration_text(config.status_report_seconds),
        "shutdownGracePeriod": duration_text(config.shutdown_grace_seconds),
        "shutdownGracePeriodCriticalPods": duration_text(config.shutdown_grace_critical_seconds),
        "shutdownGracePeriodByPodPriority": [
            {"priority": priority, "shutdownGracePeriodSeconds": seconds}
            for priority, seconds in sorted(config.shutdown_grace_by_priority.items())
        ],
        "allowedUnsafeSysctls": config.allowed_unsafe_sysctls,
        "seccompDefault": config.seccomp_default,
        "userNamespaces": {"idsPerPod": 65536},
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}},
        "authorization": {"mode": "Webhook"},
        "enableServer": True,
        "enableSystemLogHandler": True,
        "enableSystemLogQuery": True,
    }
    return {"kubeletconfig": {name: value for name, value in found.items() if value not in ("", [], {})}}


def running_pods(workers: Iterable[PodWorker]) -> Json:
    """The pods that the runtime runs, with what it alone knows of them."""
    items = []
    for worker in workers:
        running = worker.runtime.running
        if not running:
            continue
        meta = worker.pod.metadata
        items.append(
            {
                "metadata": {"name": meta.name, "namespace": meta.namespace, "uid": worker.uid},
                "spec": {
                    "containers": [{"name": c.name, "image": c.image, "resources": {}} for c in running],
                },
                "status": {},
            }
        )
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}
