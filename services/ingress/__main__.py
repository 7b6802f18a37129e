"""`python -m services.ingress --config FILE`: the ingress controller of one node, with its HAProxy."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Annotated, Any

import msgspec

from machinery.api import kinds
from machinery.api.kinds import Kind
from machinery.api.service_views import EndpointSlice, Service, slice_service
from machinery.client.api_client import ApiClient
from machinery.client.events import EventRecorder
from machinery.client.informer import Informer
from machinery.component import config, grpc_server, http_server, process
from machinery.component.config import ComponentConfig
from protos.cutaway.v1 import ingress_pb2, ingress_pb2_grpc
from services.ingress import api, certificates, classes, haproxy, presence
from services.ingress.haproxy import Haproxy
from services.ingress.render import DEFAULT_CERTIFICATE, Settings
from services.ingress.secrets import CertificateCache
from services.ingress.service import IngressService
from services.ingress.sync import Sync, World
from services.ingress.writer import Writer

DEFAULT_CERTIFICATE_DAYS_MIN = 30
# A unix socket's path has at most 107 characters, and HAProxy binds "NAME.PID.tmp" first.
RUN_DIR_CHARS_MAX = 80


class IngressConfig(ComponentConfig):
    """The ingress controller's own settings."""

    node_name: Annotated[str, msgspec.Meta(description="Enter this node's address into Ingresses; empty: no")] = ""
    address: Annotated[str, msgspec.Meta(description="Where to serve; a node's own address")] = "127.0.0.1"
    published_address: Annotated[str, msgspec.Meta(description="Told to Ingresses instead, where NAT is between")] = ""
    http_port: Annotated[int, msgspec.Meta(description="Port for HTTP", ge=1, le=65535)] = 80
    https_port: Annotated[int, msgspec.Meta(description="Port for HTTPS", ge=1, le=65535)] = 443
    run_dir: Annotated[str, msgspec.Meta(description="Folder for the proxy's files and sockets")] = (
        "/run/cutaway-ingress"
    )
    proxy_metrics_address: Annotated[
        str, msgspec.Meta(description="host:port of the proxy's /metrics; empty: none")
    ] = ""
    controller: Annotated[str, msgspec.Meta(description="Serve classes with this spec.controller")] = classes.CONTROLLER
    haproxy: Annotated[str, msgspec.Meta(description="HAProxy's program; empty: found on the usual path")] = ""
    access_log: Annotated[bool, msgspec.Meta(description="Write each request to standard output, as JSON")] = True
    connections_max: Annotated[int, msgspec.Meta(description="Connections at once", ge=10)] = 4000
    threads: Annotated[int, msgspec.Meta(description="The proxy's threads; 0: one a core", ge=0, le=64)] = 0


class _Watches:
    """The informers, and what is asked of them."""

    def __init__(self, ctx: process.Context[IngressConfig], client: ApiClient) -> None:
        self.controller = ctx.config.controller

        def follow(kind: Kind, model: type, **options: Any) -> Informer[Any]:
            informer: Informer[Any] = Informer(client, kind, decode=msgspec.json.Decoder(model).decode, **options)
            ctx.tasks.create_task(informer.run(), name=f"informer {kind.plural}")
            return informer

        self.ingresses = follow(kinds.INGRESS, api.Ingress)
        self.classes = follow(kinds.INGRESS_CLASS, api.IngressClass)
        self.services = follow(kinds.SERVICE, Service)
        self.slices = follow(kinds.ENDPOINT_SLICE, EndpointSlice, indexers={"service": slice_service})
        # No other Secrets: what this process does not hold, nobody gets from it.
        self.secrets = follow(kinds.SECRET, api.Secret, field_selector=f"type={certificates.TLS_TYPE}")
        self.nodes = follow(kinds.NODE, api.Node)
        self.all = (self.ingresses, self.classes, self.services, self.slices, self.secrets, self.nodes)

    def own_ingresses(self) -> list[api.Ingress]:
        """The Ingresses of this controller, the oldest first."""
        return classes.ours(self.ingresses.lister, self.classes.lister, self.controller)

    def own_slices(self) -> list[EndpointSlice]:
        """The slices by which instances are known."""
        return list(self.slices.lister.by_index("service", f"{presence.NAMESPACE}/{presence.SERVICE}"))

    def unsynced(self) -> str | None:
        """What was not read yet; None: all was."""
        missing = [informer.kind.plural for informer in self.all if not informer.has_synced]
        return f"not read yet: {', '.join(missing)}" if missing else None


async def serve(ctx: process.Context[IngressConfig]) -> None:
    """Build the parts and run them."""
    settings = ctx.config
    program = settings.haproxy or haproxy.find_program()
    if not program:
        raise process.Fatal("HAProxy is not installed: apt-get install haproxy, or name it by --haproxy")
    run = _run_folder(settings)
    client = await ApiClient.connect(settings.apiserver, settings.tls, user_agent="ingress")
    ctx.on_stop(client.close)
    watches = _Watches(ctx, client)
    cache = CertificateCache(watches.secrets.lister.by_key)
    world = World(
        watches.own_ingresses, watches.services.lister.by_key,
        lambda service: watches.slices.lister.by_index("service", service), cache.certificate_of,
    )  # fmt: skip
    proxy_settings = _proxy_settings(settings, run)
    proxy = Haproxy(proxy_settings, program)
    sync = Sync(world, proxy, proxy_settings, _default_certificate(run))
    writer = _writer(ctx, client, watches, sync)
    watches.secrets.add_handler(cache.changed)
    watches.slices.add_handler(sync.slice_changed)
    for informer in (watches.ingresses, watches.classes, watches.services, watches.secrets):
        informer.add_handler(sync.changed)
    ctx.health.add_ready("watches", watches.unsynced)
    ctx.health.add_ready("proxy", lambda: sync.error or None)
    await _serve_own(ctx, sync)
    for informer in watches.all:
        await informer.synced.wait()
    # Only now: a proxy that knew half of the cluster would answer 404 for the other half.
    following = ctx.tasks.create_task(sync.run(), name="sync")

    async def stop_proxy() -> None:
        # First whoever would start it again.
        following.cancel()
        await ctx.finished(following)
        await proxy.stop()

    ctx.on_stop(stop_proxy)
    if settings.node_name:
        ctx.on_stop(writer.withdraw)
        ctx.tasks.create_task(writer.run(), name="writer")
        await writer.publish(settings.published_address or settings.address, settings.http_port, settings.https_port)
    await ctx.stopping.wait()


def _run_folder(settings: IngressConfig) -> Path:
    run = Path(settings.run_dir)
    if len(str(run)) > RUN_DIR_CHARS_MAX:
        raise process.Fatal(
            f"run_dir: {run} is too long for the proxy's sockets; at most {RUN_DIR_CHARS_MAX} characters"
        )
    run.mkdir(parents=True, exist_ok=True, mode=0o700)
    return run


def _proxy_settings(settings: IngressConfig, run: Path) -> Settings:
    user, group = haproxy.unprivileged_user()
    pem = ""
    if settings.proxy_metrics_address:
        pem = str(run / "metrics.pem")
        _write_private(
            Path(pem), "".join(Path(f).read_text() for f in (settings.serving.cert_file, settings.serving.key_file))
        )
    at = f"[{settings.address}]" if ":" in settings.address else settings.address
    return Settings(
        run=run, http=(f"{at}:{settings.http_port}",), https=(f"{at}:{settings.https_port}",),
        metrics=settings.proxy_metrics_address, metrics_pem=pem, metrics_ca=settings.serving.ca_file,
        user=user, group=group, access_log=settings.access_log, connections_max=settings.connections_max,
        threads=settings.threads,
    )  # fmt: skip


def _default_certificate(run: Path) -> str:
    """The self-signed one, kept over restarts until it nears its end."""
    kept, now = run / DEFAULT_CERTIFICATE, datetime.datetime.now(datetime.UTC)
    if kept.exists():
        age_days = (now.timestamp() - kept.stat().st_mtime) / 86400
        if age_days < certificates.DEFAULT_DAYS - DEFAULT_CERTIFICATE_DAYS_MIN:
            return kept.read_text()
    pem = certificates.self_signed(now).pem
    _write_private(kept, pem)
    return pem


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _writer(ctx: process.Context[IngressConfig], client: ApiClient, watches: _Watches, sync: Sync) -> Writer:
    recorder = EventRecorder(client, "ingress", ctx.config.node_name)
    ctx.tasks.create_task(recorder.run(), name="events")
    writer = Writer(
        client, ctx.config.node_name, watches.own_ingresses, lambda: sync.table.problems, watches.own_slices,
        watches.nodes.lister.list, recorder,
    )  # fmt: skip
    sync.listeners.append(writer.wake.set)

    def wake(_old: object, _new: object) -> None:
        writer.wake.set()

    def wake_by_slice(old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        if any(slice_service(p) == [f"{presence.NAMESPACE}/{presence.SERVICE}"] for p in (old, new) if p is not None):
            writer.wake.set()

    watches.nodes.add_handler(wake)
    watches.slices.add_handler(wake_by_slice)
    return writer


async def _serve_own(ctx: process.Context[IngressConfig], sync: Sync) -> None:
    settings, service = ctx.config, IngressService(sync)
    if settings.grpc_address:
        server = await grpc_server.serve(
            settings,
            lambda server: ingress_pb2_grpc.add_IngressServicer_to_server(  # type: ignore[no-untyped-call]
                service, server
            ),
            service_names=[ingress_pb2.DESCRIPTOR.services_by_name["Ingress"].full_name],
        )
        ctx.on_stop(server.stop)
    if settings.http_address:
        web = await http_server.serve(settings, ctx.health)
        ctx.on_stop(web.stop)


def main() -> None:
    """Run the ingress controller."""
    process.run(serve, config.load(IngressConfig, prog="ingress"))


if __name__ == "__main__":
    main()
