"""The objects that the controller reads, with the fields that it reads: a fraction of the whole models' memory."""

from __future__ import annotations

import msgspec


class _Part(msgspec.Struct, rename="camel", gc=False):
    """Field names as in the API's JSON; unknown fields are left out."""


class Metadata(_Part):
    """Identity, labels and annotations."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class PortRef(_Part):
    """A Service's port, by name or by number."""

    name: str | None = None
    number: int | None = None


class ServiceRef(_Part):
    """A Service of the same namespace."""

    name: str = ""
    port: PortRef = msgspec.field(default_factory=PortRef)


class ResourceRef(_Part):
    """Another object as a backend."""

    kind: str = ""
    name: str = ""


class BackendRef(_Part):
    """Where requests go."""

    service: ServiceRef | None = None
    resource: ResourceRef | None = None


class Path(_Part):
    """A path of a rule."""

    path: str | None = None
    path_type: str = "ImplementationSpecific"
    backend: BackendRef = msgspec.field(default_factory=BackendRef)


class Http(_Part):
    """The paths of a rule."""

    paths: list[Path] = []


class Rule(_Part):
    """A host and its paths."""

    host: str | None = None
    http: Http | None = None


class Tls(_Part):
    """Hosts and the Secret with their certificate."""

    hosts: list[str] | None = None
    secret_name: str | None = None


class IngressSpec(_Part):
    """What an Ingress asks for."""

    ingress_class_name: str | None = None
    default_backend: BackendRef | None = None
    rules: list[Rule] | None = None
    tls: list[Tls] | None = None


class Address(_Part, omit_defaults=True):
    """An address at which an Ingress answers."""

    ip: str | None = None
    hostname: str | None = None


class LoadBalancer(_Part):
    """The addresses of an Ingress."""

    ingress: list[Address] | None = None


class IngressStatus(_Part):
    """What an Ingress got."""

    load_balancer: LoadBalancer | None = None


class Ingress(_Part):
    """networking.k8s.io/v1 Ingress."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: IngressSpec = msgspec.field(default_factory=IngressSpec)
    status: IngressStatus | None = None

    @property
    def key(self) -> str:
        """namespace/name."""
        return f"{self.metadata.namespace}/{self.metadata.name}"


class ClassSpec(_Part):
    """Which controller serves a class."""

    controller: str = ""


class IngressClass(_Part):
    """networking.k8s.io/v1 IngressClass."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: ClassSpec = msgspec.field(default_factory=ClassSpec)


class ServicePort(_Part):
    """One port of a Service."""

    name: str | None = None
    port: int = 0
    protocol: str | None = None
    app_protocol: str | None = None


class ServiceSpec(_Part):
    """What a Service asks for."""

    type: str | None = None
    ports: list[ServicePort] | None = None


class Service(_Part):
    """core/v1 Service."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: ServiceSpec = msgspec.field(default_factory=ServiceSpec)


class Conditions(_Part):
    """The state of an endpoint; absent means ready."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class EndpointItem(_Part):
    """One endpoint of a slice."""

    addresses: list[str] = []
    conditions: Conditions | None = None
    node_name: str | None = None


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


class Secret(_Part):
    """core/v1 Secret; the values are base64."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    type: str = ""
    data: dict[str, str] | None = None


class Condition(_Part):
    """One condition of a node."""

    type: str = ""
    status: str = ""


class NodeStatus(_Part):
    """What a node reported."""

    conditions: list[Condition] | None = None


class Node(_Part):
    """core/v1 Node."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    status: NodeStatus | None = None


SERVICE_NAME_LABEL = "kubernetes.io/service-name"


def slice_service(piece: EndpointSlice) -> list[str]:
    """The key of the Service that a slice belongs to (an index for the informer)."""
    name = (piece.metadata.labels or {}).get(SERVICE_NAME_LABEL)
    return [f"{piece.metadata.namespace}/{name}"] if name else []
