"""An ingress controller's inside with a real HAProxy on loopback, and backends that tell what they were asked."""

from __future__ import annotations

import asyncio
import datetime
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from machinery.api.service_views import EndpointSlice, Service
from services.ingress import api, certificates, endpoints, haproxy, render
from services.ingress.secrets import CertificateCache
from services.ingress.sync import Sync, World
from tests.support.ingress_objects import ingress, piece, service

SETTLED_SECONDS = 20.0
NAME = web.AppKey("name", str)


def free_ports(count):
    """So many ports of loopback that nobody has."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def self_signed(*names, key=None):
    """(certificate's PEM, key's PEM) for these names."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = key or ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    built = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=9))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return built.public_bytes(pem), key.private_bytes(pem, *form)


def secret(name, chain, key, *, namespace="d"):
    """A Secret of type kubernetes.io/tls."""
    import base64

    data = {"tls.crt": base64.b64encode(chain).decode(), "tls.key": base64.b64encode(key).decode()}
    body = {"metadata": {"name": name, "namespace": namespace}, "type": certificates.TLS_TYPE, "data": data}
    return msgspec.convert(body, api.Secret)


class LiveIngress:
    """What a test changes, and where the proxy answers."""

    def __init__(self, run: Path, proxy: Any, settings: render.Settings, http: int, https: int) -> None:
        self.run = run
        self.proxy = proxy
        self.http, self.https = http, https
        self.ingresses: list[api.Ingress] = []
        self.services: dict[str, Service] = {}
        self.slices: dict[str, list[EndpointSlice]] = {}
        self.secrets: dict[str, api.Secret] = {}
        self.cache = CertificateCache(lambda key: self.secrets.get(key))
        world = World(
            lambda: self.ingresses, lambda key: self.services.get(key), lambda key: self.slices.get(key, []),
            self.cache.certificate_of,
        )  # fmt: skip
        pem = certificates.self_signed(datetime.datetime.now(datetime.UTC)).pem
        self.sync = Sync(world, proxy, settings, pem)

    def service(self, name, *ports, **port_spec):
        """A Service whose endpoints are these ports of loopback."""
        self.services[f"d/{name}"] = service(name, [{"name": "http", "port": 80} | port_spec])
        self.endpoints(name, *ports)

    def endpoints(self, name, *ports):
        """Endpoints: ports of loopback, each alone or with its state."""
        old = self.slices.get(f"d/{name}", [])
        pairs = [port if isinstance(port, tuple) else (port, (True, True, False)) for port in ports]
        new = [piece(("127.0.0.1", state), port=port, service=name) for port, state in pairs]
        self.slices[f"d/{name}"] = new
        for each in [*old, *new]:
            self.sync.slice_changed(each, None)

    def add(self, *arguments, **options):
        """Another Ingress; see `ingress_objects.ingress`."""
        self.ingresses.append(ingress(*arguments, **options))
        self.sync.changed(None, None)

    def put_secret(self, new):
        """A new or changed Secret."""
        key = f"{new.metadata.namespace}/{new.metadata.name}"
        self.cache.changed(self.secrets.get(key), new)
        self.secrets[key] = new
        self.sync.changed(None, None)

    async def settled(self):
        """Wait until the proxy has what is asked for, by its own word."""
        async with asyncio.timeout(SETTLED_SECONDS):
            while True:
                await asyncio.sleep(0.02)
                running = self.sync.running
                wanted = self.sync._look()
                if running is None or running.wanted.maps != wanted.maps or running.wanted.sni != wanted.sni:
                    continue
                if running.wanted.certificates != wanted.certificates or running.wanted.regexes != wanted.regexes:
                    continue
                have = {n: {e for e in running.servers.get(n, ()) if e} for n in wanted.endpoints}
                if have == {n: set(ends) for n, ends in wanted.endpoints.items()}:
                    return


@asynccontextmanager
async def live_ingress(monkeypatch: Any) -> AsyncIterator[LiveIngress]:
    """One with nothing to serve yet."""
    # Pods are never on loopback, and the controller refuses such endpoints; here they are all there is.
    monkeypatch.setattr(endpoints.grammar, "address", lambda _: True)
    # Short, for the sockets in it.
    run = Path(tempfile.mkdtemp(prefix="ing-"))
    http, https = free_ports(2)
    user, group = haproxy.unprivileged_user()
    settings = render.Settings(
        run, (f"127.0.0.1:{http}",), (f"127.0.0.1:{https}",), user=user, group=group, access_log=False, threads=1
    )
    proxy = haproxy.Haproxy(settings, haproxy.find_program() or "")
    live = LiveIngress(run, proxy, settings, http, https)
    running = asyncio.ensure_future(live.sync.run())
    try:
        yield live
    finally:
        running.cancel()
        await asyncio.wait([running])
        monkeypatch.setattr(haproxy, "DRAIN_SECONDS", 0.2)
        await proxy.stop()
        shutil.rmtree(run, ignore_errors=True)


async def _echo(request: web.Request) -> web.StreamResponse:
    if request.headers.get("upgrade", "").lower() == "websocket":
        conversation = web.WebSocketResponse()
        await conversation.prepare(request)
        async for message in conversation:
            if message.type == WSMsgType.TEXT:
                await conversation.send_str(f"{request.app[NAME]} {message.data}")
        return conversation
    wait = float(request.query.get("wait", "0"))
    if wait:
        await asyncio.sleep(wait)
    body = await request.read()
    return web.json_response(
        {
            "server": request.app[NAME], "path": request.path_qs, "headers": dict(request.headers),
            "method": request.method, "body": len(body),
        }
    )  # fmt: skip


@asynccontextmanager
async def backend(name="b", *, ssl_context: Any = None) -> AsyncIterator[int]:
    """An HTTP server that tells its name and the request as JSON, and echoes WebSocket messages; its port."""
    app = web.Application(client_max_size=64 << 20)
    app[NAME] = name
    app.router.add_route("*", "/{tail:.*}", _echo)
    runner = web.AppRunner(app, keepalive_timeout=60, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context)
    await site.start()
    try:
        yield site._server.sockets[0].getsockname()[1]
    finally:
        await runner.cleanup()
