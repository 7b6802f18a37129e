"""metrics.k8s.io/v1beta1: what pods and nodes use now, for `kubectl top` and autoscalers; read from the kubelets,
stored nowhere.

Upstream serves this group by an aggregated server (metrics-server). Here the apiserver asks each kubelet's Stats
itself and keeps the answer for a few seconds. An APIService of that name would be the way to put another server in
its place.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from machinery.api import errors
from machinery.api.kinds import Kind
from machinery.api.objects import now_rfc3339
from machinery.api.selectors import parse_label_selector
from services.apiserver.registry.resource import Resource
from services.apiserver.rest import negotiate, options, responses
from services.apiserver.rest.context import Call
from services.apiserver.rest.discovery import not_allowed

if TYPE_CHECKING:
    from services.apiserver.handlers import Handlers
    from services.apiserver.kubelet_proxy import KubeletProxy
    from services.apiserver.rest.verbs import Verbs

GROUP, VERSION = "metrics.k8s.io", "v1beta1"
FRESH_SECONDS = 5.0
KUBELET_SECONDS_MAX = 5.0
KUBELETS_AT_ONCE_MAX = 32
_WINDOW = "10s"


class MetricsApi:
    """Serves the group."""

    def __init__(self, handlers: Handlers, verbs: Verbs, kubelets: KubeletProxy) -> None:
        self._handlers = handlers
        self._verbs = verbs
        self._kubelets = kubelets
        self._stats: dict[str, tuple[float, Any]] = {}
        self._places = asyncio.Semaphore(KUBELETS_AT_ONCE_MAX)

    async def serve(self, call: Call, resource: Resource) -> web.StreamResponse:
        """Answer get and list."""
        info = call.info
        if info.verb not in ("get", "list") or info.subresource:
            raise not_allowed()
        self._handlers.authorize(self._verbs.request(call, resource))
        form = negotiate.choose(call.accept, protobuf=False)
        items = await (self._nodes(info.name) if resource.plural == "nodes" else self._pods(info.namespace, info.name))
        if info.verb == "get":
            if not items:
                raise errors.not_found(GROUP, resource.plural, info.name)
            document: dict[str, Any] = items[0]
        else:
            selector = parse_label_selector(options.first(call.query, "labelSelector"))
            chosen = [item for item in items if selector.matches(item["metadata"].get("labels"))]
            kind = f"{resource.kind.kind}List"
            document = {"kind": kind, "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}, "items": chosen}
        body = responses.represented(responses.json_bytes(document), form.media_type)
        return responses.json_response(body, content_type=form.content_type)

    async def _nodes(self, name: str) -> list[dict[str, Any]]:
        nodes = [node for node in self._kubelets.list_objects("nodes", "") if name in ("", node["metadata"]["name"])]
        stats = await self._stats_of(node["metadata"]["name"] for node in nodes)
        return [
            {**_head("NodeMetrics", node["metadata"]), "usage": _usage(stats[node["metadata"]["name"]].usage)}
            for node in nodes
            if stats.get(node["metadata"]["name"]) is not None
        ]

    async def _pods(self, namespace: str, name: str) -> list[dict[str, Any]]:
        pods = [
            pod
            for pod in self._kubelets.list_objects("pods", namespace)
            if name in ("", pod["metadata"]["name"])
            and (pod.get("spec") or {}).get("nodeName")
            and (pod.get("status") or {}).get("phase") == "Running"
        ]
        stats = await self._stats_of({pod["spec"]["nodeName"] for pod in pods})
        by_uid = {found.uid: found for one in stats.values() if one is not None for found in one.pods}
        items = []
        for pod in pods:
            found = by_uid.get(pod["metadata"]["uid"])
            if found is not None and found.containers:
                containers = [{"name": c.name, "usage": _usage(c.usage)} for c in found.containers]
                items.append({**_head("PodMetrics", pod["metadata"]), "containers": containers})
        return items

    async def _stats_of(self, nodes: Iterable[str]) -> dict[str, Any]:
        """What each kubelet says; None where one does not answer in time."""
        names = list(nodes)
        return dict(zip(names, await asyncio.gather(*map(self._one, names)), strict=True))

    async def _one(self, node: str) -> Any:
        known = self._stats.get(node)
        now = time.monotonic()
        if known is not None and now - known[0] < FRESH_SECONDS:
            return known[1]
        async with self._places:
            try:
                found = await self._kubelets.stats(node, KUBELET_SECONDS_MAX)
            except errors.ApiError:
                # A node that is away has no figures; the others' are served.
                found = None
        self._stats[node] = (now, found)
        return found


def _head(kind: str, meta: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {key: meta[key] for key in ("name", "namespace", "labels") if meta.get(key)}
    metadata["creationTimestamp"] = now_rfc3339()
    return {
        "kind": kind,
        "apiVersion": f"{GROUP}/{VERSION}",
        "metadata": metadata,
        "timestamp": now_rfc3339(),
        "window": _WINDOW,
    }


def _usage(usage: Any) -> dict[str, str]:
    return {"cpu": f"{usage.cpu_usage_nanocores}n", "memory": f"{usage.memory_working_set_bytes // 1024}Ki"}


def rows() -> list[Resource]:
    """The group's rows. They are this front's alone: over gRPC a component asks the kubelets themselves."""
    return [
        Resource(Kind(GROUP, VERSION, kind, plural, namespaced), "", verbs=("get", "list"))
        for plural, kind, namespaced in (("nodes", "NodeMetrics", False), ("pods", "PodMetrics", True))
    ]
