"""Tokens by which hosts join, and the two ConfigMaps that a joining host reads.

`kube-public/cluster-info` (a kubeconfig without a user; the bootstrap-signer controller signs it with each token) and
`kube-system/cutaway-join` (where the masters answer over gRPC, and the cluster's slot, which its address ranges follow
from).
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import json
import secrets
import string
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from lab import addons, admin, components, network, supervisor_client
from lab import cluster as clusters
from lab import up as upping
from lab.cluster import PROJECT_ROOT, Cluster
from lab.errors import LabError
from lab.pki import Pki
from lab.progress import Say
from machinery.api import errors, kinds
from machinery.client.api_client import ApiClient

GROUP = "system:bootstrappers:cutaway:join"
SECRET_TYPE = "bootstrap.kubernetes.io/token"  # noqa: S105 - a type, not a secret
NAMESPACE = "kube-system"
INFO_NAME = "cutaway-join"
ACCESS = PROJECT_ROOT / "deploy" / "join"
# The controller-manager signs within milliseconds; longer means that none leads.
SIGNED_SECONDS = 20.0
_ALPHABET = string.ascii_lowercase + string.digits


@dataclass(frozen=True, slots=True)
class Token:
    """A bootstrap token as `cutaway token list` shows it: never the secret half."""

    token_id: str
    expires: str
    description: str


def new_token() -> tuple[str, str]:
    """(id, secret) of a token: 6 and 16 characters, the latter with 82 bits of chance."""
    return tuple("".join(secrets.choice(_ALPHABET) for _ in range(size)) for size in (6, 16))  # type: ignore[return-value]


def secret_of(token_id: str, secret: str, expires: datetime.datetime, description: str) -> dict[str, Any]:
    """The Secret that a token is (KEP-130)."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": SECRET_TYPE,
        "metadata": {"name": f"bootstrap-token-{token_id}", "namespace": NAMESPACE},
        "stringData": {
            "token-id": token_id,
            "token-secret": secret,
            "expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "usage-bootstrap-authentication": "true",
            "usage-bootstrap-signing": "true",
            "auth-extra-groups": GROUP,
            "description": description,
        },
    }


def ca_hash(ca_pem: bytes) -> str:
    """The pin of a CA: "sha256:" and the digest of its public key (RFC 7469's, in hex as kubeadm writes it)."""
    key = x509.load_pem_x509_certificate(ca_pem).public_key()
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{hashlib.sha256(der).hexdigest()}"


def cluster_info(server: str, ca_pem: bytes) -> str:
    """The kubeconfig of `kube-public/cluster-info`."""
    authority = base64.b64encode(ca_pem).decode()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "", "cluster": {"server": server, "certificate-authority-data": authority}}],
    }
    return yaml.safe_dump(document, sort_keys=False)


def join_info(cluster: Cluster) -> dict[str, Any]:
    """What a host must know besides: see the module."""
    addresses = [f"{cluster.advertise}:{cluster.grpc_port(index)}" for index in range(cluster.masters)]
    return {"cluster": cluster.name, "slot": cluster.slot, "apiservers": addresses}


def create(home: Path, address: str, lifetime: datetime.timedelta, description: str, say: Say) -> str:
    """Make a token, after the cluster was made ready for hosts that reach its masters at `address`.

    Returns the command to give on the new host. An empty `address` is the one of before, or this host's own.
    """
    cluster = _advertised(clusters.require(home), address, say)
    token_id, secret = new_token()
    expires = datetime.datetime.now(datetime.UTC) + lifetime
    asyncio.run(_publish(cluster, secret_of(token_id, secret, expires, description), say))
    pin = ca_hash(Pki(cluster.pki).ca_file.read_bytes())
    server = f"{cluster.advertise}:{cluster.port(6443)}"
    return f"cutaway join {server} --token {token_id}.{secret} --ca-hash {pin}"


def _advertised(cluster: Cluster, address: str, say: Say) -> Cluster:
    """The cluster with its masters' certificate and endpoints valid at the address."""
    if cluster.hollow:
        raise LabError("hosts join a cluster of real nodes, and this one is hollow", "`cutaway up` without --hollow")
    address = address or cluster.advertise or own_address()
    if address == cluster.advertise:
        return cluster
    changed = replace(cluster, advertise=address)
    changed.save()
    upping.write(changed, components.control_plane(changed, Pki(changed.pki)))
    supervisor_client.call(changed.home, "apply")
    names = [changed.replica("apiserver", index) for index in range(changed.masters)]
    asyncio.run(upping.wait_healthy(changed, lambda _: None, names))
    say(f"the masters answer at {address}")
    return changed


def own_address() -> str:
    """The address from which this host reaches others. Raises LabError where there is no default route."""
    routes = json.loads(network.run("ip", "-json", "route", "get", "192.0.2.1", check=False) or "[]")
    if not routes or not routes[0].get("prefsrc"):
        raise LabError("this host has no default route", "say with --address where others reach it")
    return str(routes[0]["prefsrc"])


async def _publish(cluster: Cluster, secret: dict[str, Any], say: Say) -> None:
    server = f"https://{cluster.advertise}:{cluster.port(6443)}"
    info = cluster_info(server, Pki(cluster.pki).ca_file.read_bytes())
    maps = [
        ("kube-public", "cluster-info", {"kubeconfig": info}),
        (NAMESPACE, INFO_NAME, {"join.json": json.dumps(join_info(cluster))}),
    ]
    client = await admin.client(cluster)
    try:
        await addons.apply(client, cluster, say, ACCESS)
        for namespace, name, data in maps:
            meta = {"name": name, "namespace": namespace}
            document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}
            await client.apply(kinds.CONFIG_MAP, document, field_manager=addons.FIELD_MANAGER, force=True)
        await client.create(kinds.SECRET, secret)
        await _wait_signed(client, secret["stringData"]["token-id"])
    finally:
        await client.close()


async def _wait_signed(client: ApiClient, token_id: str) -> None:
    """Until a host that comes with the token at once will be believed: the controller-manager signs a moment later."""
    wanted = f"jws-kubeconfig-{token_id}"
    try:
        async with asyncio.timeout(SIGNED_SECONDS):
            async for batch in client.watch(
                kinds.CONFIG_MAP, "kube-public", field_selector="metadata.name=cluster-info"
            ):
                if any(wanted in (info.data or {}) for _, info in batch.events):
                    return
    except TimeoutError as error:
        raise LabError(
            "the token is made, but the controller-manager has not signed it", "`cutaway status` says how it is"
        ) from error


async def listed(cluster: Cluster) -> list[Token]:
    """Every token that there is."""
    client = await admin.client(cluster)
    try:
        found = await client.list(kinds.SECRET, NAMESPACE, field_selector=f"type={SECRET_TYPE}")
    finally:
        await client.close()
    tokens = []
    for secret in found.items:
        data = {name: base64.b64decode(value).decode() for name, value in (secret.data or {}).items()}
        tokens.append(Token(data.get("token-id", ""), data.get("expiration", "never"), data.get("description", "")))
    return sorted(tokens, key=lambda token: token.token_id)


async def delete(cluster: Cluster, token_id: str) -> None:
    """Make a token worthless. Raises LabError if there is none of this id."""
    token_id = token_id.partition(".")[0]
    client = await admin.client(cluster)
    try:
        await client.delete(kinds.SECRET, f"bootstrap-token-{token_id}", NAMESPACE)
    except errors.NotFound as error:
        raise LabError(f"there is no token {token_id!r}", "`cutaway token list`") from error
    finally:
        await client.close()
