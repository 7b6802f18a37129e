"""What a kubelet can be told. Defaults are upstream's where upstream has one."""

from __future__ import annotations

from typing import Annotated

import msgspec

from machinery.component.config import ComponentConfig

Doc = msgspec.Meta


class KubeletConfig(ComponentConfig):
    """The kubelet's configuration file and flags."""

    name: str = "kubelet"
    node_name: Annotated[str, Doc(description="Name of the Node object; empty: this host's name")] = ""
    node_ip: Annotated[str, Doc(description="The node's address; empty: found by the default route")] = ""
    runtime_endpoint: Annotated[str, Doc(description="CRI socket")] = "unix:///run/containerd/containerd.sock"
    root_dir: Annotated[str, Doc(description="Where pods' volumes live")] = "/var/lib/kubelet"
    pod_logs_dir: Annotated[str, Doc(description="Where containers' logs live; empty: root_dir/logs")] = ""
    system_logs_dir: Annotated[str, Doc(description="Logs of the node's own services, served under /logs/")] = (
        "/var/log"
    )
    manifests_dir: Annotated[str, Doc(description="Manifests of static pods; empty: none")] = ""
    cluster_dns: Annotated[list[str], Doc(description="Name servers of pods")] = []
    cluster_domain: Annotated[str, Doc(description="DNS domain of the cluster")] = "cluster.local"
    resolv_conf: Annotated[str, Doc(description="The node's resolver configuration")] = "/etc/resolv.conf"
    cgroup_driver: Annotated[str, Doc(description="cgroupfs or systemd")] = "cgroupfs"
    cgroup_root: Annotated[str, Doc(description="The cgroup below which pods' cgroups are made")] = "/"
    max_pods: Annotated[int, Doc(description="How many pods may run here", ge=1)] = 110
    pod_pids_limit: Annotated[int, Doc(description="How many processes a pod may have; -1: any number")] = -1
    user_ids_first: Annotated[
        int,
        Doc(
            description="The first id for users of pods with hostUsers: false, 65536 a pod; /etc/subuid's range of "
            "the user kubelet comes before it",
            ge=65536,
        ),
    ] = 65536
    register_node: Annotated[bool, Doc(description="Create the Node object")] = True
    node_labels: Annotated[dict[str, str], Doc(description="Labels of the Node when it is registered")] = {}
    node_taints: Annotated[list[str], Doc(description="Taints when registered: key=value:Effect")] = []
    provider_id: Annotated[str, Doc(description="spec.providerID of the Node")] = ""
    capacity: Annotated[dict[str, str], Doc(description="Capacity instead of what is measured, by resource")] = {}
    system_reserved: Annotated[dict[str, str], Doc(description="Kept from pods for the system, by resource")] = {}
    eviction_hard: Annotated[dict[str, str], Doc(description="Signals and thresholds below which pods are evicted")] = (
        msgspec.field(
            default_factory=lambda: {
                "memory.available": "100Mi",
                "nodefs.available": "10%",
                "nodefs.inodesFree": "5%",
                "imagefs.available": "15%",
                "imagefs.inodesFree": "5%",
                "pid.available": "5%",
            }
        )
    )
    image_gc_high_percent: Annotated[int, Doc(description="Disk use at which unused images are removed")] = 85
    image_gc_low_percent: Annotated[int, Doc(description="Disk use down to which they are removed")] = 80
    container_log_max_size: Annotated[str, Doc(description="Size at which a log is rotated")] = "10Mi"
    container_log_max_files: Annotated[int, Doc(description="How many files a container's log has", ge=2)] = 5
    lease_seconds: Annotated[int, Doc(description="Duration of the node's lease; renewed at a quarter")] = 40
    status_seconds: Annotated[float, Doc(description="How often the node's status is looked at")] = 10.0
    status_report_seconds: Annotated[float, Doc(description="How often it is sent though nothing changed")] = 300.0
    endpoint_drain_seconds: Annotated[
        float,
        Doc(
            description="Containers of a pod that was Ready get their SIGTERM this long after its deletion began, "
            "inside its grace period, so that Services have stopped sending to it; 0: at once as upstream",
            ge=0,
        ),
    ] = 0.4
    shutdown_grace_seconds: Annotated[
        int, Doc(description="How long a shutdown of the node waits for its pods to end; 0: it does not", ge=0)
    ] = 0
    shutdown_grace_critical_seconds: Annotated[
        int, Doc(description="How much of it is kept for critical pods, which end last", ge=0)
    ] = 0
    shutdown_grace_by_priority: Annotated[
        dict[int, int], Doc(description="Seconds by least pod priority, in place of the two above")
    ] = {}
    image_credential_provider_config: Annotated[
        str, Doc(description="A CredentialProviderConfig: programs that know registries' passwords; empty: none")
    ] = ""
    image_credential_provider_bin_dir: Annotated[str, Doc(description="Where those programs are")] = ""
    allowed_unsafe_sysctls: Annotated[
        list[str], Doc(description="Sysctls, or prefixes with *, that pods may set besides the safe ones")
    ] = []
    seccomp_default: Annotated[bool, Doc(description="Containers without a seccomp profile get the runtime's")] = False
    advertise_grpc: Annotated[str, Doc(description="host:port told to the apiserver; empty: node_ip and the port")] = ""
