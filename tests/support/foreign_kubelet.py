"""A kubelet's HTTPS API as upstream's serves it: sessions are handed, byte by byte, to the runtime's streaming server.

With containerd's CRI plugin behind it, what answers is the streaming library that upstream's kubelet itself relies on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from machinery.component.tls import ServerContext, TlsFiles

LOG = b"one\ntwo\nthree\n"


class ForeignKubelet:
    """Serves one container of one pod. `address` is "127.0.0.1:port" once it listens."""

    def __init__(self, runtime: Any, sandbox: str, container: str, files: TlsFiles) -> None:
        self._runtime = runtime
        self._sandbox = sandbox
        self._container = container
        self._files = files
        self._server: asyncio.Server | None = None
        self.asked: list[str] = []
        self.address = ""

    async def __aenter__(self) -> ForeignKubelet:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=ServerContext(self._files).ssl)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            line, _, rest = head.decode().partition("\r\n")
            method, target, _ = line.split(" ")
            self.asked.append(f"{method} {target}")
            parts = urlsplit(target)
            query = parse_qs(parts.query)
            verb = parts.path.split("/")[1]
            if verb == "containerLogs":
                await self._log(parts.path, query, writer)
                return
            where = await self._session_url(verb, query)
            await _carry(method, where, rest, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _log(self, path: str, query: dict[str, list[str]], writer: asyncio.StreamWriter) -> None:
        if path.endswith("/gone"):
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 22\r\n\r\nno container with name")
            return
        lines = LOG.splitlines(keepends=True)[-int(query.get("tailLines", ["9"])[0]) :]
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for each in lines:
            writer.write(b"%x\r\n%b\r\n" % (len(each), each))
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _session_url(self, verb: str, query: dict[str, list[str]]) -> str:
        if verb == "portForward":
            return str(await self._runtime.port_forward_url(self._sandbox, []))
        flags = {ours: theirs in query for ours, theirs in (("stdin", "input"), ("stdout", "output"), ("tty", "tty"))}
        flags["stderr"] = "error" in query
        if verb == "exec":
            return str(await self._runtime.exec_url(self._container, query["command"], **flags))
        return str(await self._runtime.attach_url(self._container, **flags))


async def _carry(
    method: str, url: str, headers: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    parts = urlsplit(url)
    up_reader, up_writer = await asyncio.open_connection(parts.hostname, parts.port)
    up_writer.write(f"{method} {parts.path} HTTP/1.1\r\n{headers}".encode())
    ended: Callable[[Any], object] = lambda _: up_writer.close()  # noqa: E731
    copying = asyncio.create_task(_copy(reader, up_writer))
    copying.add_done_callback(ended)
    await _copy(up_reader, writer)
    copying.cancel()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        target.write(data)
        await target.drain()
