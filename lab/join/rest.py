"""The few REST calls of a host that joins: it has no certificate yet, and gRPC needs one.

Blocking, one connection a call, only the standard library: joining and renewing make a dozen calls a year.
"""

from __future__ import annotations

import http.client
import json
import ssl
from pathlib import Path
from typing import Any

from lab.errors import LabError

ANSWER_SECONDS = 15.0
ANSWER_BYTES_MAX = 4 * 1024 * 1024


class Refused(LabError):
    """The apiserver answered, with an error. `code` is HTTP's."""

    def __init__(self, code: int, message: str, way_out: str = "") -> None:
        super().__init__(message, way_out)
        self.code = code


class Unreachable(LabError):
    """No answer: nobody there, another CA, or too slow."""


class Rest:
    """One apiserver, and who we are to it: a bearer token, a client certificate, or nobody."""

    def __init__(self, server: str, context: ssl.SSLContext, token: str | None = None) -> None:
        self.server = server
        self._context = context
        self._headers = {"Accept": "application/json", "User-Agent": "cutaway-join"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str) -> dict[str, Any]:
        """GET. Raises Refused, Unreachable."""
        return self._call("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST. Raises Refused, Unreachable."""
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        connection = http.client.HTTPSConnection(self.server, timeout=ANSWER_SECONDS, context=self._context)
        try:
            payload = json.dumps(body) if body is not None else None
            headers = self._headers | ({"Content-Type": "application/json"} if payload else {})
            connection.request(method, path, payload, headers)
            answer = connection.getresponse()
            content = answer.read(ANSWER_BYTES_MAX)
        except ssl.SSLCertVerificationError as error:
            raise Unreachable(f"{self.server} shows a certificate that is not good: {error.verify_message}") from error
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self.server} does not answer: {error}", "is this the masters' address?") from error
        finally:
            connection.close()
        try:
            document: dict[str, Any] = json.loads(content)
        except ValueError as error:
            raise Unreachable(f"{self.server} answers {answer.status} and no JSON: is it a Kubernetes?") from error
        if answer.status >= 300:
            raise Refused(answer.status, f"{self.server} answers {answer.status}: {document.get('message', '')}")
        return document


def trusting(ca_pem: bytes) -> ssl.SSLContext:
    """TLS that accepts servers of this CA alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca_pem.decode())
    return context


def with_certificate(ca_pem: bytes, pem: Path) -> ssl.SSLContext:
    """The same, showing the certificate and key in one PEM file."""
    context = trusting(ca_pem)
    context.load_cert_chain(pem)
    return context


def trusting_nobody() -> ssl.SSLContext:
    """TLS with whoever answers. Only for what proves itself otherwise, and never with a secret of ours."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
