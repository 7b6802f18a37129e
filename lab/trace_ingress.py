"""Which route of an Ingress a request takes: what `cutaway trace POD http://HOST/PATH` tells. Pure.

The order is the API's: the host, then its wildcard, then rules without a host; among each the whole path before the
longest prefix, element by element; default backends last, in the same order of hosts. Source: networking.k8s.io/v1.
"""

from __future__ import annotations

from collections.abc import Iterable

from protos.cutaway.v1 import ingress_pb2


def choose(routes: Iterable[ingress_pb2.Route], host: str, path: str) -> ingress_pb2.Route | None:
    """The route that serves a request, or None. Regular expressions are judged by the proxy alone: see `has_regex`."""
    routes = list(routes)
    hosts = [host.lower(), f"*.{host.lower().partition('.')[2]}", ""]
    for name in hosts:
        found = [r for r in routes if r.host == name and r.path_type != "Default" and _length(r, path)]
        if found:
            return max(found, key=lambda route: _length(route, path))
    for name in hosts:
        for route in routes:
            if route.host == name and route.path_type == "Default":
                return route
    return None


def _length(route: ingress_pb2.Route, path: str) -> int:
    """How well a path fits: 0 not at all; a whole path best of all."""
    if route.path_type == "Exact":
        return 1_000_000 if route.path == path else 0
    prefix = route.path.rstrip("/")
    return len(prefix) + 1 if path == prefix or path.startswith(f"{prefix}/") else 0


def has_regex(routes: Iterable[ingress_pb2.Route], host: str) -> bool:
    """Whether paths of this host may be regular expressions, which come before the others."""
    return any(r.host == host.lower() and r.path_type != "Exact" and set(r.path) & set("^$()[]*+?|\\") for r in routes)


def describe(route: ingress_pb2.Route) -> str:
    """A route in words."""
    where = "what nothing else matches" if route.path_type == "Default" else f"{route.path} ({route.path_type})"
    if route.error:
        outcome = f"not served: {route.error}"
    else:
        outcome = f"to Service {route.namespace}/{route.service}:{route.service_port}"
    return f"{route.host or 'any host'}, {where}, by Ingress {route.namespace}/{route.ingress}: {outcome}"
