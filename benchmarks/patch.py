"""Microseconds of CPU for what every write goes through in the apiserver: schema and patch.

    python -m benchmarks.patch [--rounds N]

CPU time of the best of several rounds, so that other processes on the machine don't count.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from typing import Any

from machinery.api import kinds
from services.apiserver.patch import apply, json_patch, managed_fields, merge_patch, strategic
from services.apiserver.schema import custom, defaults, definitions, intake, validate

NOW = "2026-11-23T00:00:00Z"
CALLS = 300


def pod() -> dict[str, Any]:
    """A pod as a Deployment makes it: one container with ports, environment, probe, resources and a mount."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web-0", "namespace": "default", "labels": {"app": "web", "tier": "front"}},
        "spec": {
            "containers": [
                {
                    "name": "web",
                    "image": "nginx:1.27",
                    "ports": [{"containerPort": 80, "name": "http"}],
                    "env": [{"name": "A", "value": "b"}],
                    "resources": {"limits": {"cpu": "500m", "memory": "128Mi"}},
                    "readinessProbe": {"httpGet": {"port": 80}},
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                }
            ],
            "volumes": [{"name": "data", "emptyDir": {}}],
            "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
        },
    }


def deployment() -> dict[str, Any]:
    """A Deployment of that pod."""
    one = pod()
    labels = one["metadata"]["labels"]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": one["spec"]},
        },
    }


def status() -> dict[str, Any]:
    """What a kubelet writes when the pod runs."""
    conditions = [{"type": kind, "status": "True", "lastTransitionTime": NOW} for kind in ("Ready", "PodScheduled")]
    container = {"name": "web", "ready": True, "restartCount": 0, "image": "nginx:1.27", "imageID": "sha256:1"}
    return {
        "phase": "Running",
        "conditions": conditions,
        "containerStatuses": [container],
        "podIP": "10.0.0.1",
        "podIPs": [{"ip": "10.0.0.1"}],
    }


def measure(name: str, work: Callable[[], object], rounds: int, *, less: float = 0.0) -> float:
    """Print and return the microseconds of one call, less what its set-up costs."""
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        for _ in range(CALLS):
            work()
        best = min(best, (time.process_time() - started) / CALLS * 1e6)
    print(f"{name:58} {best - less:8.1f} µs")
    return best - less


def main() -> None:
    """Run them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds

    def new_pod() -> dict[str, Any]:
        obj = copy.deepcopy(source)
        intake.take_in(kinds.POD, obj, "Strict")
        defaults.apply_defaults(kinds.POD, obj)
        assert not validate.validate_create(kinds.POD, obj)
        return obj

    source = pod()
    copied = measure("(a deep copy of the pod)", lambda: copy.deepcopy(source), rounds)
    measure("pod: take in, default, validate", new_pod, rounds, less=copied)

    stored = new_pod()
    measure(
        "pod: validate an update that leaves the spec",
        lambda: validate.validate_update(kinds.POD, stored, stored),
        rounds,
    )
    node = definitions.node_named("io.k8s.api.core.v1.Pod")
    record = managed_fields.record_update
    who: dict[str, Any] = {"manager": "kubelet", "api_version": "v1", "now": NOW}
    measure("managed fields: create of the pod", lambda: record(node, None, stored, **who), rounds)
    stored["metadata"]["managedFields"] = record(node, None, stored, **who)
    running = {**stored, "status": status()}
    write = {**who, "subresource": "status"}
    measure("managed fields: first status", lambda: record(node, stored, running, **write), rounds)
    entries = record(node, stored, running, **write)
    running = {**running, "metadata": {**stored["metadata"], "managedFields": entries}}
    unready = copy.deepcopy(running)
    unready["status"]["conditions"][0]["status"] = "False"
    measure(
        "managed fields: one condition changes",
        lambda: record(node, running, unready, **write),
        rounds,
    )
    measure("managed fields: nothing changes", lambda: record(node, running, running, **write), rounds)

    kind = kinds.DEPLOYMENT
    tree = definitions.node_named("io.k8s.api.apps.v1.Deployment")
    live = defaults.apply_defaults(kind, deployment())
    containers = [{"name": "web", "image": "nginx:1.28"}]
    change = {
        "spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "web"}], "containers": containers}}}
    }
    measure("deployment: strategic merge of an image", lambda: strategic.apply(live, change, tree), rounds)
    five = {"spec": {"replicas": 5}}
    measure("deployment: merge patch of replicas", lambda: merge_patch.apply(live, five), rounds)
    operations = [{"op": "replace", "path": "/spec/replicas", "value": 5}]
    measure("deployment: JSON patch of replicas", lambda: json_patch.apply(live, operations), rounds)
    config = deployment()
    me: dict[str, Any] = {"manager": "me", "api_version": "apps/v1", "now": NOW}
    applied = defaults.apply_defaults(kind, apply.apply(tree, None, config, **me).obj)
    measure("deployment: server-side apply, no change", lambda: apply.apply(tree, applied, config, **me), rounds)
    config = deployment()
    config["spec"]["replicas"] = 4
    measure("deployment: server-side apply of replicas", lambda: apply.apply(tree, applied, config, **me), rounds)

    color = {"type": "string", "enum": ["red", "blue"], "default": "red"}
    size = {"type": "integer", "minimum": 1}
    spec = {"type": "object", "properties": {"color": color, "size": size}}
    schema = custom.CustomSchema({"type": "object", "properties": {"spec": spec}}, kind="Shirt", version="v1")
    shirt = {"apiVersion": "a.b/v1", "kind": "Shirt", "metadata": {"name": "x"}, "spec": {"color": "blue", "size": 3}}

    def judge() -> None:
        schema.take_in(shirt)
        schema.default(shirt)
        assert not schema.validate_create(shirt)

    measure("custom resource: take in, default, validate", judge, rounds)


if __name__ == "__main__":
    main()
