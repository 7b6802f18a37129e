"""What every cluster gets besides its components: objects in `deploy/addons/*.yaml`, kept by server-side apply."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from lab.cluster import PROJECT_ROOT, Cluster
from lab.errors import LabError
from lab.progress import Say
from machinery.api import errors, kinds
from machinery.client.api_client import ApiClient
from machinery.component import yaml_text

ADDONS = PROJECT_ROOT / "deploy" / "addons"
FIELD_MANAGER = "cutaway-addons"
ANSWER_SECONDS = 60.0
ASK_PAUSE_SECONDS = 0.05


def documents(cluster: Cluster, folder: Path = ADDONS) -> list[dict[str, Any]]:
    """Every object of every file, with the cluster's addresses put in place of `{{…}}`."""
    found = []
    for path in sorted(folder.glob("*.yaml")):
        text = path.read_text().replace("{{dns_ip}}", cluster.addresses.dns_ip)
        found += [document for document in yaml_text.load_all(text) if document]
    return found


async def apply(client: ApiClient, cluster: Cluster, say: Say, folder: Path = ADDONS) -> None:
    """Make the objects be as the folder's files say, as soon as the apiserver answers.

    What can't be applied is told, and keeps nothing else from it.
    """
    await _wait_answer(client)
    for document in documents(cluster, folder):
        kind = kinds.find(document["apiVersion"], document["kind"])
        assert kind is not None, document["kind"]
        try:
            await client.apply(kind, document, field_manager=FIELD_MANAGER, force=True)
        except errors.ApiError as error:
            say(f"add-on {document['kind']}/{document['metadata']['name']}: {error}")


async def _wait_answer(client: ApiClient) -> None:
    """Return once the apiserver answers. Raises LabError if it does not within a minute."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                try:
                    await client.get(kinds.NAMESPACE, "kube-system", timeout=5)
                except (errors.ServiceUnavailable, errors.NotFound, errors.Timeout):
                    await asyncio.sleep(ASK_PAUSE_SECONDS)
                else:
                    return
    except TimeoutError as error:
        raise LabError("the apiserver does not answer", "`cutaway logs apiserver` says why") from error
