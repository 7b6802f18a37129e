"""What is known of the servers behind aggregated APIs: where they are, whom they trust, what they say of themselves."""

from __future__ import annotations

import base64
import binascii
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machinery.api import errors
from machinery.component.tls import TlsFiles

Obj = Mapping[str, Any]
CONTEXTS_MAX = 64


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Why a server can't be asked, in the words of an APIService's condition."""

    reason: str
    message: str


def candidates(reference: Obj, service: Obj | None, endpoints: Obj | None) -> list[tuple[str, int]] | Unavailable:
    """Every (address, port) behind the Service that an APIService names."""
    namespace, name, port = reference.get("namespace", ""), reference.get("name", ""), reference.get("port") or 443
    about = f'service/{name} in "{namespace}"'
    if service is None:
        return Unavailable("ServiceNotFound", f"{about} is not present")
    wanted = next((p for p in (service.get("spec") or {}).get("ports") or () if p.get("port") == port), None)
    if wanted is None:
        return Unavailable("ServicePortError", f"{about} is not listening on port {port}")
    if endpoints is None:
        return Unavailable("EndpointsNotFound", f"cannot find endpoints for {about}")
    port_name = wanted.get("name") or ""
    found = [
        (address["ip"], endpoint["port"])
        for subset in endpoints.get("subsets") or ()
        for endpoint in subset.get("ports") or ()
        if (endpoint.get("name") or "") == port_name
        for address in subset.get("addresses") or ()
    ]
    missing = f'endpoints for {about} have no addresses with port name "{port_name}"'
    return found or Unavailable("MissingEndpoints", missing)


class TlsContexts:
    """TLS towards the servers: each trusted by its own caBundle, all shown our front proxy's certificate. Contexts are
    kept until that certificate is renewed: making one costs milliseconds.
    """

    def __init__(self, identity: TlsFiles | None) -> None:
        self._identity = identity if identity is not None and identity.cert_file else None
        self._made: dict[tuple[str, bool], ssl.SSLContext] = {}
        self._stamp = 0

    def of(self, spec: Obj) -> ssl.SSLContext:
        """The context for an APIService's spec. Raises ServiceUnavailable for an unreadable caBundle."""
        stamp = Path(self._identity.cert_file).stat().st_mtime_ns if self._identity is not None else 0
        if stamp != self._stamp or len(self._made) >= CONTEXTS_MAX:
            self._made.clear()
            self._stamp = stamp
        key = (str(spec.get("caBundle") or ""), bool(spec.get("insecureSkipTLSVerify")))
        context = self._made.get(key)
        if context is None:
            context = self._made[key] = self._make(*key)
        return context

    def _make(self, bundle: str, insecure: bool) -> ssl.SSLContext:
        if insecure or not bundle:
            context = ssl.create_default_context()
            if insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            try:
                context.load_verify_locations(cadata=base64.b64decode(bundle).decode())
            except (ssl.SSLError, binascii.Error, ValueError) as error:
                raise errors.ServiceUnavailable(f"spec.caBundle: {error}") from error
        if self._identity is not None:
            context.load_cert_chain(self._identity.cert_file, self._identity.key_file)
        return context


class RemoteDocuments:
    """The servers' OpenAPI: where the third version's document is, and the second version's paths and definitions."""

    def __init__(self) -> None:
        self._urls: dict[str, str] = {}
        self._version_2: dict[str, Obj] = {}
        # Grows with every change: documents that were made of these are out of date.
        self.generation = 0

    def knows(self, name: str, url: str) -> bool:
        """Whether a server (by group/version) still says what it said. The URL holds a hash of the document."""
        return self._urls.get(name) == url

    def learn(self, name: str, url: str, version_2: Obj) -> None:
        """Remember what a server says."""
        self._urls[name] = url
        self._version_2[name] = version_2
        self.generation += 1

    def forget(self, name: str) -> None:
        """A server does not answer any more."""
        if self._urls.pop(name, None) is not None:
            del self._version_2[name]
            self.generation += 1

    def index(self) -> dict[str, dict[str, str]]:
        """Entries for /openapi/v3. The path is ours whatever the server says of itself; its hash is kept."""
        return {
            f"apis/{name}": {"serverRelativeURL": f"/openapi/v3/apis/{name}?{url.partition('?')[2]}".rstrip("?")}
            for name, url in self._urls.items()
            if url
        }

    def merge_into(self, document: dict[str, Any]) -> None:
        """Add the servers' paths below their own group and version, and the definitions that are not there yet, to a
        document of the second version.
        """
        for name, other in self._version_2.items():
            for path, item in (other.get("paths") or {}).items():
                if path.startswith(f"/apis/{name}/"):
                    document["paths"].setdefault(path, item)
            for key, definition in (other.get("definitions") or {}).items():
                document["definitions"].setdefault(key, definition)
