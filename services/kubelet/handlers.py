"""Doing what a probe or a lifecycle hook says: run a command in the container, ask over HTTP, TCP or gRPC, or sleep."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lightkube.models import core_v1

from services.kubelet import http_probe
from services.kubelet.http_probe import BadAnswer, NotTls
from services.kubelet.runtime import Runtime, RuntimeFailure

if TYPE_CHECKING:
    import grpc.aio

_BODY_BYTES_MAX = 10 * 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went. `unknown` means that it could not be tried, which is no verdict on the container."""

    ok: bool
    message: str = ""
    unknown: bool = False
    # What people should know although it went well.
    warning: str = ""


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
                    return await _http_probe(container, probe.httpGet, host)
                if probe.tcpSocket is not None:
                    return await _tcp(container, probe.tcpSocket, host)
                if probe.grpc is not None:
                    return await _grpc(probe.grpc, host, timeout)
        except TimeoutError:
            return Outcome(False, _timed_out(container, probe, host, timeout))
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
                    return await _http_hook(container, handler.httpGet, ips[0] if ips else "")
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


def _timed_out(container: core_v1.Container, probe: core_v1.Probe, host: str, timeout: float) -> str:
    if probe.exec is not None:
        return f"command timed out: {shlex.join(probe.exec.command or [])!r} timed out after {int(timeout)}s"
    if probe.httpGet is not None:
        url, _ = http_request(container, probe.httpGet, host, "")
        return f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
    if probe.tcpSocket is not None:
        return f"dial tcp {_address(*_tcp_target(container, probe.tcpSocket, host))}: i/o timeout"
    return f"timeout: health rpc did not complete within {int(timeout)}s"


def http_request(
    container: core_v1.Container, action: core_v1.HTTPGetAction, pod_ip: str, agent: str
) -> tuple[str, dict[str, str]]:
    """(URL, headers) of what the action asks for. Raises OSError for a port's name that is none."""
    host = action.host or pod_ip
    port = resolve_port(container, action.port)
    path = action.path or "/"
    path = path if path.startswith("/") else f"/{path}"
    headers = {"user-agent": agent, "accept": "*/*", "connection": "close", "host": _address(host, port)}
    for header in action.httpHeaders or ():
        headers[header.name.lower()] = header.value
    return f"{(action.scheme or 'HTTP').lower()}://{_address(host, port)}{path}", headers


async def _http_probe(container: core_v1.Container, action: core_v1.HTTPGetAction, pod_ip: str) -> Outcome:
    """200 to 299 is success, and so is a redirect that leads elsewhere, of which people are warned."""
    url, headers = http_request(container, action, pod_ip, "kube-probe/1.37")
    try:
        answer = await http_probe.get(url, headers)
    except TimeoutError:
        raise
    except (OSError, BadAnswer) as error:
        return Outcome(False, f'Get "{url}": {_dial_error(error, urlsplit(url).netloc)}')
    if 300 <= answer.code < 400:
        return Outcome(True, warning=f"Probe terminated redirects, Response body: {answer.body}")
    ok = 200 <= answer.code < 300
    return Outcome(ok, "" if ok else f"HTTP probe failed with statuscode: {answer.code}")


async def _http_hook(container: core_v1.Container, action: core_v1.HTTPGetAction, pod_ip: str) -> Outcome:
    """Whatever is answered, the hook was run; over plain HTTP where that is all that the server speaks."""
    url, headers = http_request(container, action, pod_ip, "kube-lifecycle/1.37")
    try:
        try:
            await http_probe.get(url, headers)
        except NotTls:
            plain = {name: value for name, value in headers.items() if name != "authorization"}
            await http_probe.get(url.replace("https", "http", 1), plain)
    except BadAnswer as error:
        return Outcome(False, str(error))
    return Outcome(True)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _dial_error(error: Exception, address: str) -> str:
    """A failure to connect in the words that people know from upstream's events."""
    if not isinstance(error, OSError):
        return str(error)
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    return f"dial tcp {address}: connect: {reason}"


def _tcp_target(container: core_v1.Container, action: core_v1.TCPSocketAction, pod_ip: str) -> tuple[str, int]:
    return action.host or pod_ip, resolve_port(container, action.port)


async def _tcp(container: core_v1.Container, action: core_v1.TCPSocketAction, pod_ip: str) -> Outcome:
    host, port = _tcp_target(container, action, pod_ip)
    try:
        _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        raise
    except OSError as error:
        return Outcome(False, _dial_error(error, _address(host, port)))
    writer.close()
    return Outcome(True)


async def _grpc(action: core_v1.GRPCAction, host: str, timeout: float) -> Outcome:
    import grpc.aio
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    address = _address(host, action.port)
    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=action.service or "")
            answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            return Outcome(False, _grpc_failure(error, address, timeout))
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return Outcome(True)
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return Outcome(False, f'service unhealthy (responded with "{status}")')


def _grpc_failure(error: grpc.aio.AioRpcError, address: str, timeout: float) -> str:
    name = error.code().name
    if name == "UNIMPLEMENTED":
        return (
            f"error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {error.details()}"
        )
    if name == "DEADLINE_EXCEEDED":
        return f"timeout: health rpc did not complete within {int(timeout)}s"
    if name == "UNAVAILABLE":
        return f'timeout: failed to connect service "{address}" within {int(timeout)}s: {error.details()}'
    return f"error: health rpc probe failed: {error.details()}"
