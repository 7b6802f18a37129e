"""Calling a webhook: where it is, TLS by its own CA, one POST, no redirects."""

from __future__ import annotations

import asyncio
import base64
import random
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from machinery.api import errors

if TYPE_CHECKING:
    import aiohttp

    from services.apiserver.lookup import Lookup

ANSWER_BYTES_MAX = 3 * 1024 * 1024
"""A webhook's answer may hold no more than a request body may."""


class WebhookFailed(Exception):
    """It could not be asked, or its answer makes no sense. What follows is for its failure policy to say."""


class WebhookClient:
    """Posts reviews. Connections are kept."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def post(self, config: Mapping[str, Any], body: Mapping[str, Any], timeout_seconds: float) -> Any:
        """The decoded answer of the server that a WebhookClientConfig names. Raises WebhookFailed."""
        import aiohttp

        url, host = self._address(config)
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers={"User-Agent": "kube-apiserver-admission"}, cookie_jar=aiohttp.DummyCookieJar()
            )
        try:
            async with asyncio.timeout(timeout_seconds):
                async with self._session.post(
                    url, data=orjson.dumps(body), ssl=self._context(config), server_hostname=host,
                    allow_redirects=False,
                    headers={"Content-Type": "application/json", "Accept": "application/json"},
                ) as response:  # fmt: skip
                    if response.status != 200:
                        raise WebhookFailed(f"an error on the server ({response.status} {response.reason})")
                    return orjson.loads(await _whole(response))
        except TimeoutError as err:
            raise WebhookFailed(f'Post "{url}?timeout={timeout_seconds:g}s": context deadline exceeded') from err
        except (aiohttp.ClientError, ssl.SSLError, OSError) as err:
            raise WebhookFailed(f'Post "{url}": {err}') from err
        except orjson.JSONDecodeError as err:
            raise WebhookFailed(f"the answer is not JSON: {err}") from err

    def _address(self, config: Mapping[str, Any]) -> tuple[str, str]:
        """(URL, name that the server's certificate must have)."""
        if config.get("url"):
            return config["url"], urlsplit(config["url"]).hostname or ""
        service = config.get("service") or {}
        namespace, name = service.get("namespace", ""), service.get("name", "")
        address, port = self._endpoint(namespace, name, int(service.get("port") or 443))
        path = (service.get("path") or "/").lstrip("/")
        host = f"[{address}]" if ":" in address else address
        return f"https://{host}:{port}/{path}", f"{name}.{namespace}.svc"

    def _endpoint(self, namespace: str, name: str, port: int) -> tuple[str, int]:
        """An endpoint of a Service. The apiserver's own host need not have the nodes' Service rules."""
        service = self._lookup.get("services", namespace, name)
        if service is None:
            raise WebhookFailed(f'service "{name}" not found')
        spec = service["spec"]
        if spec.get("type") == "ExternalName":
            return str(spec.get("externalName")), port
        wanted = next((item for item in spec.get("ports") or () if item.get("port") == port), None)
        if wanted is None:
            raise WebhookFailed(f'no service port {port} found for service "{name}"')
        found: list[tuple[str, int]] = []
        for part in self._lookup.list("endpointslices.discovery.k8s.io", namespace):
            if (part["metadata"].get("labels") or {}).get("kubernetes.io/service-name") != name:
                continue
            number = next(
                (
                    item.get("port")
                    for item in part.get("ports") or ()
                    if (item.get("name") or "") == (wanted.get("name") or "")
                ),
                None,
            )
            for endpoint in part.get("endpoints") or ():
                if number and (endpoint.get("conditions") or {}).get("ready") is not False:
                    found += [(address, number) for address in endpoint.get("addresses") or ()]
        if not found:
            raise WebhookFailed(f'no endpoints available for service "{name}"')
        return random.choice(found)  # noqa: S311

    def _context(self, config: Mapping[str, Any]) -> ssl.SSLContext:
        bundle = config.get("caBundle") or ""
        context = self._contexts.get(bundle)
        if context is None:
            try:
                data = base64.b64decode(bundle).decode("ascii") if bundle else None
                context = ssl.create_default_context(cadata=data)
            except (ValueError, ssl.SSLError) as err:
                raise WebhookFailed(f"unable to load root certificates: {err}") from err
            self._contexts[bundle] = context
        return context


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    """The answer's body. Raises WebhookFailed before it is larger than what may be read."""
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > ANSWER_BYTES_MAX:
            raise WebhookFailed(f"the answer is longer than {ANSWER_BYTES_MAX} bytes")
        parts.append(part)
    return b"".join(parts)


def failed(name: str, reason: str) -> errors.InternalError:
    """What the caller hears when a webhook that must be asked can't be."""
    message = f'Internal error occurred: failed calling webhook "{name}": failed to call webhook: {reason}'
    return errors.InternalError(message, causes=[errors.Cause("", message.removeprefix("Internal error occurred: "))])
