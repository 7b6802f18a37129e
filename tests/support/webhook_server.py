"""An HTTPS server in a thread that answers webhooks with a function."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from lab.pki import Pki


class WebhookServer:
    """Serves on the loopback. `answer` gets a decoded review and gives the response's body; `asked` remembers the
    reviews.
    """

    def __init__(self, pki: Pki, answer: Callable[[dict[str, Any]], Any]) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answer = answer
        identity = pki.server("webhook", "webhook", ["127.0.0.1"])
        self.ca_bundle = base64.b64encode(pki.ca_file.read_bytes()).decode()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(review)
                body = json.dumps(outer.answer(review)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(identity.cert_file, identity.key_file)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, name="webhook server")

    @property
    def client_config(self) -> dict[str, str]:
        """What names it in a webhook configuration."""
        return {"url": f"https://127.0.0.1:{self._server.server_address[1]}/", "caBundle": self.ca_bundle}

    def __enter__(self) -> WebhookServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
