"""`python -m services.kube_proxy --config FILE`: the proxy of one node."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from machinery.api import kinds
from machinery.api.kinds import Kind
from machinery.api.service_views import EndpointSlice, Namespace, Service, slice_service
from machinery.client.api_client import ApiClient
from machinery.client.events import EventRecorder
from machinery.client.informer import Informer, Packed
from machinery.component import config, grpc_server, http_server, process
from machinery.component.config import ComponentConfig
from protos.cutaway.v1 import kube_proxy_pb2, kube_proxy_pb2_grpc
from services.kube_proxy import api, conntrack, ip_program, node_watch
from services.kube_proxy.announce import BALANCED, Announcer, is_balanced
from services.kube_proxy.health_check import HealthChecks
from services.kube_proxy.health_http import Health, serve_health
from services.kube_proxy.network import LOOK_SECONDS, Hop, PodNetwork
from services.kube_proxy.nft import NftError
from services.kube_proxy.nft_library import open_nft
from services.kube_proxy.policy.agent import PolicyAgent, leave
from services.kube_proxy.proxy import Proxy
from services.kube_proxy.ruleset import Settings
from services.kube_proxy.service import KubeProxyService


class KubeProxyConfig(ComponentConfig):
    """The proxy's own settings."""

    node_name: Annotated[str, msgspec.Meta(description="Name of this node")] = ""
    cluster_cidr: Annotated[str, msgspec.Meta(description="Range of all pod addresses")] = "10.244.0.0/16"
    node_port_addresses: Annotated[list[str], msgspec.Meta(description="Where node ports are served; empty: all")] = []
    masquerade_all: Annotated[bool, msgspec.Meta(description="Replace every packet's source")] = False
    healthz_addresses: Annotated[
        list[str], msgspec.Meta(description="Answer balancers' plain HTTP health checks here, 0.0.0.0:10256 by custom")
    ] = []
    services: Annotated[bool, msgspec.Meta(description="Serve Services; off where another proxy does")] = True
    network_policy: Annotated[bool, msgspec.Meta(description="Enforce NetworkPolicies; off where another does")] = True
    announce: Annotated[bool, msgspec.Meta(description="Answer ARP for load balancers' addresses")] = True
    pod_network: Annotated[bool, msgspec.Meta(description="Keep routes to the pods of other nodes")] = True


class _Parts:
    """What `serve` builds, each part on those before it."""

    def __init__(self, ctx: process.Context[KubeProxyConfig], client: ApiClient) -> None:
        self.ctx = ctx
        self.settings = ctx.config
        self.client = client
        self.nft = open_nft()
        self.network: PodNetwork | None = None
        self.nodes = self.informer(kinds.NODE, api.Node)

    def informer(self, kind: Kind, model: type, **options: Any) -> Informer[Any]:
        """Follow a kind, with just the fields of our model."""
        informer: Informer[Any] = Informer(self.client, kind, decode=msgspec.json.Decoder(model).decode, **options)
        self.ctx.tasks.create_task(informer.run(), name=f"informer {kind.plural}")
        return informer

    async def pod_network(self) -> None:
        """Routes to other nodes' pods."""
        events = EventRecorder(self.client, "kube-proxy", self.settings.node_name)
        self.ctx.tasks.create_task(events.run(), name="events")

        def tell(node: api.Node, why: str) -> None:
            subject = {"kind": "Node", "name": node.metadata.name, "uid": node.metadata.uid}
            events.record(subject, "Warning", "PodCIDRRefused", why)

        network = PodNetwork(self.settings.node_name, self.settings.cluster_cidr, self.nft, tell)
        try:
            await network.start()
        except NftError as error:
            raise process.Fatal(str(error)) from error
        self.network = network
        self.ctx.tasks.create_task(node_watch.follow(self.nodes, network.update, LOOK_SECONDS), name="pod routes")

    def routes(self) -> Mapping[str, Hop]:
        """The routes to other nodes' pods that are set."""
        return (self.network.installed if self.network else None) or {}

    def policies(self) -> PolicyAgent:
        """Rules of NetworkPolicies."""
        models = {"pods": (kinds.POD, api.Pod), "namespaces": (kinds.NAMESPACE, Namespace)}

        def pod_cidr() -> str:
            node = self.nodes.lister.by_key(self.settings.node_name)
            return (node.spec.pod_cidr or "") if node is not None and node.spec is not None else ""

        agent = PolicyAgent(
            self.informer(kinds.NETWORK_POLICY, api.NetworkPolicy),
            lambda name: self.informer(*models[name]),
            self.nft,
            self.settings.node_name,
            pod_cidr,
            self.settings.cluster_cidr,
        )

        async def node_changed(_: list[api.Node]) -> None:
            agent.wake.set()

        self.ctx.tasks.create_task(node_watch.follow(self.nodes, node_changed), name="own pod range")
        self.ctx.tasks.create_task(agent.run(), name="policies")
        self.ctx.health.add_ready(
            "policies", lambda: None if agent.current is not None else "policies are not written yet"
        )
        return agent

    async def no_policies(self) -> None:
        """What an earlier run enforced must not outlive the switch."""
        try:
            await leave(self.nft)
        except NftError as error:
            raise process.Fatal(str(error)) from error

    def service_rules(self) -> Proxy:
        """Rules of Services, and what goes with them."""
        settings, tasks = self.settings, self.ctx.tasks
        proxy = Proxy(
            self.informer(kinds.SERVICE, Service, indexers={BALANCED: is_balanced}, packing=Packed(Service)),
            self.informer(
                kinds.ENDPOINT_SLICE,
                EndpointSlice,
                indexers={"service": slice_service},
                packing=Packed(EndpointSlice),
            ),
            self.nft,
            Settings(
                settings.node_name,
                settings.cluster_cidr,
                tuple(settings.node_port_addresses),
                settings.masquerade_all,
            ),
        )

        async def learn_zone(nodes: list[api.Node]) -> None:
            proxy.set_zone(node_watch.zone_of(nodes, settings.node_name))

        checks, cleaner = HealthChecks(), conntrack.Cleaner(proxy.udp_ports, ip_program.node_addresses)
        proxy.listeners += [checks.changed, cleaner.changed]
        self.ctx.health.add_ready("rules", lambda: None if proxy.is_written else "the rules are not written yet")
        for name, loop in {
            "proxy": proxy.run(),
            "health checks": checks.run(),
            "conntrack": cleaner.run(),
            **({"load balancer addresses": self._announcer(proxy).run()} if settings.announce else {}),
            "zone": node_watch.follow(self.nodes, learn_zone),
        }.items():
            tasks.create_task(loop, name=name)
        return proxy

    async def health(self, proxy: Proxy) -> None:
        """Answers for balancers in front."""

        def health() -> Health:
            return Health(proxy.is_written, proxy.pending_since, self.nodes.lister.by_key(self.settings.node_name))

        for server in await serve_health(self.settings.healthz_addresses, health):

            async def close(server: asyncio.Server = server) -> None:
                server.close()

            self.ctx.on_stop(close)

    def _announcer(self, proxy: Proxy) -> Announcer:
        announcer = Announcer(
            self.settings.node_name,
            lambda: proxy.services.lister.by_index(BALANCED, BALANCED),
            lambda service: proxy.slices.lister.by_index("service", service),
            self.nodes.lister.list,
        )

        def wake(_before: object, _after: object) -> None:
            announcer.wake.set()

        async def node_changed(_: list[api.Node]) -> None:
            announcer.wake.set()

        proxy.listeners.append(wake)
        self.ctx.tasks.create_task(node_watch.follow(self.nodes, node_changed), name="nodes that may announce")
        return announcer


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Network(text, strict=False)
    except ValueError:
        return False
    return True


async def serve(ctx: process.Context[KubeProxyConfig]) -> None:
    """Build the parts and run them."""
    settings = ctx.config
    if not settings.node_name:
        raise process.Fatal("node_name: needs the name of this node")
    for name, ranges in (
        ("cluster_cidr", [settings.cluster_cidr]),
        ("node_port_addresses", settings.node_port_addresses),
    ):
        for text in filter(None, ranges):
            if not _is_ipv4(text):
                raise process.Fatal(f"{name}: {text!r} is no IPv4 range; this proxy serves IPv4 only")
    client = await ApiClient.connect(settings.apiserver, settings.tls, user_agent="kube-proxy")
    ctx.on_stop(client.close)
    parts = _Parts(ctx, client)
    if settings.pod_network:
        await parts.pod_network()
    policies = parts.policies() if settings.network_policy else None
    if policies is None:
        await parts.no_policies()
    if settings.services:
        proxy = parts.service_rules()
        await parts.health(proxy)
        if settings.grpc_address:
            server = await grpc_server.serve(
                settings,
                lambda server: kube_proxy_pb2_grpc.add_KubeProxyServicer_to_server(  # type: ignore[no-untyped-call]
                    KubeProxyService(proxy, policies, parts.routes), server
                ),
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
