"""`python -m lab.compose_addons`: gives the compose lab the objects that `cutaway up` gives its clusters, and ends."""

from __future__ import annotations

import asyncio

from lab import addons, compose
from lab.pki import Pki
from machinery.client.api_client import ApiClient
from machinery.component.tls import TlsFiles


async def run() -> None:
    """Apply every add-on over gRPC. Raises LabError if no apiserver answers."""
    cluster = compose.describe([])
    identity = Pki(cluster.pki).client("admin", "kubernetes-admin", ["system:masters"])
    tls = TlsFiles(ca_file=str(identity.ca_file), cert_file=str(identity.cert_file), key_file=str(identity.key_file))
    client = await ApiClient.connect([f"{ip}:6444" for ip in compose.MASTER_IPS], tls, user_agent="cutaway")
    try:
        await addons.apply(client, cluster, print)
    finally:
        await client.close()


if __name__ == "__main__":
    asyncio.run(run())
