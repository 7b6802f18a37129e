"""The shim as a running server: its parts in the order in which they need each other.

    containerd ─▶ namespace ─▶ records and tasks read back ─▶ event subscription ─▶ streaming server ─▶ CRI socket

The socket appears last, so who can connect finds a runtime that knows all its containers.
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
from cri_api.v1 import api_pb2_grpc

from cri import container_exit, node_facts, recovery
from cri.cni import Cni
from cri.config import Config
from cri.containerd_client import Containerd
from cri.errors import CriError, Unavailable
from cri.events import EventHub
from cri.image_service import ImageService
from cri.images.store import ImageStore
from cri.logs import log
from cri.runtime import Runtime
from cri.runtime_service import RuntimeService
from cri.state import Store
from cri.streaming.server import StreamingServer
from cri.task_events import ProcessExits, TaskEvents

_MAX_MESSAGE_BYTES = 16 * 1024 * 1024 * 2 + 1024 * 1024  # two full ExecSync outputs
# Streams of events never end by themselves; whoever follows them subscribes again.
_STOP_GRACE_SECONDS = 0.5


class ErrorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Answers our errors with their status; anything else is a defect of ours, logged whole and told as INTERNAL."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        handler = await continuation(details)
        if handler is None:
            return handler
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                _guard_stream(handler.unary_stream, details.method),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            _guard(handler.unary_unary, details.method), handler.request_deserializer, handler.response_serializer
        )


def _guard(
    inner: Callable[[Any, Any], Awaitable[Any]], method: str
) -> Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]:
    async def call(request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            return await inner(request, context)
        except CriError as error:
            log.info("request failed", method=method, code=error.code.name, error=error.message)
            await context.abort(error.code, error.message)
        except Exception as error:
            log.exception("unexpected error", method=method)
            await context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")

    return call


def _guard_stream(
    inner: Callable[[Any, Any], AsyncIterator[Any]], method: str
) -> Callable[[Any, grpc.aio.ServicerContext], AsyncIterator[Any]]:
    async def call(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        try:
            async for item in inner(request, context):
                yield item
        except CriError as error:
            await context.abort(error.code, error.message)

    return call


def claim(config: Config) -> int:
    """Takes the state directory for this process alone; raises Unavailable when another shim has it."""
    for directory in (config.root, config.state):
        Path(directory).mkdir(mode=0o711, parents=True, exist_ok=True)
    fd = os.open(Path(config.root) / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise Unavailable(f"another runtime already uses {config.root}") from error
    return fd


def _handlers(runtime: Runtime) -> tuple[Callable[[str, str, int, int], None], Callable[[str], None]]:
    def on_exit(container_id: str, exec_id: str, exit_code: int, at: int) -> None:
        if exec_id:
            runtime.exits.settle(container_id, exec_id, exit_code)
            return
        container = runtime.store.containers.find(container_id)
        if container is not None:
            work = container_exit.container_exited(runtime, container, exit_code, at)
            runtime.tasks.create_task(_logged(work, container_id), name=f"exit {container_id[:12]}")
            return
        sandbox = runtime.store.sandboxes.find(container_id)
        if sandbox is not None and sandbox.ready:
            recovery.sandbox_lost(runtime, sandbox)

    def on_oom(container_id: str) -> None:
        container = runtime.store.containers.find(container_id)
        if container is not None:
            container.status.oom_killed = True

    return on_exit, on_oom


async def _logged(work: Awaitable[None], container_id: str) -> None:
    try:
        await work
    except Exception:
        log.exception("could not settle an exit", container=container_id)


def _bind(server: grpc.aio.Server, path: str) -> None:
    """Listens on a unix socket that only root may connect to, from its first moment."""
    Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    old = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{path}")
    finally:
        os.umask(old)


@contextlib.asynccontextmanager
async def serving(config: Config) -> AsyncIterator[Runtime]:
    """A running shim; at the end it stops serving and leaves every container as it is."""
    lock = claim(config)
    ctd = Containerd(config.containerd, config.namespace)
    cni = Cni(config.cni)
    try:
        await _wait_for_containerd(ctd)
        async with asyncio.TaskGroup() as tasks:
            runtime = Runtime(
                config=config,
                containerd=ctd,
                store=Store(),
                cni=cni,
                events=EventHub(),
                images=ImageStore(ctd, config),
                exits=ProcessExits(),
                tasks=tasks,
            )
            await asyncio.to_thread(node_facts.facts)
            await recovery.load(runtime)
            runtime.user_namespaces = await asyncio.to_thread(node_facts.user_namespaces, runtime.root)
            watcher = TaskEvents(ctd, *_handlers(runtime), lambda: recovery.resync(runtime))
            background = tasks.create_task(watcher.run(), name="containerd events")
            await watcher.connected.wait()
            runtime.streaming = StreamingServer(runtime)
            await runtime.streaming.start()
            server = grpc.aio.server(
                interceptors=[ErrorInterceptor()],
                options=(
                    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
                    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
                ),
            )
            api_pb2_grpc.add_RuntimeServiceServicer_to_server(RuntimeService(runtime), server)  # type: ignore[no-untyped-call]
            api_pb2_grpc.add_ImageServiceServicer_to_server(ImageService(runtime), server)  # type: ignore[no-untyped-call]
            _bind(server, config.socket)
            await server.start()
            log.info("serving", socket=config.socket, containerd=config.containerd, namespace=config.namespace)
            try:
                yield runtime
            finally:
                await server.stop(_STOP_GRACE_SECONDS)
                await runtime.streaming.stop()
                background.cancel()
                for container in runtime.store.containers:
                    if container.io:
                        container.io.close()
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(config.socket)
                with contextlib.suppress(OSError):  # not there, or not empty
                    runtime.stages.rmdir()
    finally:
        cni.close()
        await ctd.close()
        os.close(lock)


async def _wait_for_containerd(ctd: Containerd) -> None:
    """containerd may be starting at the same time: it is waited for, with a word about it once."""
    told = False
    while True:
        try:
            await ctd.ensure_namespace()
            return
        except Unavailable as error:
            if not told:
                log.warning("waiting for containerd", socket=ctd.socket, error=str(error)[:200])
                told = True
            await asyncio.sleep(0.1)
