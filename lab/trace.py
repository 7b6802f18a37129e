"""A packet's way from a pod to an address, told by the components that would carry it: DNS, proxy, policies.

Every answer comes over gRPC from the live rulesets: the DNS server and the proxy of the pod's own node, then the proxy
of each node that the packet may arrive at. A URL is followed through an Ingress: its route is asked of the ingress
controller, and from there on the packet is the node's own.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

import grpc

from lab import admin, trace_ingress
from lab.cluster import Cluster
from lab.errors import LabError
from machinery.api import errors, kinds
from machinery.component.tls import TlsFiles, channel_credentials
from protos.cutaway.v1 import (
    dns_pb2,
    dns_pb2_grpc,
    ingress_pb2,
    ingress_pb2_grpc,
    kube_proxy_pb2,
    kube_proxy_pb2_grpc,
)

PROXY_PORT = 10349
DNS_PORT = 10353
ASK_SECONDS = 5.0
DEFAULT_PORT = 80


INGRESS_PORT = 10354


@dataclass(frozen=True, slots=True)
class Target:
    """Where the packet is sent: a name or an address, and a port. With a path it is a request for a web page."""

    host: str
    port: int
    path: str = ""


def parse(text: str) -> Target:
    """ADDRESS[:PORT], or http[s]://ADDRESS[:PORT][/PATH]. Raises LabError."""
    scheme, slashes, rest = text.partition("://")
    address, _, path = rest.partition("/") if slashes else (text, "", "")
    host, _, port = address.partition(":")
    default = 443 if slashes and scheme == "https" else DEFAULT_PORT
    number = int(port) if port.isdigit() else default if not port else 0
    if not host or not 0 < number < 65536 or (slashes and scheme not in ("http", "https")):
        way_out = "such as web:8080, web.shop:80, 10.96.0.10:53 or http://www.example.test/path"
        raise LabError(f"{text}: not an address with a port", way_out)
    return Target(host, number, "/" + path.partition("?")[0] if slashes else "")


def candidates(name: str, namespace: str, domain: str = "cluster.local") -> list[str]:
    """The names that a pod's resolver tries, in its order (search path, ndots 5)."""
    suffixes = [f"{namespace}.svc.{domain}", f"svc.{domain}", domain]
    if name.endswith("."):
        return [name.rstrip(".")]
    longer = [f"{name}.{suffix}" for suffix in suffixes]
    return [*longer, name] if name.count(".") < 5 else [name, *longer]


async def run(cluster: Cluster, pod: str, namespace: str, target: Target, protocol: str) -> list[str]:
    """The way, line by line. Raises LabError if the pod is not there or has no address yet."""
    client = await admin.client(cluster)
    try:
        try:
            source = await client.get(kinds.POD, pod, namespace)
        except errors.NotFound as error:
            raise LabError(str(error), "`cutaway kubectl get pods -A` shows what there is") from error
        pods = (await client.list(kinds.POD)).items
        nodes = (await client.list(kinds.NODE)).items
    finally:
        await client.close()
    ip, node = source.status.podIP if source.status else None, source.spec.nodeName
    if not ip or not node:
        raise LabError(
            f"pod {namespace}/{pod} has no address yet", f"`cutaway kubectl describe pod -n {namespace} {pod}`"
        )
    channels = _Channels(cluster, nodes)
    try:
        lines = [f"from   pod {namespace}/{pod}, {ip}, on {node}"]
        destination = await _resolve(channels, node, target.host, namespace, lines)
        if target.path:
            return lines + await _ingress(channels, pods, nodes, node, destination, target)
        if destination is None:
            return lines
        return lines + await _walk(channels, pods, (ip, node), Target(destination, target.port), protocol)
    except grpc.aio.AioRpcError as error:
        raise LabError(f"a component did not answer: {error.details()}", "`cutaway status` shows which") from error
    finally:
        await channels.close()


async def _walk(
    channels: _Channels, pods: list[Any], source: tuple[str, str], target: Target, protocol: str
) -> list[str]:
    (ip, node), destination = source, target.host
    lines: list[str] = []
    question = kube_proxy_pb2.TraceRequest(
        source_ip=ip, destination_ip=destination, port=target.port, protocol=protocol
    )
    found = await channels.proxy(node).Trace(question, timeout=ASK_SECONDS)
    for step in found.steps:
        lines.append(f"rules  {step.at}: {step.action}" + (f"  [{step.rule}]" if step.rule else ""))
    if found.verdict in ("reject", "drop"):
        lines.append(f"end    {'the caller is told: refused' if found.verdict == 'reject' else 'dropped in silence'}")
        return lines
    ends = [(end.ip, end.port, end.node) for end in found.endpoints] or [(destination, target.port, "")]
    owners = {p.status.podIP: p for p in pods if p.status and p.status.podIP and not p.spec.hostNetwork}
    for end_ip, end_port, end_node in ends:
        owner = owners.get(end_ip)
        where = owner.spec.nodeName if owner is not None else end_node
        name = f"pod {owner.metadata.namespace}/{owner.metadata.name}" if owner is not None else "no pod of the cluster"
        lines.append(f"to     {end_ip}:{end_port}, {name}" + (f", on {where}" if where else ""))
        request = kube_proxy_pb2.TraceRequest(source_ip=ip, destination_ip=end_ip, port=end_port, protocol=protocol)
        lines += await _policies(channels, request, node, where if owner is not None else "")
    return lines


async def _ingress(
    channels: _Channels, pods: list[Any], nodes: list[Any], source_node: str, destination: str | None, target: Target
) -> list[str]:
    """From the ingress controller of the node that the name is, or else of the pod's own: a name that the cluster does
    not know is what Ingresses are for."""
    addresses = {address: name for name, address in node_addresses(nodes).items()}
    if destination is not None and destination not in addresses:
        return [f"end    {destination} is no node's: `cutaway trace` it as {target.host}:{target.port}"]
    node = addresses[destination] if destination else source_node
    ip = next(address for address, name in addresses.items() if name == node)
    answer = await channels.ingress(node).ListRoutes(ingress_pb2.ListRoutesRequest(), timeout=ASK_SECONDS)
    lines = [f"node   {node}, {ip}: its ingress controller has {len(answer.routes)} routes"]
    if answer.proxy_error:
        lines.append(f"node   its proxy has not taken them: {answer.proxy_error}")
    if trace_ingress.has_regex(answer.routes, target.host):
        lines.append("route  paths of this host that are regular expressions come before all others: not judged here")
    route = trace_ingress.choose(answer.routes, target.host, target.path)
    if route is None:
        return [*lines, f"end    no Ingress serves {target.host}{target.path}: 404"]
    lines.append(f"route  {trace_ingress.describe(route)}")
    if route.error or not route.endpoints:
        return [*lines, "end    503: " + ("the route is not served" if route.error else "no endpoint is ready")]
    for endpoint in route.endpoints:
        end, _, port = endpoint.rpartition(":")
        lines += await _walk(channels, pods, (ip, node), Target(end, int(port)), "TCP")
    return lines


async def _resolve(channels: _Channels, node: str, host: str, namespace: str, lines: list[str]) -> str | None:
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        pass
    for name in candidates(host, namespace):
        answer = await channels.dns(node).ListRecords(dns_pb2.ListRecordsRequest(name=name), timeout=ASK_SECONDS)
        records = [record for record in answer.records if record.name == name.lower()]
        addresses = [record.data for record in records if record.type == "A"]
        if addresses:
            lines.append(f"dns    {name} is {', '.join(addresses)}")
            return str(addresses[0])
        if alias := next((record.data for record in records if record.type == "CNAME"), ""):
            lines.append(f"dns    {name} is an alias of {alias}, which is outside what the cluster knows")
            return None
    lines.append(f"dns    the cluster has no name {host}; an upstream server is asked")
    return None


async def _policies(
    channels: _Channels, request: kube_proxy_pb2.TraceRequest, source_node: str, end_node: str
) -> list[str]:
    lines = []
    asked = [(source_node, "egress"), *([(end_node, "ingress")] if end_node else [])]
    for node, direction in asked:
        answer = await channels.proxy(node).TracePolicy(request, timeout=ASK_SECONDS)
        lines += [f"policy {sentence(v, node)}" for v in answer.verdicts if v.direction == direction]
    return lines or ["policy none: neither side is isolated"]


def sentence(verdict: kube_proxy_pb2.PolicyVerdict, node: str) -> str:
    """A verdict in words."""
    if verdict.held:
        return f"{verdict.direction} on {node}: held, because the pod's address is not known yet"
    if verdict.allowed:
        return f"{verdict.direction} on {node}: allowed by {verdict.allowed_by}"
    return f"{verdict.direction} on {node}: dropped; {', '.join(verdict.policies)} isolate the pod and none allows it"


def node_addresses(nodes: list[Any]) -> dict[str, str]:
    """Node -> the address at which the others reach it."""
    return {n.metadata.name: a.address for n in nodes for a in n.status.addresses or [] if a.type == "InternalIP"}


class _Channels:
    """One channel for each component that is asked, on nodes of this machine and on hosts that joined."""

    def __init__(self, cluster: Cluster, nodes: list[Any]) -> None:
        mine = admin.identity(cluster)
        files = TlsFiles(ca_file=str(mine.ca_file), cert_file=str(mine.cert_file), key_file=str(mine.key_file))
        self.addresses = node_addresses(nodes)
        self.credentials = channel_credentials(files)
        self.open: dict[str, grpc.aio.Channel] = {}

    def _channel(self, node: str, port: int) -> grpc.aio.Channel:
        if node not in self.addresses:
            raise LabError(f"node {node!r} has no address yet", f"`cutaway kubectl describe node {node}`")
        address = f"{self.addresses[node]}:{port}"
        if address not in self.open:
            self.open[address] = grpc.aio.secure_channel(address, self.credentials)
        return self.open[address]

    def proxy(self, node: str) -> Any:
        """The proxy of a node."""
        return kube_proxy_pb2_grpc.KubeProxyStub(self._channel(node, PROXY_PORT))  # type: ignore[no-untyped-call]

    def dns(self, node: str) -> Any:
        """The DNS server of a node."""
        return dns_pb2_grpc.DnsStub(self._channel(node, DNS_PORT))  # type: ignore[no-untyped-call]

    def ingress(self, node: str) -> Any:
        """The ingress controller of a node."""
        return ingress_pb2_grpc.IngressStub(self._channel(node, INGRESS_PORT))  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        """Close them all."""
        for channel in self.open.values():
            await channel.close()
