"""An autoscaler on metrics that another server of the cluster answers, through the apiserver's aggregation."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio
from aiohttp import web

from machinery.api import kinds, objects
from tests.integration.apiserver_rest.test_proxy import own_address
from tests.support.control_plane import ControlPlane
from tests.support.controllers import deployment

CUSTOM, EXTERNAL = "custom.metrics.k8s.io", "external.metrics.k8s.io"
VERSIONS = {CUSTOM: "v1beta2", EXTERNAL: "v1beta1"}


class Adapter:
    """A metrics adapter: `values` by the last part of a path; what it was asked is in `asked`."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.pods: list[str] = []
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def answer(self, request: web.Request) -> web.Response:
        parts = request.path.strip("/").split("/")
        if parts[0] != "apis":
            raise web.HTTPNotFound  # The apiserver asks for OpenAPI documents too.
        group, version, rest = parts[1], parts[2], parts[3:]
        if not rest:
            entry = {"name": "x", "singularName": "", "namespaced": True, "kind": "MetricValueList", "verbs": ["get"]}
            body = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{group}/{version}"}
            return web.json_response({**body, "resources": [entry]})
        self.asked.append((request.path, dict(request.query)))
        name = rest[-1]
        if name not in self.values:
            status = {"kind": "Status", "apiVersion": "v1", "message": f"{name} is not known", "code": 404}
            return web.json_response(status, status=404)
        now = objects.now_rfc3339()
        item: dict[str, Any] = {"value": self.values[name], "timestamp": now, "metricName": name}
        described = self.pods if "*" in rest else ["main"]
        items = [{**item, "describedObject": {"kind": "Pod", "name": each}} for each in described]
        body = {"kind": "MetricValueList", "apiVersion": f"{group}/{version}", "metadata": {}}
        return web.json_response({**body, "items": items})


@pytest_asyncio.fixture
async def scene(tmp_path: Path) -> AsyncIterator[tuple[ControlPlane, Adapter]]:
    plane = ControlPlane(tmp_path, autoscaler_seconds=1.0)
    plane.settings["rest"] = [f"https://127.0.0.1:{plane.server.rest_port}"]
    adapter, address = Adapter(), own_address()
    async with plane:
        identity = plane.server.pki.server("adapter", "adapter", ["adapter.default.svc"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(identity.cert_file, identity.key_file)
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", adapter.answer)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, address, 0, ssl_context=context).start()
        await register(plane, address, runner.addresses[0][1])
        try:
            yield plane, adapter
        finally:
            await runner.cleanup()


async def register(plane: ControlPlane, address: str, port: int) -> None:
    service = {"metadata": {"name": "adapter"}, "spec": {"ports": [{"port": 443}]}}
    await plane.client.create(kinds.SERVICE, {"apiVersion": "v1", "kind": "Service", **service}, "default")
    subsets = [{"addresses": [{"ip": address}], "ports": [{"port": port}]}]
    endpoints = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "adapter"}, "subsets": subsets}
    await plane.client.create(kinds.ENDPOINTS, endpoints, "default")
    bundle = base64.b64encode(plane.server.pki.ca_file.read_bytes()).decode()
    for group, version in VERSIONS.items():
        spec = {
            "group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100,
            "service": {"name": "adapter", "namespace": "default", "port": 443}, "caBundle": bundle,
        }  # fmt: skip
        api_service = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService"}
        await plane.kubectl(
            "create", "-f", "-", stdin={**api_service, "metadata": {"name": f"{version}.{group}"}, "spec": spec}
        )
    names = [f"apiservice/{version}.{group}" for group, version in VERSIONS.items()]
    await plane.kubectl("wait", "--for=condition=Available", *names, "--timeout=30s")


def autoscaler(name: str, *metrics: dict[str, Any]) -> dict[str, Any]:
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": 1, "maxReplicas": 10, "metrics": list(metrics),
    }  # fmt: skip
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": spec,
    }


async def status(plane: ControlPlane, name: str) -> dict[str, Any]:
    hpa = await plane.client.get(kinds.HORIZONTAL_POD_AUTOSCALER, name, "default")
    found: dict[str, Any] = objects.to_dict(hpa).get("status") or {}
    return found


async def replicas(plane: ControlPlane, name: str) -> int:
    return int((await plane.client.get(kinds.DEPLOYMENT, name, "default")).spec.replicas)


async def test_pods_objects_and_external_metrics_move_the_scale(scene: tuple[ControlPlane, Adapter]) -> None:
    plane, adapter = scene
    await plane.client.create(kinds.DEPLOYMENT, deployment("web", 2), "default")

    async def ready() -> bool:
        found = await plane.client.get(kinds.DEPLOYMENT, "web", "default")
        return (found.status.readyReplicas if found.status else 0) == 2

    await plane.until(ready, "two pods are ready")
    adapter.pods = [pod.metadata.name for pod in await plane.client.list(kinds.POD, "default")]
    adapter.values = {"requests": "15", "hits": "100", "queue": "1"}
    per_pod = {"metric": {"name": "requests"}, "target": {"type": "AverageValue", "averageValue": "10"}}
    ingress = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "main"}
    of_object = {"metric": {"name": "hits"}, "describedObject": ingress, "target": {"type": "Value", "value": "100"}}
    selected = {"name": "queue", "selector": {"matchLabels": {"name": "jobs"}}}
    outside = {"metric": selected, "target": {"type": "AverageValue", "averageValue": "5"}}
    hpa = autoscaler(
        "web", {"type": "Pods", "pods": per_pod}, {"type": "Object", "object": of_object},
        {"type": "External", "external": outside},
    )  # fmt: skip
    await plane.client.create(kinds.HORIZONTAL_POD_AUTOSCALER, hpa, "default")

    async def grown() -> bool:
        # The scale moves first, the status is written after it.
        return await replicas(plane, "web") == 3 and "currentMetrics" in await status(plane, "web")

    await plane.until(grown, "three replicas for fifteen requests a pod")
    found = await status(plane, "web")
    assert [metric["type"] for metric in found["currentMetrics"]] == ["Pods", "Object", "External"]
    assert found["currentMetrics"][1]["object"]["current"] == {"value": "100"}
    paths = dict(adapter.asked)
    prefix = f"/apis/{CUSTOM}/v1beta2/namespaces/default"
    assert paths[f"{prefix}/pods/*/requests"] == {"labelSelector": "app=web"}
    assert f"{prefix}/ingresses.networking.k8s.io/main/hits" in paths
    assert paths[f"/apis/{EXTERNAL}/v1beta1/namespaces/default/queue"] == {"labelSelector": "name=jobs"}

    # A metric that the adapter does not know: in its words, and the scale stays.
    await plane.client.create(kinds.DEPLOYMENT, deployment("other", 2), "default")
    metric = {"metric": {"name": "absent"}, "target": {"type": "AverageValue", "averageValue": "10"}}
    hpa = autoscaler("other", {"type": "Pods", "pods": metric})
    await plane.client.create(kinds.HORIZONTAL_POD_AUTOSCALER, hpa, "default")

    async def said() -> bool:
        conditions = (await status(plane, "other")).get("conditions", ())
        return any(c["reason"] == "FailedGetPodsMetric" and "absent is not known" in c["message"] for c in conditions)

    await plane.until(said, "a condition with the adapter's words")
    assert await replicas(plane, "other") == 2
