"""Ingresses and what they name, for tests of the ingress controller: a world without an API."""

from __future__ import annotations

import itertools

import msgspec

from machinery.api.service_views import SERVICE_NAME_LABEL, EndpointSlice, Service
from services.ingress import api, routes
from services.ingress.certificates import BadCertificate
from services.ingress.endpoints import endpoints_of

_SECONDS = itertools.count()
READY, ENDING, BROKEN = (True, True, False), (False, True, True), (False, False, False)


def path(text="/", service="web", port=80, kind="Prefix"):
    """A path of a rule; a port that is a text is a name."""
    ref = {"name": service, "port": {"name": port} if isinstance(port, str) else {"number": port}}
    return {"path": text, "pathType": kind, "backend": {"service": ref}}


def ingress(name="i", host="a.test", paths=None, *, namespace="d", annotations=None, created=None, **spec):
    """An Ingress with one rule unless the spec has others; each younger than the one before."""
    number = next(_SECONDS)
    rules = [{**({"host": host} if host else {}), "http": {"paths": [path()] if paths is None else paths}}]
    prefix = "nginx.ingress.kubernetes.io/"
    body = {
        "metadata": {
            "name": name, "namespace": namespace, "uid": f"uid-{name}-{number}",
            "creationTimestamp": created or f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}Z",
            "annotations": {k if "/" in k else f"{prefix}{k}": v for k, v in (annotations or {}).items()},
        },
        "spec": {"rules": rules} | spec,
    }  # fmt: skip
    return msgspec.convert(body, api.Ingress)


def service(name="web", ports=None, *, namespace="d", **spec):
    """A Service with port 80 named http."""
    body = {"ports": ports or [{"name": "http", "port": 80, "protocol": "TCP"}]} | spec
    return msgspec.convert({"metadata": {"name": name, "namespace": namespace}, "spec": body}, Service)


def piece(*endpoints, port=8080, name="http", service="web", namespace="d"):
    """One slice; each endpoint is an address, or (address, state)."""
    items = []
    for endpoint in endpoints:
        ip, state = endpoint if isinstance(endpoint, tuple) else (endpoint, READY)
        conditions = dict(zip(("ready", "serving", "terminating"), state, strict=True))
        items.append({"addresses": [ip], "conditions": conditions})
    body = {
        "addressType": "IPv4",
        "metadata": {"name": f"{service}-1", "namespace": namespace, "labels": {SERVICE_NAME_LABEL: service}},
        "endpoints": items,
        "ports": [{"name": name, "port": port, "protocol": "TCP"}],
    }
    return msgspec.convert(body, EndpointSlice)


def table(*ingresses, services=(), secrets=None, now=0.0):
    """The table of these Ingresses; without services, every Service is there with port 80."""
    by_key = {f"{s.metadata.namespace}/{s.metadata.name}": s for s in services}

    def service_of(key):
        return by_key.get(key) if services else service(key.partition("/")[2], namespace=key.partition("/")[0])

    def certificate_of(key):
        found = (secrets or {}).get(key)
        if isinstance(found, str):
            raise BadCertificate(found)
        return found

    return routes.build(sorted(ingresses, key=lambda i: (i.metadata.creation_timestamp, i.key)), service_of,
                        certificate_of, now)  # fmt: skip


def endpoints(built, *slices):
    """Endpoints of every backend of a table."""
    return {name: endpoints_of(backend, slices) for name, backend in built.backends.items()}
