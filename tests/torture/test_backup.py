"""14. Backed up under load, restored on another home with other addresses: the revision never goes back."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from lab import cluster as clusters
from lab import components
from machinery.api import errors, kinds
from machinery.client.api_client import ApiClient
from machinery.component.tls import TlsFiles
from tests.support import lab_cluster
from tests.support.lab_cluster import LabCluster
from tests.support.postgres import find_binaries
from tests.support.torture import FULL, figure, full_only, times

BACKUPS = times(20, 2)
WEB = ("create", "deployment", "web", "--image=web:1", "--replicas=3")


async def client_of(cluster: LabCluster) -> ApiClient:
    described = clusters.require(cluster.home)
    pki = described.pki
    tls = TlsFiles(ca_file=str(pki / "ca.crt"), cert_file=str(pki / "admin.crt"), key_file=str(pki / "admin.key"))
    return await ApiClient.connect(f"127.0.0.1:{described.grpc_port(0)}", tls, user_agent="test")


class Load:
    """Writers that note what was acknowledged."""

    def __init__(self, client: ApiClient, place: str) -> None:
        self.client = client
        # A restored cluster has the objects of the one before it already.
        self.place = place
        self.acknowledged: dict[str, int] = {}
        self.ended = False

    async def run(self, number: int) -> None:
        for turn in itertools.count():
            if self.ended:
                return
            name = f"{self.place}-{number}-{turn}"
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "x" * 500}}
            made = await self.client.create(kinds.CONFIG_MAP, body, "default")
            self.acknowledged[name] = int(made.metadata.resourceVersion)
            await asyncio.sleep(0.005)


async def names(client: ApiClient) -> dict[str, int]:
    listed = await client.list(kinds.CONFIG_MAP, "default")
    return {item.metadata.name: int(item.metadata.resourceVersion) for item in listed}


def keys_of(cluster: LabCluster) -> tuple[str, str]:
    """What a restore elsewhere needs besides the back-up."""
    return "--keys", str(cluster.home / "pki" / components.ENCRYPTION_KEYS)


async def run(cluster: LabCluster, *arguments: str) -> str:
    return await asyncio.to_thread(cluster.cutaway, *arguments)


async def back_up_under_load(cluster: LabCluster, file: Path) -> tuple[dict[str, int], int]:
    """What must be in the back-up, and the newest revision that the cluster ever gave out."""
    client = await client_of(cluster)
    load = Load(client, cluster.home.name)
    tasks = [asyncio.create_task(load.run(number)) for number in range(4)]
    try:
        for turn in range(BACKUPS):
            await asyncio.sleep(0.3)
            before = dict(load.acknowledged)
            await run(cluster, "backup", str(file.with_suffix(f".{turn}")))
    finally:
        load.ended = True
        await asyncio.gather(*tasks)
    file.with_suffix(f".{BACKUPS - 1}").rename(file)
    # The future that the restored cluster knows nothing of.
    lost = await client.create(
        kinds.CONFIG_MAP,
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"lost-{cluster.home.name}"}},
        "default",
    )
    await client.close()
    return before, int(lost.metadata.resourceVersion)


async def check_restored(cluster: LabCluster, held: dict[str, int], seen: int) -> int:
    """The newest revision."""
    client = await client_of(cluster)
    found = await names(client)
    missing = held.keys() - found.keys()
    assert not missing, f"{len(missing)} of {len(held)} acknowledged writes are not in the back-up"
    assert all(found[name] == revision for name, revision in held.items())
    assert not any(name.startswith("lost-") and name not in held for name in found)
    # A client of the former cluster: what it saw last is gone, and it is told.
    with pytest.raises(errors.Expired):
        async with asyncio.timeout(10):
            await anext(aiter(client.watch(kinds.CONFIG_MAP, "default", after_revision=seen)))
    made = await client.create(
        kinds.CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"after-{seen}"}}, "default"
    )
    revision = int(made.metadata.resourceVersion)
    assert revision > seen
    await client.close()
    # The control plane works on: what runs is what was wanted, on this cluster's own addresses.
    await asyncio.to_thread(cluster.kubectl, "rollout", "status", "deployment/web", "--timeout=90s")
    # What pods are told to trust is this cluster's authority, and tokens that it signs are good.
    described = clusters.require(cluster.home)
    authority = (described.pki / "ca.crt").read_text()

    def trusts() -> bool:
        published = cluster.get("configmap", "kube-root-ca.crt")["data"]["ca.crt"]
        return str(published).strip() == authority.strip()

    await asyncio.to_thread(lab_cluster.eventually, trusts, what="the new authority is published")
    token = (await asyncio.to_thread(cluster.kubectl, "create", "token", "default")).strip()
    bare: tuple[str, ...] = ("--kubeconfig=/dev/null", f"--server={described.server}", f"--token={token}")
    bare += (f"--certificate-authority={described.pki / 'ca.crt'}",)
    who = await asyncio.to_thread(cluster.kubectl, *bare, "auth", "whoami")
    assert "system:serviceaccount:default:default" in who
    return revision


async def test_a_cluster_lives_on_in_another_place(tmp_path: Path) -> None:
    file = tmp_path / "state.backup"
    first, second = LabCluster(tmp_path / "first"), LabCluster(tmp_path / "second")
    try:
        await run(first, "up", "--hollow", "--nodes", "1")
        await asyncio.to_thread(first.kubectl, *WEB)
        await asyncio.to_thread(first.kubectl, "create", "secret", "generic", "sealed", "--from-literal=k=v")
        await asyncio.to_thread(first.kubectl, "rollout", "status", "deployment/web", "--timeout=60s")
        held, seen = await back_up_under_load(first, file)
        await run(first, "down")
        await run(second, "up", "--hollow", "--nodes", "1")
        said = await run(second, "restore", str(file), *keys_of(first))
        assert "going on at" in said
        revision = await check_restored(second, held, seen)
        assert second.get("secret", "sealed")["data"] == {"k": "dg=="}
        assert "whole" in await run(second, "verify")
        if FULL:
            # Restored once more in place: beyond the second life, too.
            await run(second, "restore", str(file))
            assert await check_restored(second, held, revision) > revision
    finally:
        for cluster in (first, second):
            await asyncio.to_thread(cluster.cutaway, "down", "--purge", check=False)
    figure(
        14,
        f"{BACKUPS} back-ups under load, the last with {len(held)} acknowledged writes: revision {seen} -> {revision}",
    )


@full_only
@pytest.mark.skipif(find_binaries() is None, reason="needs PostgreSQL's server programs")
async def test_from_sqlite_to_postgres_and_back(tmp_path: Path) -> None:
    places = [LabCluster(tmp_path / name) for name in ("one", "two", "three")]
    try:
        held: dict[str, int] = {}
        seen = 0
        for number, cluster in enumerate(places):
            masters = ("--masters", "2") if number == 1 else ()
            await run(cluster, "up", "--hollow", "--nodes", "1", *masters)
            if number == 0:
                await asyncio.to_thread(cluster.kubectl, *WEB)
            else:
                await run(cluster, "restore", str(tmp_path / f"{number - 1}.backup"), *keys_of(places[number - 1]))
                await check_restored(cluster, held, seen)
            held, seen = await back_up_under_load(cluster, tmp_path / f"{number}.backup")
            await run(cluster, "down")
    finally:
        for cluster in places:
            await asyncio.to_thread(cluster.cutaway, "down", "--purge", check=False)
    figure(14, f"SQLite to PostgreSQL (two masters) and back: all writes kept, revision {seen}")
