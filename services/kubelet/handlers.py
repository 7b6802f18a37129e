"""Doing what a probe or a lifecycle hook says: run a command in the container, ask over HTTP, TCP or gRPC, or sleep."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from lightkube.models import core_v1

from services.kubelet.runtime import Runtime, RuntimeFailure

_BODY_BYTES_MAX = 10 * 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went. `unknown` means that it could not be tried, which is no verdict on the container."""

    ok: bool
    message: str = ""
    unknown: bool = False


class Handlers:
    """Runs handlers against containers of this node."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def probe(
        self,
        pod: core_v1.Pod,
        container: core_v1.Container,
        probe: core_v1.Probe,
        container_id: str,
        ips: Sequence[str],
    ) -> Outcome:
        """One try of a probe, within its timeout."""
        timeout = float(probe.timeoutSeconds or 1)
        host = ips[0] if ips else ""
        try:
            if probe.exec is not None:
                return await self._exec(container_id, probe.exec.command or [], timeout)
            async with asyncio.timeout(timeout):
                if probe.httpGet is not None:
                    return await http_get(container, probe.httpGet, host, "kube-probe/1.37")
                if probe.tcpSocket is not None:
                    return await _tcp(container, probe.tcpSocket, host)
                if probe.grpc is not None:
                    return await _grpc(probe.grpc, host, timeout)
        except TimeoutError:
            return Outcome(
                False, f"command timed out after {int(timeout)}s" if probe.exec else "context deadline exceeded"
            )
        except OSError as error:
            return Outcome(False, f"{error.strerror or error}")
        return Outcome(True, "no handler", unknown=True)

    async def _exec(self, container_id: str, command: list[str], timeout: float) -> Outcome:
        try:
            code, out, err = await self._runtime.exec_sync(container_id, command, timeout)
        except RuntimeFailure as error:
            timed_out = "deadline" in error.message.lower() or "timed out" in error.message.lower()
            gone = "not found" in error.message.lower() and "exec" not in error.message.lower()
            return Outcome(False, error.message, unknown=gone and not timed_out)
        text = (out + err).decode(errors="replace")[:_BODY_BYTES_MAX]
        return Outcome(code == 0, text)

    async def hook(
        self,
        container: core_v1.Container,
        handler: core_v1.LifecycleHandler,
        container_id: str,
        ips: Sequence[str],
        timeout: float,
    ) -> Outcome:
        """Run a postStart or preStop hook to its end, at most `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                if handler.exec is not None:
                    return await self._exec(container_id, handler.exec.command or [], timeout)
                if handler.httpGet is not None:
                    return await http_get(container, handler.httpGet, ips[0] if ips else "", "kube-lifecycle/1.37")
                if handler.sleep is not None:
                    await asyncio.sleep(handler.sleep.seconds)
        except TimeoutError:
            return Outcome(False, f"hook did not finish in {timeout:g}s")
        except OSError as error:
            return Outcome(False, f"{error.strerror or error}")
        return Outcome(True)


def resolve_port(container: core_v1.Container, port: int | str) -> int:
    """A port's number, given as number or as the name of one of the container's ports.

    Raises OSError for a name that is none.
    """
    if isinstance(port, int):
        return port
    if port.isdigit():
        return int(port)
    for candidate in container.ports or ():
        if candidate.name == port:
            return candidate.containerPort
    raise OSError(f"couldn't find port {port!r} in container {container.name}")


async def http_get(container: core_v1.Container, action: core_v1.HTTPGetAction, pod_ip: str, agent: str) -> Outcome:
    """GET over HTTP or HTTPS (certificates are not checked: the pod is addressed by its IP); 200 to 399 is success."""
    host = action.host or pod_ip
    port = resolve_port(container, action.port)
    scheme = (action.scheme or "HTTP").upper()
    path = action.path or "/"
    path = path if path.startswith("/") else f"/{path}"
    headers = {"user-agent": agent, "accept": "*/*", "connection": "close"}
    name = f"[{host}]" if ":" in host else host
    headers["host"] = f"{name}:{port}"
    for header in action.httpHeaders or ():
        headers[header.name.lower()] = header.value
    reader, writer = await asyncio.open_connection(host, port, ssl=_insecure() if scheme == "HTTPS" else None)
    try:
        lines = [f"GET {path} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items() if value)]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace"))
        head = await reader.readline()
        parts = head.split(b" ", 2)
        if len(parts) < 2 or not parts[1].isdigit():
            return Outcome(False, f"malformed HTTP response {head[:80]!r}")
        code = int(parts[1])
        return Outcome(200 <= code < 400, "" if 200 <= code < 400 else f"HTTP probe failed with statuscode: {code}")
    finally:
        writer.close()


def _insecure() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _tcp(container: core_v1.Container, action: core_v1.TCPSocketAction, pod_ip: str) -> Outcome:
    _, writer = await asyncio.open_connection(action.host or pod_ip, resolve_port(container, action.port))
    writer.close()
    return Outcome(True)


async def _grpc(action: core_v1.GRPCAction, host: str, timeout: float) -> Outcome:
    import grpc.aio
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    name = f"[{host}]" if ":" in host else host
    async with grpc.aio.insecure_channel(
        f"{name}:{action.port}", options=[("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=action.service or "")
            answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            return Outcome(False, f"error: {error.details()}")
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return Outcome(True)
    return Outcome(
        False, f"service unhealthy (responded with {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)})"
    )
