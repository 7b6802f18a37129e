"""The objects that only this controller reads, with the fields that it reads; those of Services are in
`machinery/api/service_views.py`."""

from __future__ import annotations

import msgspec

from machinery.api.service_views import Metadata, View


class PortRef(View):
    """A Service's port, by name or by number."""

    name: str | None = None
    number: int | None = None


class ServiceRef(View):
    """A Service of the same namespace."""

    name: str = ""
    port: PortRef = msgspec.field(default_factory=PortRef)


class ResourceRef(View):
    """Another object as a backend."""

    kind: str = ""
    name: str = ""


class BackendRef(View):
    """Where requests go."""

    service: ServiceRef | None = None
    resource: ResourceRef | None = None


class Path(View):
    """A path of a rule."""

    path: str | None = None
    path_type: str = "ImplementationSpecific"
    backend: BackendRef = msgspec.field(default_factory=BackendRef)


class Http(View):
    """The paths of a rule."""

    paths: list[Path] = []


class Rule(View):
    """A host and its paths."""

    host: str | None = None
    http: Http | None = None


class Tls(View):
    """Hosts and the Secret with their certificate."""

    hosts: list[str] | None = None
    secret_name: str | None = None


class IngressSpec(View):
    """What an Ingress asks for."""

    ingress_class_name: str | None = None
    default_backend: BackendRef | None = None
    rules: list[Rule] | None = None
    tls: list[Tls] | None = None


class Address(View):
    """An address at which an Ingress answers."""

    ip: str | None = None
    hostname: str | None = None


class LoadBalancer(View):
    """The addresses of an Ingress."""

    ingress: list[Address] | None = None


class IngressStatus(View):
    """What an Ingress got."""

    load_balancer: LoadBalancer | None = None


class Ingress(View):
    """networking.k8s.io/v1 Ingress."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: IngressSpec = msgspec.field(default_factory=IngressSpec)
    status: IngressStatus | None = None

    @property
    def key(self) -> str:
        """namespace/name."""
        return f"{self.metadata.namespace}/{self.metadata.name}"


class ClassSpec(View):
    """Which controller serves a class."""

    controller: str = ""


class IngressClass(View):
    """networking.k8s.io/v1 IngressClass."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: ClassSpec = msgspec.field(default_factory=ClassSpec)


class Secret(View):
    """core/v1 Secret; the values are base64."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    type: str = ""
    data: dict[str, str] | None = None


class Condition(View):
    """One condition of a node."""

    type: str = ""
    status: str = ""


class NodeStatus(View):
    """What a node reported."""

    conditions: list[Condition] | None = None


class Node(View):
    """core/v1 Node."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    status: NodeStatus | None = None
