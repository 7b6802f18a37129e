"""A component of your own in fifty lines: deletes every ConfigMap whose annotation `example.org/ttl-seconds` has run
out.

    python -m examples.component_ttl --apiserver 127.0.0.1:6444 \\
        --tls-ca-file .cutaway/pki/ca.crt --tls-cert-file .cutaway/pki/admin.crt --tls-key-file .cutaway/pki/admin.key

`docs/write-a-component.md` explains it line by line.
"""

from datetime import UTC, datetime

from lightkube.models import core_v1

from machinery.api import kinds, objects
from machinery.client.api_client import ApiClient
from machinery.client.controller import Controller, Result
from machinery.client.informer import Informer
from machinery.component import config, process

ANNOTATION = "example.org/ttl-seconds"


def seconds_left(config_map: core_v1.ConfigMap, now: datetime) -> float | None:
    """What is decided: how long it may live still; None if it has no (valid) limit. Needs no cluster to be tested."""
    text = (config_map.metadata.annotations or {}).get(ANNOTATION, "")
    if not text.isdigit():
        return None
    return int(text) - (now - config_map.metadata.creationTimestamp).total_seconds()


async def serve(ctx: process.Context) -> None:
    """What is done: watch, decide, delete."""
    client = await ApiClient.connect(ctx.config.apiserver, ctx.config.tls, user_agent="ttl-controller")
    ctx.on_stop(client.close)
    config_maps = Informer(client, kinds.CONFIG_MAP)

    async def reconcile(key: str) -> Result | None:
        config_map = config_maps.lister.by_key(key)
        left = seconds_left(config_map, datetime.now(UTC)) if config_map else None
        if left is None:
            return None
        if left > 0:
            return Result(requeue_after_seconds=left)
        namespace, name = objects.split_key(key)
        await client.delete(kinds.CONFIG_MAP, name, namespace, uid=config_map.metadata.uid)
        return None

    controller = Controller("config-map-ttl", reconcile)
    config_maps.add_handler(controller.enqueue)
    ctx.tasks.create_task(config_maps.run(), name="informer")
    await config_maps.synced.wait()
    await controller.run()


if __name__ == "__main__":
    process.run(serve, config.load(config.ComponentConfig, prog="ttl-controller"))
