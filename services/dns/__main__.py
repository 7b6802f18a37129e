"""`python -m services.dns --config FILE`: the DNS server of one node."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec

from machinery.api import kinds
from machinery.api.service_views import EndpointSlice, Namespace, Service, slice_service
from machinery.client.api_client import ApiClient
from machinery.client.informer import Informer
from machinery.component import config, grpc_server, http_server, process
from machinery.component.config import ComponentConfig
from protos.cutaway.v1 import dns_pb2, dns_pb2_grpc
from services.dns.forward import Forwarder, system_servers
from services.dns.publish import publish
from services.dns.server import Responder, Tcp, Udp
from services.dns.service import DnsService
from services.dns.watch import ZoneWatch
from services.dns.zone import Zone


class DnsConfig(ComponentConfig):
    """The DNS server's own settings."""

    address: Annotated[str, msgspec.Meta(description="Where to answer; a node's own address")] = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(description="Port for UDP and TCP", ge=1, le=65535)] = 53
    domain: Annotated[str, msgspec.Meta(description="The cluster's domain")] = "cluster.local"
    upstream: Annotated[list[str], msgspec.Meta(description="Servers for other names; empty: /etc/resolv.conf's")] = []
    stub_domains: Annotated[dict[str, list[str]], msgspec.Meta(description="Domain to its own servers")] = {}
    node_name: Annotated[str, msgspec.Meta(description="Publish as kube-dns endpoint of this node; empty: no")] = ""


async def serve(ctx: process.Context[DnsConfig]) -> None:
    """Build the parts and run them."""
    settings = ctx.config
    client = await ApiClient.connect(settings.apiserver, settings.tls, user_agent="dns")
    ctx.on_stop(client.close)
    zone = Zone(settings.domain.strip(".").lower())
    services: Informer[Service] = Informer(client, kinds.SERVICE, decode=msgspec.json.Decoder(Service).decode)
    slices: Informer[EndpointSlice] = Informer(
        client,
        kinds.ENDPOINT_SLICE,
        decode=msgspec.json.Decoder(EndpointSlice).decode,
        indexers={"service": slice_service},
    )
    namespaces: Informer[Namespace] = Informer(client, kinds.NAMESPACE, decode=msgspec.json.Decoder(Namespace).decode)
    watch = ZoneWatch(zone, services, slices, namespaces)
    informers: tuple[Informer[Any], ...] = (services, slices, namespaces)
    for informer in informers:
        ctx.tasks.create_task(informer.run(), name=f"informer {informer.kind.plural}")
    responder = Responder(
        zone, Forwarder(settings.upstream or system_servers(), settings.stub_domains), watch.namespaces
    )
    await _listen(ctx, responder)
    ctx.health.add_ready(
        "zone", lambda: None if all(i.synced.is_set() for i in informers) else "the cluster's names are not read yet"
    )
    if settings.grpc_address:
        service = DnsService(zone, lambda: min(services.revision, slices.revision))
        server = await grpc_server.serve(
            settings,
            lambda server: dns_pb2_grpc.add_DnsServicer_to_server(service, server),  # type: ignore[no-untyped-call]
            service_names=[dns_pb2.DESCRIPTOR.services_by_name["Dns"].full_name],
        )
        ctx.on_stop(server.stop)
    if settings.http_address:
        web = await http_server.serve(settings, ctx.health)
        ctx.on_stop(web.stop)
    for informer in informers:
        await informer.synced.wait()
    if settings.node_name:
        await publish(client, settings.node_name, settings.address, settings.port)
    await ctx.stopping.wait()


async def _listen(ctx: process.Context[DnsConfig], responder: Responder) -> None:
    settings, loop = ctx.config, asyncio.get_running_loop()
    try:
        transport, _ = await loop.create_datagram_endpoint(
            lambda: Udp(responder, ctx.tasks), local_addr=(settings.address, settings.port)
        )
        server = await asyncio.start_server(Tcp(responder).converse, settings.address, settings.port)
    except OSError as error:
        raise process.Fatal(f"cannot listen on {settings.address}:{settings.port}: {error.strerror}") from error

    async def close() -> None:
        transport.close()
        server.close()

    ctx.on_stop(close)


def main() -> None:
    """Run the DNS server."""
    process.run(serve, config.load(DnsConfig, prog="dns"))


if __name__ == "__main__":
    main()
