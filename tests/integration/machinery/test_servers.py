"""Who gets in: every port requires a certificate of the cluster's own CA, made for the purpose that it is used for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from machinery.api import errors
from machinery.component import grpc_server, http_server, tls, tracing
from machinery.component.config import ComponentConfig
from machinery.component.grpc_errors import from_rpc_error
from machinery.component.health import Health
from machinery.component.process import Fatal
from protos.cutaway.v1 import dns_pb2, dns_pb2_grpc
from tests.support.pki import Pki


class Dns(dns_pb2_grpc.DnsServicer):
    """Some service: what it answers tells what happened."""

    async def ListRecords(self, request: Any, context: Any) -> Any:
        if request.name == "absent":
            raise errors.not_found("", "records", "absent")
        if request.name == "odd":
            raise RuntimeError("a defect")
        if request.name == "trace":
            span = tracing.current()
            return dns_pb2.ListRecordsResponse(records=[dns_pb2.Record(name=span.trace_id if span else "")])
        return dns_pb2.ListRecordsResponse(revision=7)


@pytest.fixture
async def server(pki: Pki) -> AsyncIterator[grpc_server.Server]:
    config = ComponentConfig(grpc_address="127.0.0.1:0", serving=pki.server("dns-server"))
    server = await grpc_server.serve(
        config, lambda s: dns_pb2_grpc.add_DnsServicer_to_server(Dns(), s), service_names=["cutaway.v1.Dns"]
    )
    yield server
    await server.stop(0)


async def ask(server: grpc_server.Server, files: tls.TlsFiles, name: str = "") -> int:
    async with grpc.aio.secure_channel(f"127.0.0.1:{server.port}", tls.channel_credentials(files)) as channel:
        try:
            response = await dns_pb2_grpc.DnsStub(channel).ListRecords(
                dns_pb2.ListRecordsRequest(name=name), timeout=20
            )
        except grpc.RpcError as err:
            raise from_rpc_error(err) from None
        return int(response.revision)


async def test_masters_may_call_and_others_are_forbidden(server: grpc_server.Server, pki: Pki) -> None:
    assert await ask(server, pki.client("admin", "system:masters")) == 7
    with pytest.raises(errors.Forbidden, match=r'User "bob" cannot call /cutaway\.v1\.Dns/ListRecords'):
        await ask(server, pki.client("bob", "developers"))


async def test_a_trace_crosses_a_call(server: grpc_server.Server, pki: Pki) -> None:
    credentials = tls.channel_credentials(pki.client("admin", "system:masters"))
    async with grpc.aio.secure_channel(f"127.0.0.1:{server.port}", credentials) as channel:
        with tracing.begin() as span:
            request = dns_pb2.ListRecordsRequest(name="trace")
            answer = await dns_pb2_grpc.DnsStub(channel).ListRecords(request, timeout=20, metadata=tracing.outgoing())
    assert answer.records[0].name == span.trace_id


async def test_errors_arrive_as_what_they_are(server: grpc_server.Server, pki: Pki) -> None:
    admin = pki.client("admin", "system:masters")
    with pytest.raises(errors.NotFound, match='records "absent" not found'):
        await ask(server, admin, "absent")
    with pytest.raises(errors.InternalError, match="RuntimeError: a defect"):
        await ask(server, admin, "odd")


async def test_strangers_do_not_get_in(server: grpc_server.Server, pki: Pki, tmp_path: Path) -> None:
    other = Pki(tmp_path / "other").client("admin", "system:masters")
    stranger = tls.TlsFiles(ca_file=str(pki.ca_file), cert_file=other.cert_file, key_file=other.key_file)
    expired = pki.client("late", "system:masters", file="late", life=timedelta(seconds=-60))
    as_client = pki.server("server-as-client", file="server-as-client")
    for files in (stranger, expired, as_client):
        with pytest.raises(errors.ServiceUnavailable):
            await ask(server, files)
    bare = grpc.ssl_channel_credentials(pki.ca_file.read_bytes())
    async with grpc.aio.secure_channel(f"127.0.0.1:{server.port}", bare) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await dns_pb2_grpc.DnsStub(channel).ListRecords(dns_pb2.ListRecordsRequest(), timeout=20)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await dns_pb2_grpc.DnsStub(channel).ListRecords(dns_pb2.ListRecordsRequest(), timeout=20)


async def test_a_client_certificate_serves_nobody(pki: Pki) -> None:
    config = ComponentConfig(grpc_address="127.0.0.1:0", serving=pki.client("evil", "system:masters", file="evil"))
    server = await grpc_server.serve(config, lambda s: dns_pb2_grpc.add_DnsServicer_to_server(Dns(), s))
    with pytest.raises(errors.ServiceUnavailable):
        await ask(server, pki.client("admin", "system:masters"))
    await server.stop(0)


async def test_a_renewed_certificate_is_used_without_a_restart(pki: Pki) -> None:
    files = pki.server("renewed", file="renewed")
    config = ComponentConfig(grpc_address="127.0.0.1:0", serving=files)
    server = await grpc_server.serve(config, lambda s: dns_pb2_grpc.add_DnsServicer_to_server(Dns(), s))

    async def served() -> str:
        certificate = await asyncio.to_thread(_peer_certificate, server.port, pki)
        return tls.subject_of(certificate)[0]

    assert await served() == "renewed"
    pki.server("renewed-again", file="renewed")
    assert await served() == "renewed-again"
    await asyncio.to_thread(Path(files.cert_file).write_text, "half written")
    assert await served() == "renewed-again"
    await server.stop(0)


def _peer_certificate(port: int, pki: Pki) -> bytes:
    import socket

    context = tls.client_context(pki.client("looker", file="looker"))
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        found = wrapped.getpeercert(binary_form=True)
        assert found
        return found


async def test_health_follows_readiness_and_a_taken_port_is_one_sentence(pki: Pki) -> None:
    health = Health()
    config = ComponentConfig(grpc_address="127.0.0.1:0", serving=pki.server("h"))
    server = await grpc_server.serve(config, lambda s: None, service_names=["x.Y"], health=health)
    credentials = tls.channel_credentials(pki.client("anyone"))
    async with grpc.aio.secure_channel(f"127.0.0.1:{server.port}", credentials) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for problem, status in ((None, "SERVING"), ("warming up", "NOT_SERVING")):
            health.add_ready("it", lambda problem=problem: problem)  # type: ignore[misc]
            answer = await stub.Check(health_pb2.HealthCheckRequest(service="x.Y"), timeout=20)
            assert health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status) == status
    config.grpc_address = f"127.0.0.1:{server.port}"
    with pytest.raises(Fatal, match=f"cannot listen on 127.0.0.1:{server.port}"):
        await grpc_server.serve(config, lambda s: None)
    await server.stop(0)


async def fetch(port: int, path: str, context: ssl.SSLContext, method: str = "GET") -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    answer = (await asyncio.wait_for(reader.read(), 20)).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body


async def test_probes_answer_anyone_and_metrics_only_who_shows_a_certificate(pki: Pki) -> None:
    health = Health()
    health.add_ready("it", lambda: "warming up")
    config = ComponentConfig(name="t", http_address="127.0.0.1:0", serving=pki.server("http"))
    server = await http_server.serve(config, health)
    anyone = ssl.create_default_context(cafile=str(pki.ca_file))
    known = tls.client_context(pki.client("prometheus"))
    assert await fetch(server.port, "/livez", anyone) == (200, "ok")
    status, body = await fetch(server.port, "/readyz?verbose", anyone)
    assert (status, "[-]it failed: warming up" in body) == (503, True)
    assert (await fetch(server.port, "/metrics", anyone))[0] == 401
    status, body = await fetch(server.port, "/metrics", known)
    assert status == 200
    assert "# TYPE" in body
    assert (await fetch(server.port, "/nowhere", anyone))[0] == 404
    assert (await fetch(server.port, "/livez", anyone, "POST"))[0] == 405
    assert (await fetch(server.port, "/" + "x" * 20_000, anyone))[0] == 431
    await server.stop()


async def test_who_holds_every_connection_keeps_nobody_out(pki: Pki) -> None:
    config = ComponentConfig(name="t", http_address="127.0.0.1:0", serving=pki.server("http-held"))
    server = await http_server.serve(config, Health())
    anyone = ssl.create_default_context(cafile=str(pki.ca_file))
    known = tls.client_context(pki.client("prometheus"))
    # A client with a certificate that is at work, and then many strangers that are not.
    patient = await asyncio.open_connection("127.0.0.1", server.port, ssl=known)
    patient[1].write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
    await asyncio.wait_for(patient[0].readuntil(b"ok"), 20)
    held = []
    for _ in range(http_server.CONNECTIONS_MAX + 10):
        held.append(await asyncio.open_connection("127.0.0.1", server.port, ssl=anyone))
        held[-1][1].write(b"GET /livez HTTP/1.1\r\nhost:")
    assert await fetch(server.port, "/livez", anyone) == (200, "ok")
    assert await asyncio.wait_for(held[0][0].read(), 20) == b""
    patient[1].write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
    await asyncio.wait_for(patient[0].readuntil(b"ok"), 20)
    for _, writer in [*held, patient]:
        writer.transport.abort()
    await server.stop()
