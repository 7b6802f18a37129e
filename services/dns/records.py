"""The records of one Service, as the Kubernetes DNS specification 1.1 has them. Pure.

https://github.com/kubernetes/dns/blob/master/docs/specification.md
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import NamedTuple

from machinery.api.service_views import EndpointSlice, Service, ServiceSpec


class Record(NamedTuple):
    """One record. `name` is lower case without the last dot; `data` is in presentation form, names in it end with a
    dot."""

    name: str
    type: str
    data: str


def service_records(service: Service, slices: Iterable[EndpointSlice], domain: str) -> list[Record]:
    """Every record of a Service below `<domain>` and, for its addresses, below in-addr.arpa and ip6.arpa."""
    spec = service.spec
    name = f"{service.metadata.name}.{service.metadata.namespace}.svc.{domain}".lower()
    if spec is None:
        return []
    if spec.type == "ExternalName":
        return (
            [Record(name, "CNAME", f"{(spec.external_name or '').rstrip('.').lower()}.")] if spec.external_name else []
        )
    if not spec.cluster_ip:
        return []
    if spec.cluster_ip == "None":
        return _headless(name, slices, bool(spec.publish_not_ready_addresses))
    return _with_address(name, spec)


def _with_address(name: str, spec: ServiceSpec) -> list[Record]:
    records = []
    for ip in spec.cluster_ips or [spec.cluster_ip or ""]:
        records += [_address(name, ip), Record(_reverse(ip), "PTR", f"{name}.")]
    for port in spec.ports or []:
        if port.name:
            target = f"0 100 {port.port} {name}."
            records.append(Record(f"_{port.name}._{(port.protocol or 'TCP').lower()}.{name}".lower(), "SRV", target))
    return records


def _headless(name: str, slices: Iterable[EndpointSlice], publish_all: bool) -> list[Record]:
    records: dict[Record, None] = {}
    for piece in slices:
        if piece.address_type not in ("IPv4", "IPv6"):
            continue
        for endpoint in piece.endpoints or []:
            if not publish_all and endpoint.conditions is not None and endpoint.conditions.ready is False:
                continue
            for ip in endpoint.addresses:
                host = f"{endpoint.hostname or _dashed(ip)}.{name}".lower()
                records[_address(name, ip)] = None
                records[_address(host, ip)] = None
                if endpoint.hostname:
                    records[Record(_reverse(ip), "PTR", f"{host}.")] = None
                for port in piece.ports or []:
                    if port.name and port.port:
                        service = f"_{port.name}._{(port.protocol or 'TCP').lower()}.{name}".lower()
                        records[Record(service, "SRV", f"0 100 {port.port} {host}.")] = None
    return list(records)


def pod_address(label: str) -> str | None:
    """The address that a pod's name says: `10-244-0-7` is 10.244.0.7; None if it says none."""
    for candidate in (label.replace("-", "."), label.replace("-", ":")):
        try:
            return str(ipaddress.ip_address(candidate))
        except ValueError:
            continue
    return None


def _address(name: str, ip: str) -> Record:
    return Record(name, "AAAA" if ":" in ip else "A", ip)


def _reverse(ip: str) -> str:
    return ipaddress.ip_address(ip).reverse_pointer


def _dashed(ip: str) -> str:
    return ip.replace(".", "-").replace(":", "-")
