"""Objects that the schema's tests share: complete, valid ones, as their authors write them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from machinery.api import kinds

Obj = dict[str, Any]

_POD_SPEC: Obj = {
    "containers": [
        {
            "name": "web",
            "image": "nginx:1.27",
            "ports": [{"containerPort": 80, "name": "http"}],
            "env": [
                {"name": "A", "value": "b"},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            ],
            "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}},
            "livenessProbe": {"httpGet": {"port": "http"}},
            "volumeMounts": [{"name": "config", "mountPath": "/etc/web"}],
        }
    ],
    "volumes": [{"name": "config", "configMap": {"name": "web"}}],
}


def _meta(name: str = "web") -> Obj:
    return {"name": name, "namespace": "default", "labels": {"app": "web"}}


_TEMPLATE: Obj = {"metadata": {"labels": {"app": "web"}}, "spec": _POD_SPEC}
_SELECTOR: Obj = {"matchLabels": {"app": "web"}}

VALID: dict[str, tuple[kinds.Kind, Obj]] = {
    "pod": (kinds.POD, {"apiVersion": "v1", "kind": "Pod", "metadata": _meta(), "spec": _POD_SPEC}),
    "deployment": (
        kinds.DEPLOYMENT,
        {"metadata": _meta(), "spec": {"replicas": 3, "selector": _SELECTOR, "template": _TEMPLATE}},
    ),
    "daemonset": (kinds.DAEMON_SET, {"metadata": _meta(), "spec": {"selector": _SELECTOR, "template": _TEMPLATE}}),
    "statefulset": (
        kinds.STATEFUL_SET,
        {
            "metadata": _meta(),
            "spec": {
                "selector": _SELECTOR,
                "serviceName": "web",
                "template": _TEMPLATE,
                "volumeClaimTemplates": [
                    {
                        "metadata": {"name": "data"},
                        "spec": {
                            "accessModes": ["ReadWriteOnce"],
                            "resources": {"requests": {"storage": "1Gi"}},
                        },
                    }
                ],
            },
        },
    ),
    "job": (
        kinds.JOB,
        {"metadata": _meta(), "spec": {"template": {"spec": {**_POD_SPEC, "restartPolicy": "Never"}}}},
    ),
    "cronjob": (
        kinds.CRON_JOB,
        {
            "metadata": _meta(),
            "spec": {
                "schedule": "*/5 * * * *",
                "timeZone": "Europe/Zurich",
                "jobTemplate": {"spec": {"template": {"spec": {**_POD_SPEC, "restartPolicy": "OnFailure"}}}},
            },
        },
    ),
    "service": (
        kinds.SERVICE,
        {"metadata": _meta(), "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}},
    ),
    "configmap": (kinds.CONFIG_MAP, {"metadata": _meta(), "data": {"game.properties": "lives=3"}}),
    "secret": (kinds.SECRET, {"metadata": _meta(), "data": {"user": "ZGJ1c2VyCg=="}}),
    "claim": (
        kinds.PERSISTENT_VOLUME_CLAIM,
        {
            "metadata": _meta(),
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        },
    ),
    "ingress": (
        kinds.INGRESS,
        {
            "metadata": _meta(),
            "spec": {
                "rules": [
                    {
                        "host": "www.example.com",
                        "http": {
                            "paths": [
                                {
                                    "path": "/",
                                    "pathType": "Prefix",
                                    "backend": {"service": {"name": "web", "port": {"number": 80}}},
                                }
                            ]
                        },
                    }
                ]
            },
        },
    ),
}


@pytest.fixture
def valid() -> Callable[[str], tuple[kinds.Kind, Obj]]:
    """A kind and a fresh valid object of it, by a short name."""

    def make(name: str) -> tuple[kinds.Kind, Obj]:
        kind, obj = VALID[name]
        return kind, copy.deepcopy(obj)

    return make
