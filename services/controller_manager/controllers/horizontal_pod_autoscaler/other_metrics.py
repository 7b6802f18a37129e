"""Metrics of other servers in the cluster: custom.metrics.k8s.io (of pods and objects) and external.metrics.k8s.io.

They are aggregated APIs whose paths hold what other APIs have in fields, so they are asked over the apiserver's REST
front, as our own user.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import aiohttp

from machinery.api import kinds, objects
from machinery.api.quantity import QuantityError, parse_quantity
from machinery.component import tls
from services.controller_manager.controllers.horizontal_pod_autoscaler.replicas import Usage

CUSTOM, EXTERNAL = "custom.metrics.k8s.io", "external.metrics.k8s.io"
WINDOW_SECONDS = 60.0
"""Of a sample that does not say it: upstream's default."""
_TIMEOUT_SECONDS = 10.0


class Unavailable(Exception):
    """A metric can't be had; in upstream's words."""


class OtherMetrics:
    """Reads them. `urls` are those of the apiservers' REST fronts; none: there are no such metrics."""

    def __init__(self, urls: Sequence[str], files: tls.TlsFiles) -> None:
        self._urls = list(urls)
        self._files = files
        self._context: ssl.SSLContext | None = None

    async def of_pods(self, namespace: str, name: str, selector: str, metric_selector: str) -> dict[str, Usage]:
        """A metric of each pod that the selector takes. Raises Unavailable."""
        query = {"labelSelector": selector}
        if metric_selector:
            query["metricLabelSelector"] = metric_selector
        items = await self._custom(f"namespaces/{quote(namespace)}/pods/*/{quote(name, safe='')}", query)
        if not items:
            raise Unavailable("no metrics returned from custom metrics API")
        return {
            item["describedObject"]["name"]: Usage(
                _milli(item), objects.parse_time(item["timestamp"]), float(item.get("windowSeconds") or WINDOW_SECONDS)
            )
            for item in items
        }

    async def of_object(self, namespace: str, reference: dict[str, Any], name: str, metric_selector: str) -> int:
        """A metric of one object, in thousandths. Raises Unavailable."""
        metric = quote(name, safe="")
        kind, group = reference["kind"], reference.get("apiVersion", "").rpartition("/")[0]
        if kind == "Namespace" and not group:
            path = f"namespaces/{quote(namespace)}/metrics/{metric}"
        else:
            found = kinds.find(reference.get("apiVersion", ""), kind)
            plural = found.plural if found is not None else f"{kind.lower()}s"
            resource = f"{plural}.{group}" if group else plural
            path = f"namespaces/{quote(namespace)}/{resource}/{quote(reference['name'], safe='')}/{metric}"
        items = await self._custom(path, {"metricLabelSelector": metric_selector} if metric_selector else {})
        if len(items) != 1:
            text = f"the custom metrics API server returned {len(items)} results when we asked for exactly one"
            raise Unavailable(text)
        return _milli(items[0])

    async def external(self, namespace: str, name: str, selector: str) -> list[int]:
        """The values of a metric of nothing in the cluster, in thousandths. Raises Unavailable."""
        version = await self._version(EXTERNAL, "external")
        path = f"/apis/{EXTERNAL}/{version}/namespaces/{quote(namespace)}/{quote(name, safe='')}"
        answer = await self._get(path, {"labelSelector": selector} if selector else {}, "external")
        items = answer.get("items") or []
        if not items:
            raise Unavailable("no metrics returned from external metrics API")
        return [_milli(item) for item in items]

    async def _custom(self, path: str, query: dict[str, str]) -> list[dict[str, Any]]:
        version = await self._version(CUSTOM, "custom")
        answer = await self._get(f"/apis/{CUSTOM}/{version}/{path}", query, "custom")
        return list(answer.get("items") or [])

    async def _version(self, group: str, what: str) -> str:
        try:
            answer = await self._get(f"/apis/{group}", {}, what)
        except _Absent:
            answer = {}
        version = (answer.get("preferredVersion") or {}).get("version")
        if not version:
            text = f"no {what} metrics API ({group}) registered"
            raise Unavailable(f"unable to fetch metrics from {what} metrics API: {text}")
        return str(version)

    async def _get(self, path: str, query: dict[str, str], what: str) -> dict[str, Any]:
        if not self._urls:
            raise _Absent(f"unable to fetch metrics from {what} metrics API: the configuration names no REST address")
        if self._context is None:
            self._context = _context(self._files)
        url = random.choice(self._urls).rstrip("/") + path  # noqa: S311 - spreading load, not keeping a secret
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
        # A connection of its own for a few questions each fifteen seconds: none is kept that could go stale.
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(url, params=query, ssl=self._context, allow_redirects=False) as response,
            ):
                answer: dict[str, Any] = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as err:
            raise Unavailable(f"unable to fetch metrics from {what} metrics API: {str(err) or 'timed out'}") from err
        if response.status == 200:
            return answer
        said = answer.get("message") if isinstance(answer, dict) else None
        error = _Absent if response.status == 404 else Unavailable
        raise error(f"unable to fetch metrics from {what} metrics API: {said or f'HTTP status {response.status}'}")


class _Absent(Unavailable):
    pass


def _context(files: tls.TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files.ca_file)
    context.load_cert_chain(files.cert_file, files.key_file)
    return context


def _milli(item: dict[str, Any]) -> int:
    try:
        return parse_quantity(item["value"]).milli_value
    except (KeyError, QuantityError) as err:
        raise Unavailable(f"a metric value is no quantity: {err}") from err
