"""The apiserver, put together: store, cache, judges, handlers, and the two transports on them.

store -> watch cache -> lookup ─┬> authorizer, admission -> writer, deleter ─┐
                                └> reader ──────────────────────────────────┴> handlers -> gRPC, REST
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio

from machinery.component import grpc_server, logs, metrics, tls
from machinery.component.process import Context, Fatal
from protos.cutaway.v1 import apiserver_pb2_grpc
from services.apiserver import retention
from services.apiserver.admission.plugins import build_chain
from services.apiserver.admission.webhook_client import WebhookClient
from services.apiserver.auth import rbac
from services.apiserver.auth.authenticate import Authenticator, TokenSource
from services.apiserver.auth.bootstrap_tokens import BootstrapTokens
from services.apiserver.auth.tokens import TokenIssuer
from services.apiserver.bootstrap import Bootstrap
from services.apiserver.config import ApiServerConfig
from services.apiserver.crd.definitions import DEFINITIONS, Definitions
from services.apiserver.deletion import Deleter
from services.apiserver.encryption import KeyFileError, SealedStore, Sealer, is_sealed
from services.apiserver.entries import Entry, Listener
from services.apiserver.expiry import Expiry
from services.apiserver.flow.control import FlowControl
from services.apiserver.flow.upkeep import Upkeep
from services.apiserver.handlers import Handlers
from services.apiserver.kubelet_proxy import KubeletProxy
from services.apiserver.lookup import Lookup
from services.apiserver.masters import Masters
from services.apiserver.policy_status import PolicyStatus
from services.apiserver.reads import Reader
from services.apiserver.registrations import Registrations
from services.apiserver.registry.allocation import ServiceRange
from services.apiserver.registry.table import build_registry
from services.apiserver.rpc import ApiServerService
from services.apiserver.rpc_turns import Turns
from services.apiserver.special import Parts, Special
from services.apiserver.subresources import POSTS
from services.apiserver.watch_cache import WatchCache
from services.apiserver.writes import Writer
from storage import Store, open_store
from storage.errors import Corrupt, StoreError, Unavailable

if TYPE_CHECKING:
    from services.apiserver.rest.app import RestServer
    from services.apiserver.rest.auditing import RestAuditor

SERVICE_NAME = "cutaway.v1.ApiServer"
SEAL_AGAIN_SECONDS = 10.0


class Core:
    """Everything but the transports. `start` reads the state; afterwards `handlers` serve."""

    def __init__(self, config: ApiServerConfig, store: Store) -> None:
        self.config = config
        low, high = _port_range(config.node_port_range)
        services = ServiceRange(_cidr(config.service_cidr), low, high)
        self.registry = build_registry(services)
        self.cache = services.cache = WatchCache(store, self.registry)
        self.lookup = Lookup(self.cache)
        self.webhooks = WebhookClient(self.lookup)
        self.tokens = self._token_issuer()
        self.authenticator = Authenticator(self.tokens, others=[BootstrapTokens(self.lookup.get), *_oidc(config)])
        self.authorizer = rbac.Authorizer()
        parts = Parts(self.authenticator, self.authorizer, self.tokens)
        reader = Reader(self.cache)
        self.writer = Writer(
            self.cache,
            self.lookup,
            build_chain(self.authorizer, self.registry, self.cache, self.webhooks),
            Special(parts, POSTS),
        )
        self.deleter = Deleter(reader, self.writer)
        parts.writer, parts.deleter = self.writer, self.deleter
        self.definitions = Definitions(self.registry, self.cache, self.webhooks)
        self.handlers = Handlers(self.registry, reader, self.writer, self.deleter, self.authorizer, config.watches_max)
        self.flow = FlowControl(config.requests_in_flight_max)
        self.flow_upkeep = Upkeep(self.registry, self.cache, self.writer, self.flow)
        self.registrations = Registrations(self.registry, self.cache, self.writer, self.deleter)
        self.policy_status = PolicyStatus(self.registry, self.cache, self.writer)
        self.kubelets = KubeletProxy(self.lookup.get, config.kubelet_client, self.lookup.list)

    async def start(self) -> None:
        """Read the store's state and let the judges see it."""
        await self.cache.load(DEFINITIONS, self.definitions.load)
        if any(is_sealed(entry.value) for entry in self.cache.of("secrets").listed("")):
            raise Corrupt("its Secrets are sealed: encryption_key_file is needed")
        for storage in rbac.WATCHED:
            resource_cache = self.cache.of(storage)
            for entry in resource_cache.listed(""):
                self.authorizer.changed(storage, None, entry.value)
            resource_cache.listeners.append(self._feed(storage))
        self.flow_upkeep.follow()
        self.registrations.follow()
        self.policy_status.follow()

    def _feed(self, storage: str) -> Listener:
        changed = self.authorizer.changed

        def on_change(old: Entry | None, new: Entry | None) -> None:
            if storage == "pods" and _same_references(old, new):
                return
            changed(storage, old.value if old is not None else None, new.value if new is not None else None)

        return on_change

    def count_objects(self, group: str, version: str, plural: str, namespace: str) -> int:
        """How many objects a list has to look at; 0 for what is not stored here."""
        row = self.registry.find(group, version, plural)
        return self.cache.of(row.storage).size(namespace) if row is not None and row.storage else 0

    def _token_issuer(self) -> TokenIssuer | None:
        path = self.config.service_account_key_file
        if not path:
            return None
        try:
            older = [Path(name).read_bytes() for name in self.config.service_account_older_key_files]
            issuer = self.config.service_account_issuer
            return TokenIssuer.from_files(path, self._uid_of, issuer=issuer, older_public_keys=older)
        except (OSError, ValueError) as err:
            raise Fatal(f"service_account_key_file: {err}") from err

    def _uid_of(self, storage: str, namespace: str, name: str) -> str | None:
        entry = self.cache.of(storage).get(namespace, name)
        return entry.uid if entry is not None else None


def _same_references(old: Entry | None, new: Entry | None) -> bool:
    """Whether a change of a pod gives its node no other rights: it has no node yet, or the write was of its status."""
    if new is None:
        return False
    node = new.fields[0]
    if old is None:
        return not node
    return old.uid == new.uid and old.generation == new.generation and old.fields[0] == node


async def serve(ctx: Context[ApiServerConfig]) -> None:
    """Run an apiserver until it is stopped."""
    config = ctx.config
    # What this process writes (the database, its log, the audit log) holds Secrets, or who read them.
    os.umask(0o077)
    if not config.serving.complete:
        raise Fatal("serving: ca_file, cert_file and key_file are needed: nothing is served without TLS")
    try:
        tls.check_validity(config.serving)
    except (tls.TlsError, ValueError) as err:
        raise Fatal(f"serving: {err}") from err
    if config.shutdown_delay_seconds >= config.drain_seconds:
        raise Fatal(
            f"shutdown_delay_seconds: {config.shutdown_delay_seconds:g} leaves nothing of drain_seconds"
            f" ({config.drain_seconds:g}) to end requests and close the store in"
        )
    store = await _open(config)
    ctx.on_stop(store.close)
    core = Core(config, store)
    try:
        await core.start()
    except Corrupt as err:
        raise Fatal(f"storage_url: {err}") from err
    ctx.tasks.create_task(_follow(ctx, core.cache), name="follow the log")
    if isinstance(store, SealedStore):
        ctx.tasks.create_task(_seal(ctx, store), name="seal secrets with the first key")
    ctx.tasks.create_task(core.definitions.run(core.writer, core.deleter), name="custom resource definitions")
    expiry = Expiry(core.cache, config.event_ttl_seconds)
    expiry.start()
    ctx.tasks.create_task(expiry.run(), name="expire events")
    address, port = advertised(config)
    known = _authentication(config)
    masters = Masters(core.registry, core.writer, core.deleter, address, (config.rest_address, config.grpc_address))
    bootstrap = Bootstrap(core.registry, core.writer, config.service_cidr, address, port, known, masters)
    await bootstrap.run()
    # What clients ask for first is there before anything is served.
    await core.flow_upkeep.reconciler.once()
    await core.registrations.reconciler.once()
    ctx.tasks.create_task(core.registrations.reconciler.run(), name="keep APIServices")
    ctx.tasks.create_task(core.policy_status.reconciler.run(), name="check policies' types")
    ctx.tasks.create_task(core.flow_upkeep.reconciler.run(), name="keep flow control's objects")
    ctx.tasks.create_task(bootstrap.keep_published(), name="publish the kubernetes endpoints")
    ctx.on_stop(core.kubelets.close)
    ctx.on_stop(core.webhooks.close)
    await _start_transports(ctx, core, bootstrap)
    # First of all, while everything is served still: whoever looks for an apiserver finds the others.
    ctx.on_stop(bootstrap.withdraw)
    ctx.log.info("apiserver serves", grpc=config.grpc_address, rest=config.rest_address, revision=core.cache.revision)


async def _open(config: ApiServerConfig) -> Store:
    if not config.storage_url:
        raise Fatal("storage_url is needed, such as sqlite:////var/lib/cutaway/state.db")
    try:
        sealer = Sealer.from_file(config.encryption_key_file) if config.encryption_key_file else None
        store = await open_store(
            config.storage_url, cluster_id=config.cluster_id or None, retention=retention.policy(config)
        )
    except StoreError as err:
        raise Fatal(f"storage_url: {err}") from err
    except (KeyFileError, OSError) as err:
        raise Fatal(f"encryption_key_file: {err}") from err
    return SealedStore(store, sealer) if sealer is not None else store


async def _follow(ctx: Context[ApiServerConfig], cache: WatchCache) -> None:
    try:
        await cache.run()
    except Unavailable:
        # A graceful stop closes the store under its followers.
        if not ctx.stopping.is_set():
            raise


_sealed = metrics.gauge(
    "apiserver_secrets_sealed_with_first_key",
    "1 once every Secret, and what is kept of its past, is sealed with the first key of encryption_key_file",
)


async def _seal(ctx: Context[ApiServerConfig], store: SealedStore) -> None:
    """Until all is sealed with the first key; a store that does not answer now may do so later."""
    while not ctx.stopping.is_set():
        try:
            count = await store.seal_anew()
        except StoreError as err:
            ctx.log.warning("Secrets are not sealed with the first key yet", error=str(err))
            await asyncio.sleep(SEAL_AGAIN_SECONDS)
        else:
            if count:
                ctx.log.info("Secrets are sealed with the first key", count=count)
            _sealed.set(1)
            return


async def _start_transports(ctx: Context[ApiServerConfig], core: Core, bootstrap: Bootstrap) -> None:
    config = ctx.config
    service = ApiServerService(core.handlers, core.authenticator, core.kubelets, Turns(core.flow, core.count_objects))

    def add(server: grpc.aio.Server) -> None:
        apiserver_pb2_grpc.add_ApiServerServicer_to_server(service, server)  # type: ignore[no-untyped-call]

    if config.grpc_address:
        rpc = await grpc_server.serve(
            config, add, authorize=grpc_server.anyone, service_names=[SERVICE_NAME], health=ctx.health
        )
        ctx.on_stop(rpc.stop)
    if config.rest_address:
        await _start_rest(ctx, core, bootstrap)


async def _start_rest(ctx: Context[ApiServerConfig], core: Core, bootstrap: Bootstrap) -> None:
    from services.apiserver import checks
    from services.apiserver.rest.app import RestServer

    config = ctx.config
    live_checks, ready_checks = checks.of(core, bootstrap)
    rest = RestServer(
        core.handlers,
        core.authenticator,
        core.authorizer,
        kubelets=core.kubelets,
        live_checks=live_checks,
        ready_checks=ready_checks,
        metrics=metrics.exposition,
        auditor=_auditor(config),
        flow=core.flow,
        count_objects=core.count_objects,
        front_proxy=config.front_proxy_client,
    )
    host, _, port = config.rest_address.rpartition(":")
    try:
        context = tls.ServerContext(config.serving, require_client=False)
        await rest.start(host.strip("[]"), int(port), context.ssl)
    except tls.TlsError as err:
        raise Fatal(f"serving certificate: {err}") from err
    except OSError as err:
        raise Fatal(f"cannot listen on {config.rest_address} (REST): {err.strerror or err}") from err
    ctx.on_stop(rest.stop)
    ctx.on_stop(partial(_leave, ctx, rest))
    ctx.tasks.create_task(_reload_certificate(context), name="reload the serving certificate")


async def _leave(ctx: Context[ApiServerConfig], rest: RestServer) -> None:
    # The little time that a process has which fails is for closing what it has.
    if ctx.stopping.is_set():
        await rest.leave(ctx.config.shutdown_delay_seconds)


def _auditor(config: ApiServerConfig) -> RestAuditor | None:
    if not config.audit_policy_file and not config.audit_log_file:
        return None
    from services.apiserver.auth.audit import AuditFile, Policy, PolicyError
    from services.apiserver.rest.auditing import RestAuditor

    if not (config.audit_policy_file and config.audit_log_file):
        raise Fatal("audit_policy_file and audit_log_file are needed together")
    try:
        return RestAuditor(Policy.from_file(config.audit_policy_file), AuditFile(config.audit_log_file))
    except PolicyError as err:
        raise Fatal(f"audit_policy_file: {err}") from err
    except OSError as err:
        raise Fatal(f"audit_log_file: {err.filename}: {err.strerror}") from err


def _authentication(config: ApiServerConfig) -> dict[str, str]:
    """How other API servers know our clients by their certificates, and users by our word, as upstream publishes it;
    empty without a front proxy.
    """
    front, ca_file = config.front_proxy_client, config.serving.ca_file
    if not (front.ca_file and front.cert_file):
        return {}
    try:
        name = tls.identity_of_certificate(Path(front.cert_file).read_bytes()).name
        authorities = Path(ca_file).read_text(), Path(front.ca_file).read_text()
    except (OSError, ValueError) as err:
        raise Fatal(f"front_proxy_client: {err}") from err
    return {
        "client-ca-file": authorities[0],
        "requestheader-client-ca-file": authorities[1],
        "requestheader-allowed-names": f'["{name}"]',
        "requestheader-username-headers": '["X-Remote-User"]',
        "requestheader-uid-headers": '["X-Remote-Uid"]',
        "requestheader-group-headers": '["X-Remote-Group"]',
        "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
    }


def _oidc(config: ApiServerConfig) -> list[TokenSource]:
    if not config.oidc.issuer_url:
        return []
    from services.apiserver.auth.oidc import OidcTokens

    try:
        return [OidcTokens(config.oidc)]
    except ValueError as err:
        raise Fatal(str(err)) from err


async def _reload_certificate(context: tls.ServerContext) -> None:
    while True:
        await asyncio.sleep(60)
        try:
            context.reload_if_changed()
        except tls.TlsError as err:
            # A renewal that is half written must not end the service: the old certificate stays in use.
            logs.get("apiserver").warning("serving certificate can't be reloaded", error=str(err))


def advertised(config: ApiServerConfig) -> tuple[str, int]:
    """The address and port by which the cluster reaches this apiserver's REST front."""
    host, _, port = config.rest_address.rpartition(":")
    host = host.strip("[]")
    address = config.advertise_address
    if not address:
        address = host if host not in ("", "0.0.0.0", "::") else _own_address()
    return address, config.advertise_port or int(port or 6443)


def _own_address() -> str:
    """The address of the interface that leads outside; loopback if there is none. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            address: str = probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"
    return address


def _cidr(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as err:
        raise Fatal(f"service_cidr: {err}") from err


def _port_range(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    if not (low.isdigit() and high.isdigit() and 0 < int(low) <= int(high) < 65536):
        raise Fatal(f"node_port_range: {text!r} is not a range such as 30000-32767")
    return int(low), int(high)
