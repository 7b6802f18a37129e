"""The objects that the proxy reads, with the fields that it reads.

Decoding only these costs a fraction of the memory and time of the whole models; what the proxy does not know can't
break it.
"""

from __future__ import annotations

import msgspec


class _Part(msgspec.Struct, rename="camel", gc=False):
    """Field names as in the API's JSON; unknown fields are left out."""


class Metadata(_Part):
    """Identity and labels."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    deletion_timestamp: str | None = None


class ServicePortSpec(_Part):
    """One port of a Service."""

    name: str | None = None
    port: int = 0
    protocol: str | None = None
    node_port: int | None = None
    target_port: int | str | None = None


class ClientIpAffinity(_Part):
    """How long a client stays with its endpoint."""

    timeout_seconds: int | None = None


class AffinityConfig(_Part):
    """Session affinity's settings."""

    client_ip: ClientIpAffinity | None = msgspec.field(default=None, name="clientIP")


class ServiceSpec(_Part):
    """What a Service asks for."""

    type: str | None = None
    cluster_ip: str | None = msgspec.field(default=None, name="clusterIP")
    cluster_ips: list[str] | None = msgspec.field(default=None, name="clusterIPs")
    external_ips: list[str] | None = msgspec.field(default=None, name="externalIPs")
    ports: list[ServicePortSpec] | None = None
    session_affinity: str | None = None
    session_affinity_config: AffinityConfig | None = None
    internal_traffic_policy: str | None = None
    external_traffic_policy: str | None = None
    traffic_distribution: str | None = None
    health_check_node_port: int | None = None
    load_balancer_source_ranges: list[str] | None = None
    load_balancer_class: str | None = None


class Ingress(_Part):
    """One address of a load balancer."""

    ip: str | None = None
    ip_mode: str | None = None


class LoadBalancerStatus(_Part):
    """The addresses of a load balancer."""

    ingress: list[Ingress] | None = None


class ServiceStatus(_Part):
    """What a Service got."""

    load_balancer: LoadBalancerStatus | None = None


class Service(_Part):
    """core/v1 Service."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: ServiceSpec | None = None
    status: ServiceStatus | None = None

    @property
    def key(self) -> str:
        """namespace/name."""
        return f"{self.metadata.namespace}/{self.metadata.name}"


class EndpointConditions(_Part):
    """The state of an endpoint; absent means ready."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class HintTarget(_Part):
    """A node or a zone that an endpoint is meant for."""

    name: str = ""


class Hints(_Part):
    """Whom an endpoint is meant for."""

    for_zones: list[HintTarget] | None = None
    for_nodes: list[HintTarget] | None = None


class EndpointItem(_Part):
    """One endpoint of a slice."""

    addresses: list[str] = []
    conditions: EndpointConditions | None = None
    node_name: str | None = None
    hints: Hints | None = None


class EndpointPort(_Part):
    """One port of a slice."""

    name: str | None = None
    port: int | None = None
    protocol: str | None = None


class EndpointSlice(_Part):
    """discovery.k8s.io/v1 EndpointSlice."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    address_type: str = "IPv4"
    endpoints: list[EndpointItem] | None = None
    ports: list[EndpointPort] | None = None


class NodeAddress(_Part):
    """One address of a node."""

    type: str = ""
    address: str = ""


class NodeSpec(_Part):
    """What was given to a node."""

    pod_cidr: str | None = msgspec.field(default=None, name="podCIDR")


class Condition(_Part):
    """One condition of a node."""

    type: str = ""
    status: str = ""


class NodeStatus(_Part):
    """What a node reported."""

    addresses: list[NodeAddress] | None = None
    conditions: list[Condition] | None = None


class Node(_Part):
    """core/v1 Node."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: NodeSpec | None = None
    status: NodeStatus | None = None


class ContainerPort(_Part):
    """A port that a container names."""

    name: str | None = None
    container_port: int = 0
    protocol: str | None = None


class Container(_Part):
    """A container's ports."""

    ports: list[ContainerPort] | None = None
    restart_policy: str | None = None


class PodSpec(_Part):
    """Where a pod runs and what ports it names."""

    node_name: str | None = None
    host_network: bool | None = None
    containers: list[Container] = []
    init_containers: list[Container] | None = None


class PodIp(_Part):
    """One address of a pod."""

    ip: str = ""


class PodStatus(_Part):
    """A pod's addresses and phase."""

    phase: str | None = None
    pod_ip: str | None = msgspec.field(default=None, name="podIP")
    pod_ips: list[PodIp] | None = msgspec.field(default=None, name="podIPs")


class Pod(_Part):
    """core/v1 Pod."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: PodSpec | None = None
    status: PodStatus | None = None


class Namespace(_Part):
    """core/v1 Namespace."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)


class Requirement(_Part):
    """One expression of a label selector."""

    key: str = ""
    operator: str = ""
    values: list[str] | None = None


class Selector(_Part):
    """A label selector; empty chooses all."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[Requirement] | None = None


class IpBlock(_Part):
    """A range of addresses with holes."""

    cidr: str = ""
    except_: list[str] | None = msgspec.field(default=None, name="except")


class Peer(_Part):
    """Who is on the other side."""

    pod_selector: Selector | None = None
    namespace_selector: Selector | None = None
    ip_block: IpBlock | None = None


class PolicyPort(_Part):
    """A port, by number, name or range."""

    protocol: str | None = None
    port: int | str | None = None
    end_port: int | None = None


class IngressRule(_Part):
    """From whom, on which ports."""

    from_: list[Peer] | None = msgspec.field(default=None, name="from")
    ports: list[PolicyPort] | None = None


class EgressRule(_Part):
    """To whom, on which ports."""

    to: list[Peer] | None = None
    ports: list[PolicyPort] | None = None


class PolicySpec(_Part):
    """What a policy says."""

    pod_selector: Selector | None = None
    policy_types: list[str] | None = None
    ingress: list[IngressRule] | None = None
    egress: list[EgressRule] | None = None


class NetworkPolicy(_Part):
    """networking.k8s.io/v1 NetworkPolicy."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: PolicySpec | None = None


SERVICE_NAME_LABEL = "kubernetes.io/service-name"


def slice_service(piece: EndpointSlice) -> list[str]:
    """The key of the Service that a slice belongs to (an index for the informer)."""
    name = (piece.metadata.labels or {}).get(SERVICE_NAME_LABEL)
    return [f"{piece.metadata.namespace}/{name}"] if name else []
