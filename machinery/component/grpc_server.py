"""The gRPC server of a component: mutual TLS, health, reflection, errors as one table, who may call, metrics.

    server = await grpc_server.serve(config, lambda s: add_FooServicer_to_server(foo, s), service_names=["v1.Foo"])
    ctx.on_stop(server.stop)

Every call is judged before its handler runs: members of `system:masters` may call everything; for others `authorize`
decides, and without one they are refused. The apiserver passes `authorize=anyone`, because its handlers judge each
request themselves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from machinery.api import errors
from machinery.component import grpc_errors, logs, metrics, tls, tracing
from machinery.component.config import ComponentConfig
from machinery.component.grpc_health import HealthService
from machinery.component.health import Health
from machinery.component.process import Fatal

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
UNARY_TIMEOUT_SECONDS = 60.0
"""For unary calls whose caller set no deadline."""

Authorize = Callable[[tls.Identity, str], Awaitable[str | None]]
"""(who, "/package.Service/Method") to None, or the sentence why not."""

SERVER_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_metadata_size", grpc_errors.METADATA_BYTES_MAX),
    ("grpc.absolute_max_metadata_size", 2 * grpc_errors.METADATA_BYTES_MAX),
    # Two processes that listen on one port would each get half of the connections; fail instead.
    ("grpc.so_reuseport", 0),
    # Clients ping idle watches every 30 s; the default policy would answer that with GOAWAY.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A watch batch of a megabyte crosses in one flight; the default window is 64 KiB.
    ("grpc.http2.lookahead_bytes", 1024 * 1024),
    ("grpc.max_concurrent_streams", 10_000),
)

log = logs.get("grpc_server")


async def anyone(identity: tls.Identity, method: str) -> str | None:
    """Authorizes every authenticated caller: for servers whose handlers judge for themselves."""
    return None


class Server:
    """A running server."""

    def __init__(self, server: grpc.aio.Server, address: str, port: int) -> None:
        self.server = server
        self.address = address
        self.port = port

    async def stop(self, grace_seconds: float = 1.0) -> None:
        """Take no new calls, give the present ones this long, then end them."""
        await self.server.stop(grace_seconds)


async def serve(
    config: ComponentConfig,
    add_services: Callable[[grpc.aio.Server], None],
    *,
    authorize: Authorize | None = None,
    service_names: Sequence[str] = (),
    health: Health | None = None,
    address: str = "",
) -> Server:
    """Start serving on `config.grpc_address` with `config.serving`. Port 0 picks one: see `Server.port`.

    Raises Fatal if the address can't be listened on or a certificate can't be used.
    """
    from grpc_reflection.v1alpha import reflection

    address = address or config.grpc_address
    server = grpc.aio.server(interceptors=[_Interceptor(authorize)], options=SERVER_OPTIONS)
    add_services(server)
    HealthService(health or Health(), service_names).add_to(server)
    names = (*service_names, HealthService.NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    try:
        port = server.add_secure_port(address, tls.server_credentials(config.serving))
    except tls.TlsError as err:
        raise Fatal(f"serving certificate: {err}") from err
    except RuntimeError as err:
        raise Fatal(f"cannot listen on {address} (gRPC): is the port taken, is the address ours?") from err
    await server.start()
    host = address.rpartition(":")[0]
    log.info("gRPC server listens", address=f"{host}:{port}")
    return Server(server, f"{host}:{port}", port)


# --- what surrounds each call -----------------------------------------------------------------------------------------

_PUBLIC = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"})


class _Interceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Wraps each handler once: authorization before it, error translation and metrics around it."""

    def __init__(self, authorize: Authorize | None) -> None:
        self._authorize = authorize
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        wrapped = self._wrapped.get(details.method)
        if wrapped is None:
            handler = await continuation(details)
            if handler is None:
                return None  # gRPC answers UNIMPLEMENTED; unknown names must not fill the cache.
            wrapped = self._wrapped[details.method] = _wrap(handler, details.method, self._authorize)
        return wrapped


def _wrap(handler: Any, method: str, authorize: Authorize | None) -> Any:
    guard = _Guard(method, authorize)
    kinds = {
        (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
        (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
        (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
        (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
    }
    attribute, make = kinds[handler.request_streaming, handler.response_streaming]
    behaviour = getattr(handler, attribute)
    wrap = guard.streamed if handler.response_streaming else guard.unary
    return make(
        wrap(behaviour),
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


class _Guard:
    """What is done around the handler of one method."""

    def __init__(self, method: str, authorize: Authorize | None) -> None:
        self.method = method
        self.authorize = authorize
        service, _, name = method.removeprefix("/").partition("/")
        labels = {"grpc_service": service, "grpc_method": name}
        self._handled = metrics.counter(
            "grpc_server_handled_total", "Calls by their outcome.", ("grpc_service", "grpc_method", "grpc_code")
        )
        self._seconds = metrics.histogram(
            "grpc_server_handling_seconds", "Time a unary call took.", ("grpc_service", "grpc_method")
        ).labels(**labels)
        self._counts = {code: self._handled.labels(**labels, grpc_code=code.name) for code in grpc.StatusCode}

    async def _check(self, context: Any) -> None:
        if self.method in _PUBLIC:
            return
        identity = tls.identity_of_call(context)
        if identity is None:
            raise errors.Unauthorized("a client certificate is required")
        if identity.is_master and self.authorize is not anyone:
            return
        why = f"only members of {tls.SYSTEM_MASTERS} may call this server"
        if self.authorize is not None:
            why = await self.authorize(identity, self.method) or ""
        if self.authorize is None or why:
            raise errors.Forbidden(f'User "{identity.name}" cannot call {self.method}: {why}')

    def unary(self, behaviour: Any) -> Any:
        async def call(request: Any, context: Any) -> Any:
            start = time.perf_counter()
            with tracing.follow(tracing.incoming(context.invocation_metadata())):
                try:
                    await self._check(context)
                    if context.time_remaining() is None:
                        async with asyncio.timeout(UNARY_TIMEOUT_SECONDS):
                            response = await behaviour(request, context)
                    else:
                        response = await behaviour(request, context)
                except Exception as err:
                    await self._fail(context, err)
                    raise
            self._counts[grpc.StatusCode.OK].inc()
            self._seconds.observe(time.perf_counter() - start)
            return response

        return call

    def streamed(self, behaviour: Any) -> Any:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            tracing.enter(tracing.incoming(context.invocation_metadata()))
            try:
                await self._check(context)
                async for response in behaviour(request, context):
                    yield response
            except Exception as err:
                await self._fail(context, err)
                raise
            self._counts[grpc.StatusCode.OK].inc()

        return call

    async def _fail(self, context: Any, err: Exception) -> None:
        """Answer the error. Returns only if the handler has already ended the call itself by `context.abort`."""
        if isinstance(err, grpc.aio.AbortError):
            return
        if isinstance(err, grpc.RpcError):  # From a call that this one made on: the answer is the caller's too.
            err = grpc_errors.from_rpc_error(err)
        elif errors.is_nesting(err):
            err = errors.BadRequest("the object is nested too deeply")
        elif isinstance(err, TimeoutError):
            err = errors.Timeout(f"{self.method} took longer than allowed")
        elif not isinstance(err, errors.ApiError):
            log.error("call failed", method=self.method, exc_info=err)
            err = errors.InternalError(f"internal error: {type(err).__name__}: {err}")
        self._counts[grpc_errors.code_of(err)].inc()
        await grpc_errors.abort(context, err)
