"""From a pod's spec to the CRI configuration of its sandbox and containers. Pure: what has to be fetched or made is
handed in.

Label and annotation names are upstream's, so that a kubelet of either make adopts what the other one started.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cri_api.v1 import api_pb2 as cri
from lightkube.models import core_v1

from services.kubelet import pod_spec, qos
from services.kubelet.user_ids import IDS_PER_POD

LABEL_NAME = "io.kubernetes.pod.name"
LABEL_NAMESPACE = "io.kubernetes.pod.namespace"
LABEL_UID = "io.kubernetes.pod.uid"
LABEL_CONTAINER = "io.kubernetes.container.name"
ANNOTATION_HASH = "io.kubernetes.container.hash"
ANNOTATION_RESTARTS = "io.kubernetes.container.restartCount"
ANNOTATION_MESSAGE_PATH = "io.kubernetes.container.terminationMessagePath"
ANNOTATION_MESSAGE_POLICY = "io.kubernetes.container.terminationMessagePolicy"
ANNOTATION_GRACE = "io.kubernetes.pod.terminationGracePeriod"
ANNOTATION_PRE_STOP = "io.kubernetes.container.preStopHandler"
ANNOTATION_PORTS = "io.kubernetes.container.ports"
# Ours: "init", "sidecar", "ephemeral" or "regular". A simulated runtime lets init containers end.
ANNOTATION_KIND = "cutaway.dev/container-kind"

_HOSTNAME_MAX = 63
_MASKED_PATHS = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
_READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_PROPAGATION = {
    "None": cri.PROPAGATION_PRIVATE,
    "HostToContainer": cri.PROPAGATION_HOST_TO_CONTAINER,
    "Bidirectional": cri.PROPAGATION_BIDIRECTIONAL,
}
_PROTOCOLS = {"TCP": cri.TCP, "UDP": cri.UDP, "SCTP": cri.SCTP}


class InvalidConfig(Exception):
    """The container can't be made as its spec asks; the words go into its status."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What the node contributes to every sandbox and container."""

    node_name: str
    log_root: str
    cluster_domain: str = "cluster.local"
    cluster_dns: tuple[str, ...] = ()
    host_dns: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]] = ((), (), ())
    node_memory_bytes: int = 1 << 40
    cgroup_v2: bool = False
    # Whether swap of a cgroup can be limited (v2); then containers get none, as upstream's NoSwap.
    swap_controller: bool = False
    seccomp_default: bool = False
    seccomp_root: str = "/var/lib/kubelet/seccomp"


@dataclass(frozen=True, slots=True)
class MountSpec:
    """A mount that is ready to be made: the source is resolved and exists."""

    container_path: str
    host_path: str
    read_only: bool = False
    propagation: str = "None"
    recursive_read_only: bool = False
    # An image's id instead of a path: the runtime itself mounts the image (KEP-4639).
    image: str = ""
    image_sub_path: str = ""


@dataclass(frozen=True, slots=True)
class ContainerParts:
    """What was fetched and prepared for one container."""

    image_ref: str
    env: Mapping[str, str]
    mounts: Sequence[MountSpec] = ()
    devices: Sequence[tuple[str, str, str]] = ()
    cdi_devices: Sequence[str] = ()
    extra_groups: Sequence[int] = ()
    image_uid: int | None = None
    image_user: str = ""
    target_container_id: str = ""
    # Where the ids of the pod's own users begin on this node; None: they are the node's.
    first_user_id: int | None = None
    command: Sequence[str] = field(default_factory=tuple)
    args: Sequence[str] = field(default_factory=tuple)


def hostname_of(pod: core_v1.Pod, cluster_domain: str) -> tuple[str, str]:
    """(host name, domain) of a pod. The domain is empty without a subdomain."""
    override = pod.spec.hostnameOverride
    if override:
        return override, ""
    name = pod.spec.hostname or (pod.metadata.name or "")[:_HOSTNAME_MAX].rstrip("-.")
    domain = f"{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{cluster_domain}" if pod.spec.subdomain else ""
    return name, domain


def pod_log_directory(log_root: str, pod: core_v1.Pod) -> str:
    meta = pod.metadata
    return f"{log_root}/{meta.namespace}_{meta.name}_{meta.uid}"


def dns_config(pod: core_v1.Pod, node: NodeSettings) -> cri.DNSConfig:
    """resolv.conf by the pod's dnsPolicy and dnsConfig."""
    policy = pod.spec.dnsPolicy or "ClusterFirst"
    servers, searches, options = (list(part) for part in node.host_dns)
    if policy == "ClusterFirst" and pod.spec.hostNetwork:
        policy = "Default"
    if policy == "None":
        servers, searches, options = [], [], []
    elif policy in ("ClusterFirst", "ClusterFirstWithHostNet") and node.cluster_dns:
        domain = node.cluster_domain
        own = [f"{pod.metadata.namespace}.svc.{domain}", f"svc.{domain}", domain]
        servers, searches, options = list(node.cluster_dns), [*own, *searches], ["ndots:5"]
    extra = pod.spec.dnsConfig
    if extra is not None:
        servers = list(dict.fromkeys([*servers, *(extra.nameservers or [])]))
        searches = list(dict.fromkeys([*searches, *(extra.searches or [])]))
        merged = {option.partition(":")[0]: option for option in options}
        for option in extra.options or []:
            merged[option.name or ""] = f"{option.name}:{option.value}" if option.value else option.name or ""
        options = list(merged.values())
    return cri.DNSConfig(servers=servers, searches=searches, options=options)


def namespaces(
    pod: core_v1.Pod, target_container_id: str = "", first_user_id: int | None = None
) -> cri.NamespaceOption:
    spec = pod.spec
    pid = cri.CONTAINER
    if spec.hostPID:
        pid = cri.NODE
    elif target_container_id:
        pid = cri.TARGET
    elif spec.shareProcessNamespace:
        pid = cri.POD
    return cri.NamespaceOption(
        network=cri.NODE if spec.hostNetwork else cri.POD,
        pid=pid,
        ipc=cri.NODE if spec.hostIPC else cri.POD,
        target_id=target_container_id,
        userns_options=user_namespace(first_user_id),
    )


def id_mapping(first_user_id: int | None) -> list[cri.IDMapping]:
    """The pod's ids as ids of the node; empty for a pod that has none of its own."""
    if first_user_id is None:
        return []
    return [cri.IDMapping(host_id=first_user_id, container_id=0, length=IDS_PER_POD)]


def user_namespace(first_user_id: int | None) -> cri.UserNamespace | None:
    mapping = id_mapping(first_user_id)
    return cri.UserNamespace(mode=cri.POD, uids=mapping, gids=mapping) if mapping else None


def sandbox_config(
    pod: core_v1.Pod, attempt: int, node: NodeSettings, cgroup_parent: str, first_user_id: int | None = None
) -> cri.PodSandboxConfig:
    """The configuration of the pod's sandbox.

    `first_user_id` is where the ids of a pod with `hostUsers: false` begin.
    """
    meta = pod.metadata
    identity = {LABEL_NAME: meta.name or "", LABEL_NAMESPACE: meta.namespace or "", LABEL_UID: meta.uid or ""}
    config = cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name=meta.name, uid=meta.uid, namespace=meta.namespace, attempt=attempt),
        log_directory=pod_log_directory(node.log_root, pod),
        dns_config=dns_config(pod, node),
        labels={**(meta.labels or {}), **identity},
        annotations={
            **(meta.annotations or {}),
            "kubernetes.io/config.source": "file" if pod_spec.is_static(pod) else "api",
        },
        port_mappings=_port_mappings(pod),
    )
    if not pod.spec.hostNetwork:
        name, domain = hostname_of(pod, node.cluster_domain)
        config.hostname = f"{name}.{domain}" if pod.spec.setHostnameAsFQDN and domain else name
    resources = qos.pod_resources(pod)
    config.linux.CopyFrom(
        cri.LinuxPodSandboxConfig(
            cgroup_parent=cgroup_parent,
            security_context=_sandbox_security(pod, node, first_user_id),
            sysctls={s.name: s.value for s in (_pod_security(pod).sysctls or [])},
            resources=cri.LinuxContainerResources(
                cpu_period=qos.CPU_PERIOD_US,
                cpu_quota=resources.cpu_quota_us,
                cpu_shares=resources.cpu_shares,
                memory_limit_in_bytes=resources.memory_limit_bytes or 0,
            ),
        )
    )
    return config


def _port_mappings(pod: core_v1.Pod) -> list[cri.PortMapping]:
    if pod.spec.hostNetwork:
        return []
    return [
        cri.PortMapping(
            protocol=_PROTOCOLS.get(port.protocol or "TCP", cri.TCP),
            container_port=port.containerPort,
            host_port=port.hostPort,
            host_ip=port.hostIP or "",
        )
        for container in [*pod.spec.containers, *pod_spec.sidecars(pod)]
        for port in container.ports or []
        if port.hostPort
    ]


def _pod_security(pod: core_v1.Pod) -> core_v1.PodSecurityContext:
    return pod.spec.securityContext or core_v1.PodSecurityContext()


def _any_privileged(pod: core_v1.Pod) -> bool:
    return any(c.securityContext and c.securityContext.privileged for c in pod_spec.all_containers(pod))


def _sandbox_security(
    pod: core_v1.Pod, node: NodeSettings, first_user_id: int | None
) -> cri.LinuxSandboxSecurityContext:
    security = _pod_security(pod)
    context = cri.LinuxSandboxSecurityContext(
        namespace_options=namespaces(pod, first_user_id=first_user_id),
        privileged=_any_privileged(pod),
        # The sandbox's own process needs no more than the default profile, whatever the pod asks for its containers.
        seccomp=cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault),
        supplemental_groups=[
            *([security.fsGroup] if security.fsGroup is not None else []),
            *(security.supplementalGroups or []),
        ],
    )
    if _any_privileged(pod):
        context.seccomp.profile_type = cri.SecurityProfile.Unconfined
    if security.runAsUser is not None:
        context.run_as_user.value = security.runAsUser
    if security.runAsGroup is not None and security.runAsUser is not None:
        context.run_as_group.value = security.runAsGroup
    _set_selinux(context, security.seLinuxOptions)
    return context


def _set_selinux(context, options: core_v1.SELinuxOptions | None) -> None:  # type: ignore[no-untyped-def]
    if options is not None:
        context.selinux_options.CopyFrom(
            cri.SELinuxOption(
                user=options.user or "", role=options.role or "", type=options.type or "", level=options.level or ""
            )
        )


def container_config(
    pod: core_v1.Pod, container: pod_spec.AnyContainer, restart_count: int, node: NodeSettings, parts: ContainerParts
) -> cri.ContainerConfig:
    """The configuration of one run of a container. Raises InvalidConfig."""
    meta = pod.metadata
    annotations = {
        ANNOTATION_HASH: pod_spec.spec_hash(container),
        ANNOTATION_RESTARTS: str(restart_count),
        ANNOTATION_MESSAGE_PATH: container.terminationMessagePath or "/dev/termination-log",
        ANNOTATION_MESSAGE_POLICY: container.terminationMessagePolicy or "File",
        ANNOTATION_GRACE: str(pod_spec.grace_period_seconds(pod)),
        ANNOTATION_KIND: pod_spec.kind_of(pod, container),
    }
    if container.ports:
        annotations[ANNOTATION_PORTS] = json.dumps(
            [
                {"name": p.name, "containerPort": p.containerPort, "protocol": p.protocol or "TCP"}
                for p in container.ports
            ],
            separators=(",", ":"),
        )
    config = cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name=container.name, attempt=restart_count),
        image=cri.ImageSpec(image=parts.image_ref, user_specified_image=container.image or ""),
        command=list(parts.command),
        args=list(parts.args),
        working_dir=container.workingDir or "",
        labels={
            LABEL_NAME: meta.name or "",
            LABEL_NAMESPACE: meta.namespace or "",
            LABEL_UID: meta.uid or "",
            LABEL_CONTAINER: container.name,
        },
        annotations=annotations,
        log_path=f"{container.name}/{restart_count}.log",
        stdin=bool(container.stdin),
        stdin_once=bool(container.stdinOnce),
        tty=bool(container.tty),
    )
    config.envs.extend(_key_values(parts.env))
    for mount in parts.mounts:
        config.mounts.append(
            cri.Mount(
                container_path=mount.container_path,
                host_path=mount.host_path,
                readonly=mount.read_only,
                propagation=_PROPAGATION[mount.propagation],
                recursive_read_only=mount.recursive_read_only,
                image=cri.ImageSpec(image=mount.image) if mount.image else None,
                image_sub_path=mount.image_sub_path,
                uidMappings=id_mapping(parts.first_user_id),
                gidMappings=id_mapping(parts.first_user_id),
            )
        )
    config.CDI_devices.extend(cri.CDIDevice(name=name) for name in parts.cdi_devices)
    for container_path, host_path, permissions in parts.devices:
        config.devices.append(cri.Device(container_path=container_path, host_path=host_path, permissions=permissions))
    stop_signal = container.lifecycle.stopSignal if container.lifecycle else None
    if stop_signal and stop_signal in cri.Signal.keys():  # noqa: SIM118 - an enum wrapper, not a dict
        config.stop_signal = cri.Signal.Value(stop_signal)
    config.linux.CopyFrom(
        cri.LinuxContainerConfig(
            resources=linux_resources(pod, container, node),
            security_context=_container_security(pod, container, node, parts),
        )
    )
    return config


def _key_values(env: Mapping[str, str]) -> list[cri.KeyValue]:
    """Values that are not UTF-8 (from binary secrets) can't travel in CRI's strings."""
    out = []
    for name, value in env.items():
        try:
            out.append(cri.KeyValue(key=name, value=value))
        except (UnicodeEncodeError, ValueError) as error:
            raise InvalidConfig(f"environment variable {name} is not valid UTF-8") from error
    return out


def linux_resources(
    pod: core_v1.Pod, container: pod_spec.AnyContainer, node: NodeSettings
) -> cri.LinuxContainerResources:
    """cpu and memory of one container as the runtime takes them."""
    wanted = qos.container_resources(container, pod)
    resources = cri.LinuxContainerResources(
        cpu_period=qos.CPU_PERIOD_US,
        cpu_quota=wanted.cpu_quota_us,
        cpu_shares=wanted.cpu_shares,
        memory_limit_in_bytes=wanted.memory_limit_bytes or 0,
        oom_score_adj=qos.oom_score_adj(pod, container, node.node_memory_bytes),
    )
    if node.cgroup_v2:
        # All processes of a container die together when it runs out of memory.
        resources.unified["memory.oom.group"] = "1"
        if node.swap_controller:
            resources.unified["memory.swap.max"] = "0"
    return resources


def _container_security(
    pod: core_v1.Pod, container: pod_spec.AnyContainer, node: NodeSettings, parts: ContainerParts
) -> cri.LinuxContainerSecurityContext:
    own = container.securityContext or core_v1.SecurityContext()
    shared = _pod_security(pod)
    user = own.runAsUser if own.runAsUser is not None else shared.runAsUser
    group = own.runAsGroup if own.runAsGroup is not None else shared.runAsGroup
    _check_non_root(pod, container, user, parts)
    privileged = bool(own.privileged)
    context = cri.LinuxContainerSecurityContext(
        privileged=privileged,
        namespace_options=namespaces(pod, parts.target_container_id, parts.first_user_id),
        readonly_rootfs=bool(own.readOnlyRootFilesystem),
        no_new_privs=own.allowPrivilegeEscalation is False,
        supplemental_groups=list(
            dict.fromkeys(
                [
                    *([shared.fsGroup] if shared.fsGroup is not None else []),
                    *(shared.supplementalGroups or []),
                    *parts.extra_groups,
                ]
            )
        ),
        seccomp=_seccomp(own.seccompProfile or shared.seccompProfile, privileged, node),
    )
    if shared.supplementalGroupsPolicy == "Strict":
        context.supplemental_groups_policy = cri.Strict
    if user is not None:
        context.run_as_user.value = user
    elif parts.image_uid is not None:
        context.run_as_user.value = parts.image_uid
    elif parts.image_user:
        context.run_as_username = parts.image_user
    if group is not None:
        context.run_as_group.value = group
    if own.capabilities is not None:
        context.capabilities.CopyFrom(
            cri.Capability(add_capabilities=own.capabilities.add or [], drop_capabilities=own.capabilities.drop or [])
        )
    if not privileged and own.procMount != "Unmasked":
        context.masked_paths.extend(_MASKED_PATHS)
        context.readonly_paths.extend(_READONLY_PATHS)
    _set_selinux(context, own.seLinuxOptions or shared.seLinuxOptions)
    _set_apparmor(context, own.appArmorProfile or shared.appArmorProfile)
    return context


def _check_non_root(
    pod: core_v1.Pod, container: pod_spec.AnyContainer, user: int | None, parts: ContainerParts
) -> None:
    own = container.securityContext or core_v1.SecurityContext()
    shared = _pod_security(pod)
    non_root = own.runAsNonRoot if own.runAsNonRoot is not None else shared.runAsNonRoot
    if not non_root:
        return
    where = f'(pod: "{pod_spec.full_name(pod)}", container: {container.name})'
    if user is not None:
        if user == 0:
            raise InvalidConfig(f"container's runAsUser breaks non-root policy {where}")
    elif parts.image_user:
        raise InvalidConfig(
            "container has runAsNonRoot and image has non-numeric user "
            f"({parts.image_user}), cannot verify user is non-root {where}"
        )
    elif not parts.image_uid:
        raise InvalidConfig(f"container has runAsNonRoot and image will run as root {where}")


def _seccomp(profile: core_v1.SeccompProfile | None, privileged: bool, node: NodeSettings) -> cri.SecurityProfile:
    kind = profile.type if profile else ("RuntimeDefault" if node.seccomp_default and not privileged else "Unconfined")
    if kind == "RuntimeDefault":
        return cri.SecurityProfile(profile_type=cri.SecurityProfile.RuntimeDefault)
    if kind == "Localhost" and profile is not None:
        return cri.SecurityProfile(
            profile_type=cri.SecurityProfile.Localhost,
            localhost_ref=f"{node.seccomp_root}/{profile.localhostProfile or ''}",
        )
    return cri.SecurityProfile(profile_type=cri.SecurityProfile.Unconfined)


def _set_apparmor(context: cri.LinuxContainerSecurityContext, profile: core_v1.AppArmorProfile | None) -> None:
    if profile is None:
        return
    kinds = {
        "RuntimeDefault": (cri.SecurityProfile.RuntimeDefault, "runtime/default"),
        "Unconfined": (cri.SecurityProfile.Unconfined, "unconfined"),
        "Localhost": (cri.SecurityProfile.Localhost, f"localhost/{profile.localhostProfile or ''}"),
    }
    kind, legacy = kinds[profile.type]
    context.apparmor.profile_type = kind
    context.apparmor.localhost_ref = profile.localhostProfile or ""
    context.apparmor_profile = legacy
