"""A TLS port and its connections, for servers that speak HTTP/1.1 straight from asyncio.

A subclass gives `_exchange`: one request and its answer. Here is what they share: listening, a renewed certificate
taken up while running, a bound on connections, and an end to all of them.
"""

from __future__ import annotations

import asyncio
from typing import Any

from machinery.component import logs, tls
from machinery.component.process import Fatal

# The longest request head that is read.
HEAD_BYTES_MAX = 16 * 1024
IDLE_SECONDS_MAX = 60.0
HANDSHAKE_SECONDS_MAX = 10.0
RELOAD_SECONDS = 10.0

log = logs.get("tls_listener")


class TlsListener:
    """A running server. Clients without a certificate are let in; `_exchange` judges what they may ask.

    There are at most `connections_max` connections. For one more, the oldest goes of those whose client has proven
    nothing (`_unproven`): nobody can keep others out by holding connections.
    """

    def __init__(self, serving: tls.TlsFiles, *, connections_max: int) -> None:
        self._serving = serving
        self._connections_max = connections_max
        self._context: tls.ServerContext | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[Any]] = set()
        # In the order in which they came.
        self._unproven: dict[asyncio.Task[Any], None] = {}
        self._reload: asyncio.TimerHandle | None = None
        self.port = 0

    async def start(self, address: str) -> None:
        """Listen. Raises Fatal."""
        host, _, port = address.rpartition(":")
        try:
            self._context = tls.ServerContext(self._serving, require_client=False)
            self._server = await asyncio.start_server(
                self._serve, host.strip("[]") or None, int(port), ssl=self._context.ssl, limit=HEAD_BYTES_MAX,
                ssl_handshake_timeout=HANDSHAKE_SECONDS_MAX,
            )  # fmt: skip
        except tls.TlsError as err:
            raise Fatal(f"serving certificate: {err}") from err
        except (OSError, ValueError) as err:
            raise Fatal(f"cannot listen on {address} (HTTPS): {getattr(err, 'strerror', None) or err}") from err
        self.port = self._server.sockets[0].getsockname()[1]
        self._schedule_reload()

    def _schedule_reload(self) -> None:
        self._reload = asyncio.get_running_loop().call_later(RELOAD_SECONDS, self._reload_certificate)

    def _reload_certificate(self) -> None:
        assert self._context is not None
        try:
            if self._context.reload_if_changed():
                log.info("serving certificate reloaded", file=self._serving.cert_file)
        except tls.TlsError as err:
            log.warning("serving certificate can't be reloaded", error=str(err))
        self._schedule_reload()

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._reload:
            self._reload.cancel()
        if self._server:
            self._server.close()
        for task in self._connections:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= self._connections_max and not self._make_room():
            writer.close()
            return
        self._connections.add(task)
        self._unproven[task] = None
        try:
            identity = tls.identity_of_connection(writer.get_extra_info("ssl_object"))
            if identity is not None:
                self._proven()
            while await self._exchange(reader, writer, identity):
                pass
        except (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError):
            pass  # The client went away, was idle too long, speaks no HTTP, or has a certificate that nobody can read.
        finally:
            self._connections.discard(task)
            self._unproven.pop(task, None)
            writer.close()

    def _make_room(self) -> bool:
        """End the oldest connection of a client that has proven nothing; False if there is none."""
        oldest = next(iter(self._unproven), None)
        if oldest is None:
            return False
        del self._unproven[oldest]
        self._connections.discard(oldest)
        oldest.cancel()
        return True

    def _proven(self) -> None:
        """This connection's client has shown who it is, by a certificate or a token."""
        task = asyncio.current_task()
        assert task is not None
        self._unproven.pop(task, None)

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, identity: tls.Identity | None
    ) -> bool:
        """One request and its answer; whether the connection goes on."""
        raise AssertionError("a subclass says what is answered")
