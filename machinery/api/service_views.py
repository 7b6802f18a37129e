"""Services, EndpointSlices and namespaces with the fields that the network's services read.

Decoding only these costs a fraction of the memory and time of the whole models (`kinds.py` names those); what a reader
does not know can't break it. Each service keeps the views that only it needs beside its own code.
"""

from __future__ import annotations

from sys import intern

import msgspec


class View(msgspec.Struct, rename="camel", gc=False, omit_defaults=True):
    """Field names as in the API's JSON; unknown fields are left out."""


class Metadata(View):
    """Identity and labels."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None


class ServicePortSpec(View):
    """One port of a Service."""

    name: str | None = None
    port: int = 0
    protocol: str | None = None
    node_port: int | None = None
    app_protocol: str | None = None
    target_port: int | str | None = None


class ClientIpAffinity(View):
    """How long a client stays with its endpoint."""

    timeout_seconds: int | None = None


class AffinityConfig(View):
    """Session affinity's settings."""

    client_ip: ClientIpAffinity | None = msgspec.field(default=None, name="clientIP")


class ServiceSpec(View):
    """What a Service asks for."""

    type: str | None = None
    cluster_ip: str | None = msgspec.field(default=None, name="clusterIP")
    cluster_ips: list[str] | None = msgspec.field(default=None, name="clusterIPs")
    external_name: str | None = None
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
    publish_not_ready_addresses: bool | None = None


class BalancerAddress(View):
    """One address of a load balancer."""

    ip: str | None = None
    ip_mode: str | None = None


class LoadBalancerStatus(View):
    """The addresses of a load balancer."""

    ingress: list[BalancerAddress] | None = None


class ServiceStatus(View):
    """What a Service got."""

    load_balancer: LoadBalancerStatus | None = None


class Service(View):
    """core/v1 Service."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: ServiceSpec | None = None
    status: ServiceStatus | None = None

    @property
    def key(self) -> str:
        """namespace/name."""
        return f"{self.metadata.namespace}/{self.metadata.name}"


class EndpointConditions(View):
    """The state of an endpoint; absent means ready."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class HintTarget(View):
    """A node or a zone that an endpoint is meant for."""

    name: str = ""


class Hints(View):
    """Whom an endpoint is meant for."""

    for_zones: list[HintTarget] | None = None
    for_nodes: list[HintTarget] | None = None


class EndpointItem(View):
    """One endpoint of a slice."""

    addresses: list[str] = []
    hostname: str | None = None
    conditions: EndpointConditions | None = None
    node_name: str | None = None
    hints: Hints | None = None


class EndpointPort(View):
    """One port of a slice."""

    name: str | None = None
    port: int | None = None
    protocol: str | None = None


class EndpointSlice(View):
    """discovery.k8s.io/v1 EndpointSlice."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    address_type: str = "IPv4"
    endpoints: list[EndpointItem] | None = None
    ports: list[EndpointPort] | None = None


class Namespace(View):
    """core/v1 Namespace."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)


SERVICE_NAME_LABEL = "kubernetes.io/service-name"


def slice_service(piece: EndpointSlice) -> list[str]:
    """The key of the Service that a slice belongs to (an index for the informer)."""
    name = (piece.metadata.labels or {}).get(SERVICE_NAME_LABEL)
    return [intern(f"{piece.metadata.namespace}/{name}")] if name else []
