"""Services, endpoints, ingresses, network policies and address ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.apiserver.rest.columns.formats import NONE, UNSET, created, cut, label_map, label_selector, or_none
from services.apiserver.rest.columns.layout import Cells, Columns, Object


def _addresses(status: Mapping[str, Any]) -> list[str]:
    ingresses = (status.get("loadBalancer") or {}).get("ingress") or ()
    found = {ingress.get("ip") or ingress.get("hostname") for ingress in ingresses}
    return sorted(address for address in found if address)


def _external(spec: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    extra = spec.get("externalIPs") or []
    kind = spec.get("type") or "ClusterIP"
    if kind == "ExternalName":
        return or_none(spec.get("externalName"))
    if kind == "LoadBalancer":
        return ",".join([*_addresses(status), *extra]) or "<pending>"
    return ",".join(extra) or NONE


def _service_ports(spec: Mapping[str, Any]) -> str:
    texts = []
    for port in spec.get("ports") or ():
        node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
        texts.append(f"{port.get('port')}{node_port}/{port.get('protocol', 'TCP')}")
    return ",".join(texts) or NONE


def _service(obj: Object) -> Cells:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    addresses = spec.get("clusterIPs") or ()
    return [
        obj["metadata"]["name"],
        spec.get("type", "ClusterIP"),
        addresses[0] if addresses else or_none(spec.get("clusterIP")),
        _external(spec, status),
        _service_ports(spec),
        created(obj),
        label_map(spec.get("selector")),
    ]


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _endpoints(obj: Object) -> Cells:
    found: list[str] = []
    for subset in obj.get("subsets") or ():
        addresses = [item.get("ip", "") for item in subset.get("addresses") or ()]
        ports = subset.get("ports") or ()
        found += [f"{_bracketed(a)}:{p.get('port')}" for p in ports for a in addresses] if ports else addresses
    return [obj["metadata"]["name"], cut(found, 3), created(obj)]


def _slice(obj: Object) -> Cells:
    ports = cut((str(p["port"]) if p.get("port") is not None else "*" for p in obj.get("ports") or ()), 3)
    if not obj.get("ports"):
        ports = UNSET
    addresses = [address for endpoint in obj.get("endpoints") or () for address in endpoint.get("addresses") or ()]
    shown = cut(addresses, 3) if addresses else UNSET
    return [obj["metadata"]["name"], obj.get("addressType", ""), ports, shown, created(obj)]


def _ingress(obj: Object) -> Cells:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    hosts = [rule["host"] for rule in spec.get("rules") or () if rule.get("host")]
    shown = cut(hosts, 3) if hosts else "*"
    class_name = spec.get("ingressClassName")
    return [
        obj["metadata"]["name"],
        NONE if class_name is None else class_name,
        shown,
        ",".join(_addresses(status)),
        "80, 443" if spec.get("tls") else "80",
        created(obj),
    ]


def _ingress_class(obj: Object) -> Cells:
    spec = obj.get("spec") or {}
    parameters = spec.get("parameters")
    shown = NONE
    if parameters:
        group = parameters.get("apiGroup")
        shown = f"{parameters.get('kind')}{'' if group is None else f'.{group}'}/{parameters.get('name')}"
    return [obj["metadata"]["name"], spec.get("controller", ""), shown, created(obj)]


def _network_policy(obj: Object) -> Cells:
    return [obj["metadata"]["name"], label_selector((obj.get("spec") or {}).get("podSelector")), created(obj)]


def _service_cidr(obj: Object) -> Cells:
    return [obj["metadata"]["name"], ",".join((obj.get("spec") or {}).get("cidrs") or ()), created(obj)]


def _ip_address(obj: Object) -> Cells:
    ref = (obj.get("spec") or {}).get("parentRef")
    if ref is None:
        return [obj["metadata"]["name"], NONE]
    group, namespace = ref.get("group"), ref.get("namespace")
    kind = f"{ref.get('resource', '')}{f'.{group}' if group else ''}".lower()
    where = f"/{namespace}" if namespace else ""
    return [obj["metadata"]["name"], f"{kind}{where}/{ref.get('name', '')}"]


TABLES = {
    "services": Columns("Name, Type, Cluster-IP, External-IP, Port(s), Age, Selector*", _service),
    "endpoints": Columns("Name, Endpoints, Age", _endpoints),
    "endpointslices.discovery.k8s.io": Columns("Name, AddressType, Ports, Endpoints, Age", _slice),
    "ingresses.networking.k8s.io": Columns("Name, Class, Hosts, Address, Ports, Age", _ingress),
    "ingressclasses.networking.k8s.io": Columns("Name, Controller, Parameters, Age", _ingress_class),
    "networkpolicies.networking.k8s.io": Columns("Name, Pod-Selector, Age", _network_policy),
    "servicecidrs.networking.k8s.io": Columns("Name, CIDRs, Age", _service_cidr),
    "ipaddresses.networking.k8s.io": Columns("Name, ParentRef", _ip_address),
}
