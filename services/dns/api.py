"""The objects that the DNS server reads, with the fields that it reads: a fraction of the whole models' memory."""

from __future__ import annotations

import msgspec


class _Part(msgspec.Struct, gc=False):
    """Field names as in the API's JSON; unknown fields are left out."""


class Metadata(_Part):
    """Identity and labels."""

    name: str = ""
    namespace: str = ""
    labels: dict[str, str] | None = None


class ServicePort(_Part):
    """One port of a Service."""

    name: str | None = None
    port: int = 0
    protocol: str | None = None


class ServiceSpec(_Part):
    """What a Service asks for."""

    type: str | None = None
    clusterIP: str | None = None
    clusterIPs: list[str] | None = None
    externalName: str | None = None
    ports: list[ServicePort] | None = None
    publishNotReadyAddresses: bool | None = None


class Service(_Part):
    """core/v1 Service."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: ServiceSpec | None = None


class Conditions(_Part):
    """The state of an endpoint; absent means ready."""

    ready: bool | None = None


class Endpoint(_Part):
    """One endpoint of a slice."""

    addresses: list[str] = []
    hostname: str | None = None
    conditions: Conditions | None = None


class EndpointPort(_Part):
    """One port of a slice."""

    name: str | None = None
    port: int | None = None
    protocol: str | None = None


class EndpointSlice(_Part):
    """discovery.k8s.io/v1 EndpointSlice."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    addressType: str = "IPv4"
    endpoints: list[Endpoint] | None = None
    ports: list[EndpointPort] | None = None


class Namespace(_Part):
    """core/v1 Namespace."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
