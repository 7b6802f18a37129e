"""Ingress, IngressClass and NetworkPolicy."""

from __future__ import annotations

import ipaddress
from typing import Any

from machinery.api.errors import Cause
from services.apiserver.schema import causes, names
from services.apiserver.schema.rules import containers, selectors

Obj = dict[str, Any]

_PATH_FORBIDDEN = ("//", "/./", "/../", "%2f", "%2F")
_PATH_ENDINGS = ("/..", "/.")


def ingress(obj: Obj) -> list[Cause]:
    """An Ingress."""
    spec = obj.get("spec") or {}
    found: list[Cause] = []
    rules, default = spec.get("rules"), spec.get("defaultBackend")
    if not rules and default is None:
        found.append(causes.invalid("spec", rules, "either `defaultBackend` or `rules` must be specified"))
    if default is not None:
        found += _backend(default, "spec.defaultBackend")
    for index, rule in enumerate(rules or ()):
        here = f"spec.rules[{index}]"
        if rule.get("host"):
            found += _host(rule["host"], f"{here}.host")
        http = rule.get("http")
        if http is not None:
            for place, path in enumerate(http.get("paths") or ()):
                found += _path(path, f"{here}.http.paths[{place}]")
    for index, tls in enumerate(spec.get("tls") or ()):
        for place, host in enumerate(tls.get("hosts") or ()):
            found += _host(host, f"spec.tls[{index}].hosts[{place}]", ip_allowed=True)
    name = spec.get("ingressClassName")
    if name is not None:
        found += [causes.invalid("spec.ingressClassName", name, why) for why in names.dns_subdomain(name)]
        annotations = (obj.get("metadata") or {}).get("annotations") or {}
        given = annotations.get("kubernetes.io/ingress.class")
        if given is not None and given != name and not (obj.get("metadata") or {}).get("uid"):
            detail = "must match `ingressClassName` when both are specified"
            found.append(causes.invalid("annotations.kubernetes.io/ingress.class", given, detail))
    return found


def _host(host: str, path: str, *, ip_allowed: bool = False) -> list[Cause]:
    if not ip_allowed:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            pass
        else:
            return [causes.invalid(path, host, "must be a DNS name, not an IP address")]
    check = names.wildcard_subdomain if "*" in host else names.dns_subdomain
    return [causes.invalid(path, host, why) for why in check(host)]


def _path(path: Obj, here: str) -> list[Cause]:
    found: list[Cause] = []
    kind, text = path.get("pathType"), path.get("path") or ""
    if kind in ("Exact", "Prefix"):
        if not text.startswith("/"):
            found.append(causes.invalid(f"{here}.path", text, "must be an absolute path"))
        for bad in _PATH_FORBIDDEN:
            if bad in text:
                found.append(causes.invalid(f"{here}.path", text, f"must not contain '{bad}'"))
        for bad in _PATH_ENDINGS:
            if text.endswith(bad):
                found.append(causes.invalid(f"{here}.path", text, f"cannot end with '{bad}'"))
    elif kind == "ImplementationSpecific" and text and not text.startswith("/"):
        found.append(causes.invalid(f"{here}.path", text, "must be an absolute path"))
    if path.get("backend") is not None:
        found += _backend(path["backend"], f"{here}.backend")
    return found


def _backend(backend: Obj, path: str) -> list[Cause]:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        detail = "cannot set both resource and service backends"
        return [causes.invalid(path, "", detail)]
    if service is None:
        return [] if resource is not None else [causes.required(path, "must specify a service or a resource")]
    found: list[Cause] = []
    name = service.get("name") or ""
    if not name:
        found.append(causes.required(f"{path}.service.name"))
    else:
        found += [causes.invalid(f"{path}.service.name", name, why) for why in names.dns_label(name)]
    port = service.get("port") or {}
    number, port_name = port.get("number") or 0, port.get("name") or ""
    if number and port_name:
        found.append(causes.invalid(path, "", "cannot set both port name & port number"))
    elif port_name:
        found += [causes.invalid(f"{path}.service.port.name", port_name, why) for why in names.port_name(port_name)]
    elif number:
        found += containers.port_or_name(number, f"{path}.service.port.number")
    else:
        found.append(causes.required(path, "port name or number is required"))
    return found


def ingress_class(obj: Obj) -> list[Cause]:
    """An IngressClass."""
    spec = obj.get("spec") or {}
    controller = spec.get("controller") or ""
    found: list[Cause] = []
    if len(controller) > 250:
        found.append(causes.too_long("spec.controller", 250))
    if not controller:
        found.append(causes.required("spec.controller"))
    elif "/" not in controller:
        found.append(
            causes.invalid("spec.controller", controller, 'must be a domain-prefixed path (such as "acme.io/foo")')
        )
    parameters = spec.get("parameters")
    if parameters is not None:
        scope = parameters.get("scope")
        if scope not in ("Cluster", "Namespace"):
            found.append(causes.not_supported("spec.parameters.scope", scope, ("Cluster", "Namespace")))
        elif scope == "Namespace" and not parameters.get("namespace"):
            detail = "`parameters.scope` is set to 'Namespace'"
            found.append(causes.required("spec.parameters.namespace", detail))
        elif scope == "Cluster" and parameters.get("namespace"):
            detail = "`parameters.scope` is set to 'Cluster'"
            found.append(causes.forbidden("spec.parameters.namespace", detail))
    return found


def update_ingress_class(new: Obj, old: Obj) -> list[Cause]:
    """An IngressClass keeps its controller."""
    found = ingress_class(new)
    controller = (new.get("spec") or {}).get("controller")
    if controller != (old.get("spec") or {}).get("controller"):
        found.append(causes.immutable("spec.controller", controller))
    return found


def network_policy(obj: Obj) -> list[Cause]:
    """A NetworkPolicy."""
    spec = obj.get("spec") or {}
    found = selectors.label_selector(spec.get("podSelector"), "spec.podSelector")
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or ()):
            here = f"spec.{direction}[{index}]"
            for place, port in enumerate(rule.get("ports") or ()):
                found += _policy_port(port, f"{here}.ports[{place}]")
            for place, peer in enumerate(rule.get(peers) or ()):
                found += _peer(peer, f"{here}.{peers}[{place}]")
    return found


def _policy_port(port: Obj, path: str) -> list[Cause]:
    found: list[Cause] = []
    number, end = port.get("port"), port.get("endPort")
    if number is not None:
        found += containers.port_or_name(number, f"{path}.port")
        if end is not None and isinstance(number, int) and end < number:
            detail = "must be greater than or equal to `port`"
            found.append(causes.invalid(f"{path}.endPort", end, detail))
        if end is not None and isinstance(number, str):
            detail = "may not be specified when `port` is non-numeric"
            found.append(causes.invalid(f"{path}.endPort", end, detail))
    elif end is not None:
        found.append(causes.invalid(f"{path}.endPort", end, "may not be specified when `port` is not specified"))
    return found


def _peer(peer: Obj, path: str) -> list[Cause]:
    found: list[Cause] = []
    block = peer.get("ipBlock")
    others = [name for name in ("podSelector", "namespaceSelector") if peer.get(name) is not None]
    for name in others:
        found += selectors.label_selector(peer[name], f"{path}.{name}")
    if block is not None:
        if others:
            found.append(causes.forbidden(path, "may not specify both ipBlock and another peer"))
        found += _ip_block(block, f"{path}.ipBlock")
    elif not others:
        found.append(causes.required(path, "must specify a peer"))
    return found


def _ip_block(block: Obj, path: str) -> list[Cause]:
    detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
    cidr = block.get("cidr") or ""
    if not cidr:
        return []
    try:
        network = ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        return [causes.invalid(f"{path}.cidr", cidr, detail)]
    found: list[Cause] = []
    for index, text in enumerate(block.get("except") or ()):
        try:
            inner = ipaddress.ip_network(text, strict=False)
        except ValueError:
            found.append(causes.invalid(f"{path}.except[{index}]", text, detail))
            continue
        inside = inner.version == network.version and inner.subnet_of(network) and inner != network  # type: ignore[arg-type]
        if not inside:
            found.append(causes.invalid(f"{path}.except[{index}]", text, "must be a strict subset of `cidr`"))
    return found
