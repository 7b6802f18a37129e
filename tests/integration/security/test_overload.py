"""Priority and fairness: requests belong to flows, levels have limits, and who keeps the cluster alive is served in a
flood (RELIABILITY 11).
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from lab.pki import Identity
from machinery.api import errors, kinds
from machinery.client.api_client import ApiClient
from tests.integration.security.conftest import Target
from tests.integration.security.test_what import grant, rule
from tests.support.apiserver_process import ROOT, files
from tests.support.memory import resident_mb
from tests.support.torture import figure, times

FLOW = "/apis/flowcontrol.apiserver.k8s.io/v1"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
CONNECTIONS = 400
SCHEMA_UID, LEVEL_UID = "X-Kubernetes-PF-FlowSchema-UID", "X-Kubernetes-PF-PriorityLevel-UID"


def level(name: str, **limited: Any) -> dict[str, Any]:
    spec = {"type": "Limited", "limited": limited}
    kind = "PriorityLevelConfiguration"
    return {"apiVersion": FLOW.removeprefix("/apis/"), "kind": kind, "metadata": {"name": name}, "spec": spec}


def schema(name: str, of_level: str, user: str, precedence: int = 500) -> dict[str, Any]:
    everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
    rules = {
        "subjects": [{"kind": "User", "user": {"name": user}}],
        "resourceRules": [everything],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }
    spec = {"priorityLevelConfiguration": {"name": of_level}, "matchingPrecedence": precedence, "rules": [rules]}
    kind = "FlowSchema"
    return {"apiVersion": FLOW.removeprefix("/apis/"), "kind": kind, "metadata": {"name": name}, "spec": spec}


@pytest_asyncio.fixture
async def admin(target: Target) -> AsyncIterator[aiohttp.ClientSession]:
    async with target.session(target.process.admin) as session:
        yield session


async def read(session: aiohttp.ClientSession, path: str) -> Any:
    async with session.get(path) as answer:
        return await answer.json()


async def eventually(session: aiohttp.ClientSession, path: str, found: Any) -> Any:
    """The object at a path, once it is as it should be."""
    obj = None
    async with asyncio.timeout(20):
        while obj is None or not found(obj):
            obj = await read(session, path)
    return obj


async def test_requests_say_which_flow_they_belong_to(target: Target, admin: aiohttp.ClientSession) -> None:
    await eventually(admin, f"{FLOW}/flowschemas/global-default", lambda obj: "status" in obj)
    await target.create(f"{FLOW}/flowschemas", schema("of-noxu", "for-noxu", "noxu"))

    def dangling(obj: dict[str, Any]) -> str:
        conditions = (obj.get("status") or {}).get("conditions") or [{}]
        return str(conditions[0].get("status"))

    path = f"{FLOW}/flowschemas/of-noxu"
    made = await eventually(admin, path, lambda obj: dangling(obj) == "True")
    limits = {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}
    await target.create(f"{FLOW}/prioritylevelconfigurations", level("for-noxu", **limits))
    await eventually(admin, path, lambda obj: dangling(obj) == "False")
    own_level = await read(admin, f"{FLOW}/prioritylevelconfigurations/for-noxu")
    others = await read(admin, f"{FLOW}/flowschemas/global-default")
    for user, uid in (("noxu", made["metadata"]["uid"]), ("foo", others["metadata"]["uid"])):
        async with target.session(target.user(user)) as session:
            # A path, an answer from stored bytes (a refusal, here), and an unknown one.
            for asked in ("/version", "/api/v1/namespaces", "/nothing"):
                async with session.get(asked) as answer:
                    assert answer.headers[SCHEMA_UID] == uid
                    assert (answer.headers[LEVEL_UID] == own_level["metadata"]["uid"]) is (user == "noxu")
    async with admin.get("/api/v1/namespaces/default") as answer:
        assert answer.headers[SCHEMA_UID] == (await read(admin, f"{FLOW}/flowschemas/exempt"))["metadata"]["uid"]
    async with admin.get("/metrics") as answer:
        assert 'apiserver_flowcontrol_nominal_limit_seats{priority_level="for-noxu"}' in await answer.text()


async def test_standard_objects_come_back(target: Target, admin: aiohttp.ClientSession) -> None:
    path = f"{FLOW}/flowschemas/system-nodes"
    old = await eventually(admin, path, lambda obj: "spec" in obj)
    await admin.delete(path)
    await eventually(admin, path, lambda obj: obj["metadata"].get("uid", old) != old["metadata"]["uid"])
    catch_all = await read(admin, f"{FLOW}/prioritylevelconfigurations/catch-all")
    catch_all["spec"]["limited"]["nominalConcurrencyShares"] = 100
    async with admin.put(f"{FLOW}/prioritylevelconfigurations/catch-all", json=catch_all) as answer:
        assert answer.status == 422
        assert "must equal the fixed value" in await answer.text()


async def hang(target: Target, identity: Identity, count: int, held: list[asyncio.StreamWriter]) -> None:
    """Begin requests that hold their seats: their bodies never end."""
    head = f"POST {CONFIG_MAPS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    for _ in range(count):
        context = target.context(identity)
        _, writer = await asyncio.open_connection("127.0.0.1", target.process.rest_port, ssl=context)
        writer.write(head.encode() + b"{")
        await writer.drain()
        held.append(writer)


async def refused_over_grpc(target: Target, identity: Identity) -> bool:
    """Whether a call over gRPC is told to come back later; or it is answered, or may not ask."""
    client = await ApiClient.connect(target.process.grpc, files(identity), user_agent="test")
    try:
        await client.get(kinds.CONFIG_MAP, "none", "default")
    except errors.TooManyRequests as error:
        return error.retry_after_seconds == 1
    except (errors.NotFound, errors.Forbidden):
        return False
    finally:
        await client.close()
    raise AssertionError("there is no such object")


async def test_a_full_level_refuses_with_retry_after_and_others_are_served(
    target: Target, admin: aiohttp.ClientSession
) -> None:
    queuing = {"queues": 1, "handSize": 1, "queueLengthLimit": 2}
    response = {"type": "Queue", "queuing": queuing}
    limits = {"nominalConcurrencyShares": 1, "borrowingLimitPercent": 0, "limitResponse": response}
    await target.create(f"{FLOW}/prioritylevelconfigurations", level("small", **limits))
    await target.create(f"{FLOW}/flowschemas", schema("of-hog", "small", "hog"))
    await grant(target, "hog", rule("create,get,list", "configmaps"))
    text = await (await admin.get("/metrics")).text()
    line = next(line for line in text.splitlines() if 'nominal_limit_seats{priority_level="small"}' in line)
    seats = int(float(line.rpartition(" ")[2]))
    held: list[asyncio.StreamWriter] = []
    try:
        await hang(target, target.user("hog"), seats + 2, held)
        async with target.session(target.user("hog")) as session:
            for _ in range(100):
                async with session.get(CONFIG_MAPS, timeout=aiohttp.ClientTimeout(30)) as answer:
                    status, headers, body = answer.status, answer.headers, await answer.json()
                if status == 429:
                    break
        assert (status, body["reason"], headers["Retry-After"]) == (429, "TooManyRequests", "1")
        assert headers[SCHEMA_UID] == (await read(admin, f"{FLOW}/flowschemas/of-hog"))["metadata"]["uid"]
        async with target.session(target.user("other")) as session, session.get("/version") as answer:
            assert answer.status == 200
        # The other transport is no way around it.
        assert await refused_over_grpc(target, target.user("hog"))
        assert not await refused_over_grpc(target, target.pki.client("scheduler", "system:kube-scheduler", []))
    finally:
        for writer in held:
            writer.transport.abort()
    # Their seats are back when they are gone.
    async with target.session(target.user("hog")) as session:
        await eventually(session, CONFIG_MAPS, lambda obj: obj["kind"] == "ConfigMapList")


@pytest.mark.torture
async def test_in_a_flood_nodes_and_leaders_are_served(target: Target, admin: aiohttp.ClientSession) -> None:
    """Four hundred clients that list as fast as they can; the server can do about a tenth of what they ask for."""
    for number in range(300):
        obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"f{number}"}, "data": {"a": "x" * 1000}}
        await target.create(CONFIG_MAPS, obj)
    await target.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
    await grant(target, "flood", rule("create,get,list", "configmaps"))
    async with admin.get(CONFIG_MAPS) as answer:
        answer_mb = len(await answer.read()) / 1e6
    node = target.pki.client("node-n1", "system:node:n1", ["system:nodes"])
    leader = target.pki.client("scheduler", "system:kube-scheduler", [])
    flood = target.user("flood")
    config = {
        "port": target.process.rest_port,
        "path": CONFIG_MAPS,
        "connections": CONNECTIONS,
        "seconds": times(60, 6),
        "ca": str(flood.ca_file),
        "cert": str(flood.cert_file),
        "key": str(flood.key_file),
    }
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "n1"}}
    lease["spec"] = {"holderIdentity": "n1", "leaseDurationSeconds": 40}
    took: list[float] = []
    async with target.session(node) as kubelet, target.session(leader) as scheduler:
        async with kubelet.post(LEASES, json=lease) as answer:
            assert answer.status == 201, await answer.text()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.flood", json.dumps(config), cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"connected\n"
        loop = asyncio.get_running_loop()
        assert target.process.process is not None
        pid = target.process.process.pid
        resident = [resident_mb(pid)]
        renew = {"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}}
        merge = {"Content-Type": "application/merge-patch+json"}
        while process.returncode is None:
            for asked in (
                kubelet.patch(f"{LEASES}/n1", data=json.dumps(renew), headers=merge),
                kubelet.get("/api/v1/nodes/n1"),
                scheduler.get("/api/v1/pods?limit=10"),
                scheduler.get("/readyz"),
            ):
                began = loop.time()
                async with asked as answer:
                    await answer.read()
                    assert answer.status == 200, await answer.text()
                took.append(loop.time() - began)
            resident.append(resident_mb(pid))
            await asyncio.sleep(0.02)
        result = json.loads(await process.stdout.read())
    p50, p99 = statistics.median(took), sorted(took)[int(len(took) * 0.99)]
    flooded = result["median_seconds"]
    flood_said = (
        f"{CONNECTIONS} clients ask for {answer_mb:.1f} MB at once: {result['seen']}, p50 {flooded * 1e3:.0f} ms"
    )
    system_said = f"{len(took)} system requests, p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms"
    figure(11, f"{flood_said}; {system_said}; resident {resident[0]:.0f} MB, at most {max(resident):.0f}")
    assert result["seen"]["200"] > 100
    # Whatever else the machine does: who keeps the cluster alive does not stand in the flood's line.
    assert p50 < flooded / 2
    # Each connection holds at most one answer that its client has yet to take, as it is and encrypted; requests that
    # wait hold none.
    assert max(resident) - resident[0] < CONNECTIONS * answer_mb * 3
