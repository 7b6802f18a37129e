"""A whole scheduler of one's own: pods with `schedulerName: first-fit` fill the Ready nodes one after the other.

    python examples/scheduler_whole.py --apiserver 127.0.0.1:6444 --tls-ca-file … --tls-cert-file … --tls-key-file …

or in the place of the cluster's own, for every pod:

    cutaway swap scheduler -- .venv/bin/python examples/scheduler_whole.py --config {config} --pods-of default-scheduler

It is a client of the apiserver like any other: two informers, a work queue, one binding. The apiserver refuses to bind
a pod twice, so it needs no more than that to be correct beside the cluster's own scheduler.
"""

from __future__ import annotations

from typing import Any

from lightkube.models import core_v1

from machinery.api import conditions, kinds
from machinery.client.api_client import ApiClient
from machinery.client.controller import Controller
from machinery.client.informer import Informer, wait_synced
from machinery.component import config, process

NAME = "first-fit"
PODS_PER_NODE = 20


class FirstFitConfig(config.ComponentConfig):
    pods_of: str = NAME


async def serve(ctx: process.Context[FirstFitConfig]) -> None:
    client = await ApiClient.connect(ctx.config.apiserver, ctx.config.tls, user_agent=NAME)
    ctx.on_stop(client.close)
    nodes: Informer[core_v1.Node] = Informer(client, kinds.NODE)
    pods: Informer[core_v1.Pod] = Informer(client, kinds.POD, indexers={"node": room_taken_on})

    async def schedule(key: str) -> None:
        pod = pods.lister.by_key(key)
        if (
            pod is None
            or pod.spec.nodeName
            or pod.spec.schedulerName != ctx.config.pods_of
            or pod.metadata.deletionTimestamp
        ):
            return
        ready = [node for node in nodes.lister if conditions.is_condition(node.status.conditions, "Ready")]
        for node in sorted(ready, key=lambda node: node.metadata.name):
            if len(pods.lister.by_index("node", node.metadata.name)) < PODS_PER_NODE:
                await client.create(
                    kinds.POD, binding(pod, node), pod.metadata.namespace, name=pod.metadata.name, subresource="binding"
                )
                return
        raise RuntimeError(f"no node has room for {key}")  # Tried again with back-off.

    controller = Controller(NAME, schedule, workers=1)
    pods.add_handler(controller.enqueue)
    for part in (nodes, pods):
        ctx.tasks.create_task(part.run(), name=f"informer {part.kind.resource}")
    await wait_synced(nodes, pods, timeout=60)
    ctx.tasks.create_task(controller.run(), name=NAME)


def room_taken_on(pod: core_v1.Pod) -> list[str]:
    """The node on which a pod takes room; a pod that has ended takes none."""
    ended = pod.status is not None and pod.status.phase in ("Succeeded", "Failed")
    return [] if ended else [pod.spec.nodeName or ""]


def binding(pod: core_v1.Pod, node: core_v1.Node) -> dict[str, Any]:
    metadata = {"name": pod.metadata.name, "namespace": pod.metadata.namespace, "uid": pod.metadata.uid}
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": metadata,
        "target": {"kind": "Node", "name": node.metadata.name},
    }


if __name__ == "__main__":
    process.run(serve, config.load(FirstFitConfig, prog=NAME))
