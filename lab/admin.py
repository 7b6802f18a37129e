"""The administrator of a cluster: their certificate, and a gRPC client with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.cluster import Cluster
from lab.pki import Identity, Pki

if TYPE_CHECKING:
    from machinery.client.api_client import ApiClient


def identity(cluster: Cluster) -> Identity:
    """The certificate of kubernetes-admin, a member of system:masters."""
    return Pki(cluster.pki).client("admin", "kubernetes-admin", ["system:masters"])


async def client(cluster: Cluster) -> ApiClient:
    """A gRPC client as the administrator. Does not wait for the apiserver."""
    # gRPC takes a third of a second to load; who only starts processes must not wait for it.
    from machinery.client.api_client import ApiClient
    from machinery.component.tls import TlsFiles

    mine = identity(cluster)
    tls = TlsFiles(ca_file=str(mine.ca_file), cert_file=str(mine.cert_file), key_file=str(mine.key_file))
    addresses = [f"127.0.0.1:{cluster.grpc_port(index)}" for index in range(cluster.masters)]
    return await ApiClient.connect(addresses, tls, user_agent="cutaway")
