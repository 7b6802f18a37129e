"""Pods, policies and namespaces as kube-proxy reads them."""

import msgspec

from machinery.api.service_views import Namespace
from services.kube_proxy import api

NAMESPACES = [msgspec.convert({"metadata": {"name": n, "labels": {"team": n}}}, Namespace) for n in ("x", "y")]


def pod(name, ip, namespace="x", labels=None, node="n1", ports=(), **status):
    spec = {"nodeName": node, "containers": [{"ports": [{"name": n, "containerPort": p} for n, p in ports]}]}
    spec |= status.pop("spec", {})
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": namespace, "labels": labels or {"app": name}},
            "spec": spec,
            "status": {"podIP": ip, "phase": "Running"} | status,
        },
        api.Pod,
    )


def policy(name="p", namespace="x", **spec):
    body = {"metadata": {"name": name, "namespace": namespace}, "spec": {"podSelector": {}} | spec}
    return msgspec.convert(body, api.NetworkPolicy)
