"""Services, Endpoints and EndpointSlices."""

from __future__ import annotations

import ipaddress
from typing import Any

from machinery.api.errors import Cause
from services.apiserver.schema import causes, names
from services.apiserver.schema.rules import containers

Obj = dict[str, Any]

NODE_PORTS = range(30000, 32768)
_IP_DETAIL = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"


def create(obj: Obj) -> list[Cause]:
    """A Service."""
    spec = obj.get("spec") or {}
    kind = spec.get("type")
    found: list[Cause] = []
    headless = spec.get("clusterIP") == "None"
    if kind == "ExternalName":
        found += _external_name(spec)
    elif not spec.get("ports") and not headless:
        found.append(causes.required("spec.ports"))
    if kind == "LoadBalancer" and headless:
        found.append(causes.invalid("spec.clusterIPs[0]", "None", "may not be set to 'None' for LoadBalancer services"))
    if kind == "NodePort" and headless:
        found.append(causes.invalid("spec.clusterIPs[0]", "None", "may not be set to 'None' for NodePort services"))
    found += _ports(spec, headless)
    found += _addresses(spec)
    found += _policies(spec, kind)
    return found


def _external_name(spec: Obj) -> list[Cause]:
    found: list[Cause] = []
    name = spec.get("externalName") or ""
    if not name:
        found.append(causes.required("spec.externalName"))
    found += (
        [causes.invalid("spec.externalName", name, why) for why in names.dns_subdomain(name.rstrip("."))]
        if name
        else []
    )
    if spec.get("clusterIP"):
        found.append(causes.forbidden("spec.clusterIPs[0]", "may not be set for ExternalName services"))
    return found


def _ports(spec: Obj, headless: bool) -> list[Cause]:
    found: list[Cause] = []
    ports = spec.get("ports") or []
    kind = spec.get("type")
    taken: set[str] = set()
    pairs: set[tuple[str, int]] = set()
    node_ports: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        here = f"spec.ports[{index}]"
        name = port.get("name") or ""
        if not name and len(ports) > 1:
            found.append(causes.required(f"{here}.name"))
        elif name:
            if name in taken:
                found.append(causes.duplicate(f"{here}.name", name))
            taken.add(name)
        target = port.get("targetPort")
        if target is not None and (target or not headless):
            found += containers.port_or_name(target, f"{here}.targetPort")
        protocol = port.get("protocol") or "TCP"
        pair = (protocol, port.get("port") or 0)
        if pair in pairs:
            found.append(causes.duplicate(here, {"protocol": protocol, "port": pair[1]}))
        pairs.add(pair)
        node_port = port.get("nodePort") or 0
        if node_port:
            if kind not in ("NodePort", "LoadBalancer"):
                detail = f"may not be used when `type` is '{kind}'"
                found.append(causes.forbidden(f"{here}.nodePort", detail))
            elif node_port not in NODE_PORTS:
                detail = (
                    f"provided port is not in the valid range. The range of valid ports is "
                    f"{NODE_PORTS[0]}-{NODE_PORTS[-1]}"
                )
                found.append(causes.invalid(f"{here}.nodePort", node_port, detail))
            if (protocol, node_port) in node_ports:
                found.append(causes.duplicate(f"{here}.nodePort", node_port))
            node_ports.add((protocol, node_port))
    return found


def _addresses(spec: Obj) -> list[Cause]:
    found: list[Cause] = []
    cluster_ips = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    for index, address in enumerate(cluster_ips):
        if address != "None" and not _is_ip(address):
            found.append(causes.invalid(f"spec.clusterIPs[{index}]", address, _IP_DETAIL))
    if spec.get("clusterIP") and spec.get("clusterIPs") and spec["clusterIPs"][0] != spec["clusterIP"]:
        found.append(causes.invalid("spec.clusterIPs", spec["clusterIPs"], "first value must match `clusterIP`"))
    for index, address in enumerate(spec.get("externalIPs") or ()):
        if not _is_ip(address):
            found.append(causes.invalid(f"spec.externalIPs[{index}]", address, _IP_DETAIL))
        else:
            ip = ipaddress.ip_address(address)
            for bad, why in (
                (ip.is_unspecified, f"may not be unspecified ({address})"),
                (ip.is_loopback, "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
                (ip.is_link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
                (ip.is_multicast, "may not be in the multicast range (224.0.0.0/4, ff00::/10)"),
            ):
                if bad:
                    found.append(causes.invalid(f"spec.externalIPs[{index}]", address, why))
    families = spec.get("ipFamilies") or []
    if len(set(families)) != len(families):
        found.append(causes.duplicate(f"spec.ipFamilies[{len(families) - 1}]", families[-1]))
    for index, block in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        try:
            ipaddress.ip_network(block.strip(), strict=False)
        except ValueError:
            detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            found.append(causes.invalid(f"spec.loadBalancerSourceRanges[{index}]", block, detail))
    return found


def _policies(spec: Obj, kind: str | None) -> list[Cause]:
    found: list[Cause] = []
    external = kind in ("NodePort", "LoadBalancer") or bool(spec.get("externalIPs"))
    if spec.get("externalTrafficPolicy") and not external:
        detail = "may only be set for externally-accessible services"
        found.append(causes.invalid("spec.externalTrafficPolicy", spec["externalTrafficPolicy"], detail))
    if kind != "LoadBalancer":
        for field, shown in (
            ("loadBalancerSourceRanges", "LoadBalancer"),
            ("allocateLoadBalancerNodePorts", "LoadBalancer"),
            ("loadBalancerClass", "LoadBalancer"),
        ):
            if spec.get(field) not in (None, [], ""):
                detail = f"may only be used when `type` is '{shown}'"
                found.append(causes.forbidden(f"spec.{field}", detail))
    if spec.get("healthCheckNodePort") and not (
        kind == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"
    ):
        detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        found.append(causes.invalid("spec.healthCheckNodePort", spec["healthCheckNodePort"], detail))
    return found


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def update(new: Obj, old: Obj) -> list[Cause]:
    """A changed Service: its address stays while its type needs one."""
    found = create(new)
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    needs_ip = "ExternalName" not in (spec.get("type"), before.get("type"))
    if needs_ip and before.get("clusterIP") and spec.get("clusterIP") != before["clusterIP"]:
        value = spec.get("clusterIPs") or spec.get("clusterIP") or ""
        found.append(causes.invalid("spec.clusterIPs[0]", value, "may not change once set"))
    lasting = before.get("loadBalancerClass") and spec.get("type") == before.get("type") == "LoadBalancer"
    given = spec.get("loadBalancerClass")
    if lasting and given != before["loadBalancerClass"]:
        found.append(causes.invalid("spec.loadBalancerClass", given, "may not change once set"))
    return found


def endpoints(obj: Obj) -> list[Cause]:
    """Endpoints."""
    found: list[Cause] = []
    for index, subset in enumerate(obj.get("subsets") or ()):
        here = f"subsets[{index}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            found.append(causes.required(here, "must specify `addresses` or `notReadyAddresses`"))
        for field in ("addresses", "notReadyAddresses"):
            for place, address in enumerate(subset.get(field) or ()):
                found += endpoint_ip(address.get("ip") or "", f"{here}.{field}[{place}].ip")
        ports = subset.get("ports") or ()
        for place, port in enumerate(ports):
            if len(ports) > 1 and not port.get("name"):
                found.append(causes.required(f"{here}.ports[{place}].name"))
    return found


def endpoint_ip(address: str, path: str) -> list[Cause]:
    """An address that traffic may be sent to: no loopback, link-local or multicast, which reach the node itself."""
    if not address:
        return []
    if not _is_ip(address):
        return [causes.invalid(path, address, _IP_DETAIL)]
    ip = ipaddress.ip_address(address)
    for bad, why in (
        (ip.is_unspecified, f"may not be unspecified ({address})"),
        (ip.is_loopback, "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (ip.is_link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (ip.is_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    ):
        if bad:
            return [causes.invalid(path, address, why)]
    return []


def endpoint_slice(obj: Obj) -> list[Cause]:
    """An EndpointSlice."""
    found: list[Cause] = []
    endpoints_here = obj.get("endpoints") or []
    if len(endpoints_here) > 1000:
        found.append(causes.too_many("endpoints", len(endpoints_here), 1000))
    kind = obj.get("addressType")
    for index, endpoint in enumerate(endpoints_here):
        addresses = endpoint.get("addresses") or []
        here = f"endpoints[{index}].addresses"
        if len(addresses) > 100:
            found.append(causes.too_many(here, len(addresses), 100))
        for place, address in enumerate(addresses):
            at = f"{here}[{place}]"
            if kind == "FQDN":
                found += [causes.invalid(at, address, why) for why in names.dns_subdomain(address)]
                continue
            wrong = endpoint_ip(address, at)
            if not wrong and (":" in address) != (kind == "IPv6"):
                wrong = [causes.invalid(at, address, f"must be an {kind} address")]
            found += wrong
    taken: set[str] = set()
    for index, port in enumerate(obj.get("ports") or ()):
        name = port.get("name") or ""
        if name in taken:
            found.append(causes.duplicate(f"ports[{index}].name", name))
        taken.add(name)
    return found


def update_endpoint_slice(new: Obj, old: Obj) -> list[Cause]:
    """A changed EndpointSlice: its address type stays."""
    found = endpoint_slice(new)
    if new.get("addressType") != old.get("addressType"):
        found.append(causes.immutable("addressType", new.get("addressType", "")))
    return found
