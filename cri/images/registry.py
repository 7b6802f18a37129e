"""A registry by the OCI distribution protocol: manifests, blobs, tokens, mirrors.

Each registry host has a list of end points (its mirrors, then itself). Credentials go only to the host that they are
for and to the token server that it names; a redirect to another origin loses the Authorization header.
"""

import base64
import hashlib
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
from cri_api.v1 import api_pb2 as cri

from cri.config import Registry, RegistryAuth
from cri.errors import CriError, InvalidArgument, NotFound, PermissionDenied, Unavailable
from cri.images import content
from cri.images.reference import Reference

if TYPE_CHECKING:
    import aiohttp

_ACCEPT = ", ".join(
    (content.OCI_INDEX, content.DOCKER_LIST, content.OCI_MANIFEST, content.DOCKER_MANIFEST, "*/*;q=0.5")
)
_CHUNK_BYTES = 256 * 1024
_TOKEN_BYTES_MAX = 1024 * 1024
# A connection that gives nothing for this long is dead; a whole layer may take as long as it takes.
_STALL_SECONDS = 60.0
_CHALLENGE = re.compile(r'([a-zA-Z_]+)="([^"]*)"')


@dataclass(frozen=True)
class Credentials:
    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


def credentials(host: str, given: cri.AuthConfig | None, configured: RegistryAuth | None) -> Credentials:
    """The request's credentials if they are for this host, else the configuration's."""
    if given is not None and _is_for(given.server_address, host):
        user, password = given.username, given.password
        if given.auth and not user:
            user, password = _basic(given.auth)
        found = Credentials(user, password, given.identity_token, given.registry_token)
        if found != Credentials():
            return found
    if configured is None:
        return Credentials()
    user, password = (configured.username, configured.password) if configured.username else _basic(configured.auth)
    return Credentials(user, password, configured.identity_token)


def _is_for(server: str, host: str) -> bool:
    if not server:
        return True
    named = urlsplit(server if "://" in server else f"https://{server}").netloc
    return named == host or (host == "docker.io" and named in ("index.docker.io", "registry-1.docker.io", "docker.io"))


def _basic(encoded: str) -> tuple[str, str]:
    if not encoded:
        return "", ""
    try:
        user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError as error:
        raise InvalidArgument("auth is not base64 of user:password") from error
    return user, password.rstrip("\x00")


def is_loopback(host: str) -> bool:
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return name in ("localhost", "[::1]") or bool(re.fullmatch(r"127(\.\d{1,3}){3}", name))


def endpoints(host: str, settings: Registry | None) -> list[str]:
    """Base URLs in the order in which they are asked."""
    actual = "registry-1.docker.io" if host == "docker.io" else host
    plain = settings.plain_http if settings else is_loopback(host)
    mirrors = [url.rstrip("/") for url in settings.mirrors] if settings else []
    return [*mirrors, f"{'http' if plain else 'https'}://{actual}"]


class RegistryClient:
    """One pull's connections to one registry. Use as an async context manager."""

    def __init__(self, reference: Reference, settings: Registry | None, auth: Credentials) -> None:
        self._reference = reference
        self._settings = settings
        self._auth = auth
        self._tokens: dict[str, str] = {}
        self._bases = endpoints(reference.host, settings)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "RegistryClient":
        import aiohttp  # half of the shim's memory: only a node that pulls pays for it

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=_STALL_SECONDS)
        connector = aiohttp.TCPConnector(ssl=self._tls(), limit=8)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            trust_env=True,
            auto_decompress=False,
            headers={"User-Agent": "cutaway-cri"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session:
            await self._session.close()

    def _tls(self) -> "ssl.SSLContext | bool":
        if self._settings and self._settings.skip_verify:
            return False
        return ssl.create_default_context(
            cafile=self._settings.ca_file if self._settings and self._settings.ca_file else None
        )

    async def manifest(self, reference: str) -> tuple[str, str, bytes]:
        """(digest, media type, bytes) of a manifest by tag or digest, the digest verified."""
        failures: list[CriError] = []
        for base in self._bases:
            try:
                return await self._manifest(base, reference)
            except CriError as error:
                failures.append(error)
        raise failures[-1] if len(failures) == 1 else type(failures[-1])("; ".join(str(error) for error in failures))

    async def _manifest(self, base: str, reference: str) -> tuple[str, str, bytes]:
        response = await self._get(base, f"manifests/{reference}", {"Accept": _ACCEPT})
        async with response:
            data = await self._bounded(response, content.DOCUMENT_BYTES_MAX)
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            if ":" in reference and digest != reference:
                raise InvalidArgument(
                    f"{base} answered a manifest with digest {digest} where {reference} was asked for"
                )
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
            stated = _stated_media_type(data)
            return digest, stated or media_type, data

    async def blob(self, digest: str) -> AsyncIterator[bytes]:
        """A blob's bytes; who stores them verifies the digest."""
        import aiohttp

        failures: list[CriError] = []
        for base in self._bases:
            try:
                response = await self._get(base, f"blobs/{digest}", {})
            except CriError as error:
                failures.append(error)
                continue
            async with response:
                try:
                    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                        yield chunk
                except (aiohttp.ClientError, TimeoutError) as error:
                    raise Unavailable(f"{base}: blob {digest}: {error or 'stalled'}") from error
            return
        raise failures[-1]

    async def _bounded(self, response: "aiohttp.ClientResponse", limit: int) -> bytes:
        import aiohttp

        try:
            data = b""
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                data += chunk
                if len(data) > limit:
                    raise InvalidArgument(f"{response.url} answered more than {limit} bytes")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"{response.url}: {error or 'stalled'}") from error
        return data

    async def _get(self, base: str, path: str, headers: Mapping[str, str]) -> "aiohttp.ClientResponse":
        import aiohttp

        assert self._session is not None
        url = f"{base}/v2/{self._reference.path}/{path}"
        for attempt in (1, 2):
            token = self._tokens.get(base, "")
            sent = {**headers, **({"Authorization": token} if token else {})}
            try:
                response = await self._session.get(url, headers=sent)
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                raise Unavailable(f"registry {base}: {error or type(error).__name__}") from error
            if response.status == 401 and attempt == 1:
                challenge = response.headers.get("WWW-Authenticate", "")
                response.release()
                self._tokens[base] = await self._authorize(base, challenge)
                continue
            if response.status == 200:
                return response
            detail = (await response.content.read(500)).decode(errors="replace").strip()
            response.release()
            raise self._failure(response.status, base, path, detail)
        raise PermissionDenied(f"registry {base} refused {self._reference.repository}")

    def _failure(self, status: int, base: str, path: str, detail: str) -> CriError:
        what = f"{self._reference.repository} {path}"
        if status == 404:
            return NotFound(f"{what}: not found at {base}")
        if status in (401, 403):
            return PermissionDenied(f"{what}: {base} answered {status}: authorization failed: {detail}")
        return Unavailable(f"{what}: {base} answered {status}: {detail}")

    async def _authorize(self, base: str, challenge: str) -> str:
        """An Authorization header for the registry's challenge (RFC 7235, distribution token specification)."""
        scheme, _, rest = challenge.partition(" ")
        auth = self._auth if self._owns(base) else Credentials()
        if scheme.lower() == "basic":
            if not auth.username:
                raise PermissionDenied(f"registry {base} wants a user name and a password")
            return _basic_header(auth)
        if scheme.lower() != "bearer":
            raise PermissionDenied(f"registry {base} answered 401 with no challenge that is understood: {challenge!r}")
        if auth.registry_token:
            return f"Bearer {auth.registry_token}"
        fields = dict(_CHALLENGE.findall(rest))
        realm = fields.get("realm", "")
        if urlsplit(realm).scheme not in ("http", "https"):
            raise PermissionDenied(f"registry {base} names no token server: {challenge!r}")
        if urlsplit(realm).scheme == "http" and base.startswith("https:") and auth != Credentials():
            raise PermissionDenied(f"registry {base} wants the password sent to {realm} in clear text: refused")
        scope = fields.get("scope") or f"repository:{self._reference.path}:pull"
        return f"Bearer {await self._token(realm, fields.get('service', ''), scope, auth)}"

    def _owns(self, base: str) -> bool:
        """Credentials of a registry are not given to its mirrors, which may be anybody's."""
        return base == self._bases[-1]

    async def _token(self, realm: str, service: str, scope: str, auth: Credentials) -> str:
        import aiohttp

        assert self._session is not None
        params = {key: value for key, value in (("service", service), ("scope", scope)) if value}
        try:
            if auth.identity_token:
                form = {
                    **params,
                    "grant_type": "refresh_token",
                    "refresh_token": auth.identity_token,
                    "client_id": "cutaway-cri",
                }
                response = await self._session.post(realm, data=form)
            else:
                headers = {"Authorization": _basic_header(auth)} if auth.username else {}
                response = await self._session.get(realm, params=params, headers=headers)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise Unavailable(f"token server {realm}: {error or type(error).__name__}") from error
        async with response:
            data = await self._bounded(response, _TOKEN_BYTES_MAX)
            if response.status != 200:
                raise PermissionDenied(f"token server {realm} answered {response.status}: authorization failed")
        try:
            answer = msgspec.json.decode(data)
            return str(answer.get("token") or answer["access_token"])
        except (msgspec.DecodeError, RecursionError, KeyError, AttributeError) as error:
            raise PermissionDenied(f"token server {realm} answered no token") from error


def _basic_header(auth: Credentials) -> str:
    return "Basic " + base64.b64encode(f"{auth.username}:{auth.password}".encode()).decode()


def _stated_media_type(data: bytes) -> str:
    try:
        document: Any = content.parse_json(data, "manifest")
    except InvalidArgument:
        return ""
    return str(document.get("mediaType") or "") if isinstance(document, dict) else ""
