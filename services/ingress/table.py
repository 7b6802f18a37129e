"""What is served, as data: routes, the backends that they lead to, certificates, and what is wrong.

A route names a backend; a backend is one port of one Service with one set of options, so that Ingresses that want the
same share it. Its name carries a digest of the options: other options are another backend.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import msgspec


class Endpoint(NamedTuple):
    """One address of a backend. A draining one keeps its sessions and gets no new ones."""

    ip: str
    port: int
    draining: bool = False


class Rewrite(msgspec.Struct, frozen=True):
    """The path that the backend sees. With a pattern, $1 … $9 in the target are its groups."""

    target: str
    pattern: str = ""


class Affinity(msgspec.Struct, frozen=True):
    """A cookie that keeps a client with its endpoint."""

    cookie: str
    max_age_seconds: int = 0


class Options(msgspec.Struct, frozen=True):
    """How requests are forwarded. Seconds and bytes; None: the proxy's default, no limit."""

    # http, https, grpc, grpcs or h2c
    protocol: str = "http"
    rewrite: Rewrite | None = None
    affinity: Affinity | None = None
    body_bytes_max: int | None = None
    connect_seconds: int | None = None
    read_seconds: int | None = None
    send_seconds: int | None = None
    redirect_to_tls: bool = False
    # Whether a request that was sent and had no answer is sent to another endpoint, if its method allows that.
    resend: bool = True
    # How often another endpoint is tried; None: the proxy's default.
    tries: int | None = None
    # CIDRs that may ask; empty: anyone.
    allow: tuple[str, ...] = ()


@dataclass(frozen=True)
class Backend:
    """One port of a Service with options."""

    namespace: str
    service: str
    # As the Ingress names it: for people.
    port: str
    # The name of the Service's port, by which slices know it; may be empty.
    port_name: str
    options: Options = field(default_factory=Options)

    @cached_property
    def name(self) -> str:
        """What the proxy calls it."""
        said = msgspec.json.encode((self.port_name, self.options))
        digest = hashlib.sha256(said).hexdigest()[:12]
        return f"{self.namespace}:{self.service}:{self.port}:{digest}"

    @property
    def service_key(self) -> str:
        """namespace/name of the Service."""
        return f"{self.namespace}/{self.service}"


class Problem(NamedTuple):
    """What an Ingress should be told."""

    # namespace/name
    ingress: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Route:
    """One host and path. `error` set: not served, or answered 503 when `host` and `path` are claimed all the same."""

    host: str
    path: str
    # Exact, Prefix, ImplementationSpecific; Default: what no other route matches.
    path_type: str
    # namespace/name
    ingress: str
    service: str
    port: str
    is_regex: bool = False
    backend: Backend | None = None
    # namespace/name of the Secret with the host's certificate
    tls_secret: str = ""
    error: str = ""
    # Whether requests for it may go nowhere else.
    claimed: bool = True


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its chain and key, written anew from what was parsed: PEM."""

    pem: str
    names: tuple[str, ...]
    not_after: float


@dataclass(frozen=True, slots=True)
class Table:
    """Everything that is served."""

    routes: tuple[Route, ...] = ()
    # host -> namespace/name of the Secret; only usable ones.
    tls: Mapping[str, str] = field(default_factory=dict)
    certificates: Mapping[str, Certificate] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    @property
    def backends(self) -> dict[str, Backend]:
        """Every backend that a route leads to, by name."""
        return {route.backend.name: route.backend for route in self.routes if route.backend is not None}
