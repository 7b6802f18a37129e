"""The live page: one HTML file and a stream of server-sent events, on loopback, for who has the token.

    GET /?token=T   sets a cookie and leads to /
    GET /           the page
    GET /steps      text/event-stream: `step` events with a Step as JSON, `deaf` with who can't be followed

A browser can't be given a client certificate by a command line, so the page is plain HTTP on 127.0.0.1 with a token
that is made anew at each start. The Host header must be ours, so that no web page elsewhere can have its own name
point here.
"""

from __future__ import annotations

import asyncio
import html
import json
import secrets
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from lab.errors import LabError
from lab.watching.gather import Gatherer

PAGE = Path(__file__).with_name("page.html")
COOKIE = "cutaway-watch"
ALIVE_SECONDS = 10.0
"""An idle stream says that it lives, and who is not heard."""


class Page:
    """The server. `url` is where it is, once `start` has returned."""

    def __init__(self, gatherer: Gatherer, cluster_name: str) -> None:
        self._gatherer = gatherer
        self._cluster_name = cluster_name
        self._token = secrets.token_urlsafe(24)
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """With the token."""
        return f"http://127.0.0.1:{self._port}/?token={self._token}"

    async def start(self, port: int) -> None:
        """Listen; on a free port if it is 0. Raises LabError if it is taken."""
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/", self._page)
        app.router.add_get("/steps", self._steps)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise LabError(f"127.0.0.1:{port} is taken", "another --port, or none for a free one") from error
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """End it, and every stream."""
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.host not in (f"127.0.0.1:{self._port}", f"localhost:{self._port}"):
            raise web.HTTPForbidden(text="this page is for 127.0.0.1 only\n")
        given = request.query.get("token") or request.cookies.get(COOKIE, "")
        if not secrets.compare_digest(given.encode(), self._token.encode()):
            raise web.HTTPForbidden(text="open the address that `cutaway watch` printed, with its token\n")
        return await handler(request)

    async def _page(self, request: web.Request) -> web.Response:
        if "token" in request.query:
            # Out of the address line, and of what the browser remembers.
            away = web.HTTPSeeOther("/")
            away.set_cookie(COOKIE, self._token, httponly=True, samesite="Strict", path="/")
            raise away
        nonce = secrets.token_urlsafe(16)
        text = PAGE.read_text().replace("{{nonce}}", nonce).replace("{{cluster}}", html.escape(self._cluster_name))
        own = f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}' 'unsafe-inline'; connect-src 'self'"
        policy = f"default-src 'none'; {own}"
        headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        return web.Response(text=text, content_type="text/html", headers=headers)

    async def _steps(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        last = request.headers.get("Last-Event-ID", "")
        after = int(last) if last.isdecimal() else 0
        with self._gatherer.listen() as (past, queue):
            await response.write(b"".join(_event(step.number, step.to_dict()) for step in past if step.number > after))
            while True:
                try:
                    async with asyncio.timeout(ALIVE_SECONDS):
                        steps = [await queue.get()]
                except TimeoutError:
                    await response.write(f"event: deaf\ndata: {json.dumps(self._gatherer.deaf)}\n\n".encode())
                    continue
                # What came together goes together.
                while not queue.empty():
                    steps.append(queue.get_nowait())
                await response.write(b"".join(_event(step.number, step.to_dict()) for step in steps))


def _event(number: int, step: dict[str, object]) -> bytes:
    return f"event: step\nid: {number}\ndata: {json.dumps(step)}\n\n".encode()
