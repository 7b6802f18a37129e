"""The HTTP listener of the streaming URLs, on the node's own address and never beyond it by default."""

import asyncio
import contextlib
from typing import Any

from cri_api.v1 import api_pb2 as cri

from cri.logs import log
from cri.runtime import Runtime
from cri.streaming import port_forward, remote_command, spdy_session, websocket
from cri.streaming.channels import WEBSOCKET_PROTOCOLS, WebSocketChannels
from cri.streaming.http import HEAD_BYTES_MAX, BadRequest, Request, answer, read_request
from cri.streaming.requests import Waiting

_HEAD_SECONDS = 10.0


StreamRequest = cri.ExecRequest | cri.AttachRequest | cri.PortForwardRequest
_KINDS: dict[str, type] = {"exec": cri.ExecRequest, "attach": cri.AttachRequest, "portforward": cri.PortForwardRequest}


class StreamingServer:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[Any]] = set()
        self.waiting: Waiting[StreamRequest] = Waiting()
        self.base_url = ""

    async def start(self) -> None:
        settings = self._runtime.config.streaming
        self._server = await asyncio.start_server(self._accept, settings.address, settings.port, limit=HEAD_BYTES_MAX)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.base_url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def stop(self) -> None:
        if self._server:
            self._server.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                request = await read_request(reader)
            async with asyncio.timeout(self._runtime.config.streaming.idle_timeout_seconds):
                await self._serve(request, reader, writer)
        except BadRequest as error:
            with contextlib.suppress(ConnectionError):
                writer.write(answer(400, body=f"{error}\n"))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            pass
        except Exception:
            log.exception("a streaming session failed")
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, TimeoutError):
                await writer.wait_closed()

    async def _serve(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        verb, _, token = request.path.removeprefix("/").partition("/")
        # The upgrade is looked at first: a request that can't be served must not use up its token.
        spdy = spdy_session.wanted(request)
        if not spdy and not websocket.wanted(request):
            raise BadRequest("an upgrade to websocket or SPDY/3.1 is expected")
        waiting = self.waiting.take(token)
        if waiting is None or not isinstance(waiting, _KINDS.get(verb, ())):
            writer.write(answer(404, body="no such request: its URL is good once and for a minute\n"))
            await writer.drain()
            return
        if spdy:
            await spdy_session.serve(self._runtime, waiting, request, reader, writer)
            return
        supported = port_forward.WEBSOCKET_PROTOCOLS if verb == "portforward" else WEBSOCKET_PROTOCOLS
        head, protocol = websocket.handshake(request, supported)
        writer.write(head)
        await writer.drain()
        ws = websocket.WebSocket(reader, writer)
        if isinstance(waiting, cri.PortForwardRequest):
            await port_forward.run_websocket(self._runtime, waiting, ws)
        elif isinstance(waiting, cri.ExecRequest):
            await remote_command.run_exec(self._runtime, waiting, WebSocketChannels(ws, protocol))
        else:
            await remote_command.run_attach(self._runtime, waiting, WebSocketChannels(ws, protocol))
