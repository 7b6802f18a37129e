"""`python -m services.kube_proxy --config FILE`: the proxy of one node."""

from __future__ import annotations

from typing import Annotated

import msgspec
from machinery.client.api_client import ApiClient
from machinery.client.informer import Informer

from machinery.api import kinds
from machinery.component import config, grpc_server, http_server, process
from machinery.component.config import ComponentConfig
from protos.cutaway.v1 import kube_proxy_pb2, kube_proxy_pb2_grpc
from services.kube_proxy.network import PodNetwork
from services.kube_proxy.nft import NftCommand, NftError
from services.kube_proxy.node_watch import keep_routes
from services.kube_proxy.proxy import Proxy, slice_service
from services.kube_proxy.ruleset import Settings
from services.kube_proxy.service import KubeProxyService


class KubeProxyConfig(ComponentConfig):
    """The proxy's own settings."""

    node_name: Annotated[str, msgspec.Meta(description="Name of this node")] = ""
    cluster_cidr: Annotated[str, msgspec.Meta(description="Range of all pod addresses")] = "10.244.0.0/16"
    node_port_addresses: Annotated[list[str], msgspec.Meta(description="Where node ports are served; empty: all")] = []
    masquerade_all: Annotated[bool, msgspec.Meta(description="Replace every packet's source")] = False
    services: Annotated[bool, msgspec.Meta(description="Serve Services; off where another proxy does")] = True
    pod_network: Annotated[bool, msgspec.Meta(description="Keep routes to the pods of other nodes")] = True


async def serve(ctx: process.Context[KubeProxyConfig]) -> None:
    """Build the parts and run them."""
    settings = ctx.config
    if not settings.node_name:
        raise process.Fatal("node_name: needs the name of this node")
    client = await ApiClient.connect(settings.apiserver, settings.tls, user_agent="kube-proxy")
    ctx.on_stop(client.close)
    nft = NftCommand()
    if settings.pod_network:
        network = PodNetwork(settings.node_name, settings.cluster_cidr, nft)
        try:
            await network.start()
        except NftError as error:
            raise process.Fatal(str(error)) from error
        nodes = Informer(client, kinds.NODE)
        ctx.tasks.create_task(nodes.run(), name="informer nodes")
        ctx.tasks.create_task(keep_routes(nodes, network), name="pod routes")
    if settings.services:
        services = Informer(client, kinds.SERVICE)
        slices = Informer(client, kinds.ENDPOINT_SLICE, indexers={"service": slice_service})
        proxy = Proxy(
            services,
            slices,
            nft,
            Settings(
                settings.node_name,
                settings.cluster_cidr,
                tuple(settings.node_port_addresses),
                settings.masquerade_all,
            ),
        )
        ctx.health.add_ready("rules", lambda: None if proxy.applied is not None else "the rules are not written yet")
        ctx.tasks.create_task(services.run(), name="informer services")
        ctx.tasks.create_task(slices.run(), name="informer endpointslices")
        ctx.tasks.create_task(proxy.run(), name="proxy")
        if settings.grpc_address:
            server = await grpc_server.serve(
                settings,
                lambda server: kube_proxy_pb2_grpc.add_KubeProxyServicer_to_server(KubeProxyService(proxy), server),
                service_names=[kube_proxy_pb2.DESCRIPTOR.services_by_name["KubeProxy"].full_name],
            )
            ctx.on_stop(server.stop)
    if settings.http_address:
        web = await http_server.serve(settings, ctx.health)
        ctx.on_stop(web.stop)
    await ctx.stopping.wait()


def main() -> None:
    """Run the proxy."""
    process.run(serve, config.load(KubeProxyConfig, prog="kube-proxy"))


if __name__ == "__main__":
    main()
