"""Hostile requests get a 4xx, cost little, and everyone else is served meanwhile."""

from __future__ import annotations

import asyncio
import gzip
import json
import time

import pytest

from tests.integration.security.conftest import Target
from tests.support.memory import resident_mb

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"


async def send(target: Target, method: str, path: str, body: bytes, content_type: str, **headers: str) -> int:
    async with target.session(target.process.admin) as session:
        all_headers = {"Content-Type": content_type, **headers}
        async with session.request(method, path, data=body, headers=all_headers) as answer:
            return answer.status


def bomb() -> bytes:
    lines = ["apiVersion: v1", "kind: ConfigMap", "metadata: {name: x}", "a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    return "\n".join(lines).encode()


HEAD = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":'


@pytest.mark.parametrize(
    ("body", "content_type", "allowed"),
    [
        (bomb(), "application/yaml", {400}),
        (HEAD + b"[" * 100_000, "application/json", {400}),
        (HEAD + b'{"a":' * 100_000, "application/json", {400}),
        (b"[" * 100_000, "application/yaml", {400}),
        (HEAD + b'{"a":"' + b"x" * 4_000_000 + b'"}}', "application/json", {413}),
        (HEAD + b'{"a":"\xff\xfe"}}', "application/json", {400}),
        (HEAD + b'{"a":"\xed\xa0\x80"}}', "application/json", {400}),
        (b"\x00" * 1000, "application/json", {400}),
        (b"k8s\x00" + b"\xff" * 1000, "application/vnd.kubernetes.protobuf", {400, 415}),
        (b"k8s\x00\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", "application/vnd.kubernetes.protobuf", {400, 415}),
        (b"a" * 1000, "text/html", {415}),
    ],
    ids=[
        "yaml bomb",
        "deep list",
        "deep map",
        "deep yaml",
        "large",
        "not utf-8",
        "surrogate",
        "nul",
        "pb",
        "pb2",
        "html",
    ],
)
async def test_a_hostile_body(target: Target, body: bytes, content_type: str, allowed: set[int]) -> None:
    began = time.monotonic()
    assert await send(target, "POST", CONFIG_MAPS, body, content_type) in allowed
    assert time.monotonic() - began < 5


async def test_a_gzip_bomb_is_cut_off_at_the_limit(target: Target) -> None:
    body = gzip.compress(b'{"a":"' + b"x" * 200_000_000 + b'"}')
    before = resident(target)
    status = await send(target, "POST", CONFIG_MAPS, body, "application/json", **{"Content-Encoding": "gzip"})
    assert status in (400, 413, 415)
    assert resident(target) - before < 60


async def test_patches_have_limits(target: Target) -> None:
    await target.create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "p"}})
    operations = b",".join(b'{"op":"add","path":"/data","value":{}}' for _ in range(10_001))
    path = f"{CONFIG_MAPS}/p"
    assert await send(target, "PATCH", path, b"[" + operations + b"]", "application/json-patch+json") in (413, 422)
    # Copies that double: 2^40 at the end if nobody stopped them.
    doubling = b'[{"op":"add","path":"/data","value":{"a":"' + b"x" * 1000 + b'"}}'
    for number in range(40):
        doubling += b',{"op":"copy","from":"/data","path":"/data/k%d"}' % number
    status = await send(target, "PATCH", path, doubling + b"]", "application/json-patch+json")
    assert 400 <= status < 500
    assert await send(target, "PATCH", path, b'{"data":' * 50_000, MERGE) == 400


@pytest.mark.parametrize(
    "query",
    [
        "labelSelector=" + "a%3Db%2C" * 20_000,
        "labelSelector=((((",
        "fieldSelector=nonsense%3D1",
        "limit=-1&continue=garbage",
        "continue=" + "x" * 5000,
        "resourceVersion=nonsense",
        "watch=1&resourceVersion=99999999999999999999",
        "watch=1&resourceVersion=-5",
        "&".join(f"a{n}=1" for n in range(5000)),
        "timeoutSeconds=nonsense&watch=1",
    ],
)
async def test_nonsense_in_a_query(target: Target, query: str) -> None:
    import yarl

    url = yarl.URL(f"{target.process.url}{CONFIG_MAPS}?{query}", encoded=True)
    async with target.session(target.process.admin) as session, session.get(url) as answer:
        assert 400 <= answer.status < 500 or answer.status in (200, 504), answer.status


def resident(target: Target) -> float:
    """The server's resident memory in MB."""
    assert target.process.process is not None
    return resident_mb(target.process.process.pid)


def owners(begin: int, count: int) -> list[dict[str, str]]:
    return [
        {"apiVersion": "v1", "kind": "Pod", "name": f"n{number}", "uid": f"u{number}"}
        for number in range(begin, begin + count)
    ]


async def test_lists_are_merged_in_linear_time(target: Target) -> None:
    """Every item looked up among all others: a megabyte of owners held the server for minutes."""
    metadata = {
        "name": "owned",
        "ownerReferences": owners(0, 10_000),
        "finalizers": [f"a.b/x{n}" for n in range(30_000)],
    }
    await target.create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    strategic = "application/strategic-merge-patch+json"
    for patch in (
        {"ownerReferences": owners(5_000, 10_000)},
        {"ownerReferences": [{"$patch": "delete", "uid": f"u{number}"} for number in range(15_000)]},
        {"finalizers": [f"a.b/y{number}" for number in range(10_000)]},
        {"$deleteFromPrimitiveList/finalizers": [f"a.b/x{number}" for number in range(30_000)]},
    ):
        body = json.dumps({"metadata": patch}).encode()
        assert await asyncio.wait_for(send(target, "PATCH", f"{CONFIG_MAPS}/owned", body, strategic), 30) == 200
    async with target.session(target.process.admin) as session, session.get(f"{CONFIG_MAPS}/owned") as answer:
        left = (await answer.json())["metadata"]
    assert "ownerReferences" not in left
    assert len(left["finalizers"]) == 10_000


@pytest.mark.parametrize(
    "body",
    [
        HEAD + b"{" + b",".join([b'"k":"v"'] * 200_000) + b"}}",
        HEAD[:-7] + b",".join(b'"unknown%d":1' % n for n in range(100_000)) + b"}",
        HEAD[:-7] + b'"' + b"u" * 500_000 + b'":1}',
    ],
    ids=["duplicates", "unknown fields", "one with a long name"],
)
async def test_what_is_warned_of_fits_into_a_head(target: Target, body: bytes) -> None:
    async with target.session(target.process.admin, **{"Content-Type": "application/json"}) as session:
        async with session.post(f"{CONFIG_MAPS}?dryRun=All", data=body) as answer:
            assert answer.status == 201
            assert 0 < sum(map(len, answer.headers.getall("Warning"))) < 8000
        async with session.post(f"{CONFIG_MAPS}?fieldValidation=Strict", data=body) as answer:
            assert answer.status == 400


@pytest.mark.parametrize("content_type", [MERGE, "application/strategic-merge-patch+json"])
async def test_depth_that_is_decoded_and_not_worked_on_is_the_clients_fault(target: Target, content_type: str) -> None:
    await target.create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "deep"}})
    for depth in (300, 900):
        patch = b'{"data":' * depth + b"1" + b"}" * depth
        assert await send(target, "PATCH", f"{CONFIG_MAPS}/deep", patch, content_type) in (400, 422)
        body = HEAD + b'{"a":' * depth + b"1" + b"}" * (depth + 1)
        assert await send(target, "POST", CONFIG_MAPS, body, "application/json") in (400, 422)


def many_keys(name: str, count: int) -> bytes:
    head = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata:\n"
    return (head + "".join(f"  key-{n}: value {n}\n" for n in range(count))).encode()


APPLY = "application/apply-patch+yaml"
LARGE = {
    "YAML": ("POST", CONFIG_MAPS, many_keys("yaml", 10_000), "application/yaml", 201),
    "apply": ("PATCH", f"{CONFIG_MAPS}/apply?fieldManager=t", many_keys("apply", 10_000), APPLY, 201),
    "a JSON patch of many items": (
        "PATCH",
        f"{CONFIG_MAPS}/small",
        b'[{"op":"add","path":"/metadata/ownerReferences","value":[' + b",".join([b"{}"] * 30_000) + b"]}]",
        "application/json-patch+json",
        422,
    ),
    "a strategic merge patch of many finalizers": (
        "PATCH",
        f"{CONFIG_MAPS}/small",
        json.dumps({"metadata": {"finalizers": [f"a.b/x{n}" for n in range(20_000)]}}).encode(),
        "application/strategic-merge-patch+json",
        200,
    ),
    "a small patch of a large object": (
        "PATCH",
        f"{CONFIG_MAPS}/large",
        b'{"metadata":{"labels":{"a":"b"}}}',
        MERGE,
        200,
    ),
    "a large object as YAML": ("GET", f"{CONFIG_MAPS}/large", b"", "", 200),
}


async def test_others_are_served_while_large_requests_are_worked_on(target: Target) -> None:
    """All of them were worked on in the event loop: nobody else was answered for seconds."""
    await target.create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "small"}})
    data = {f"key-{n}": f"value {n}" for n in range(10_000)}
    large_one = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large"}, "data": data}
    await target.create(CONFIG_MAPS, large_one)
    under_way = len(LARGE)

    async def attack(method: str, path: str, body: bytes, content_type: str, wanted: int) -> None:
        nonlocal under_way
        try:
            accept = {"Accept": "application/yaml"} if method == "GET" else {}
            assert await send(target, method, path, body, content_type, **accept) == wanted, path
        finally:
            under_way -= 1

    async def others() -> int:
        """How many requests were answered, one after the other, before the last large one was."""
        answered = 0
        async with target.session(target.process.admin) as session:
            while under_way:
                async with session.get("/api/v1/namespaces/default") as answer:
                    assert answer.status == 200
                answered += 1
        return answered

    answered, *_ = await asyncio.wait_for(asyncio.gather(others(), *(attack(*one) for one in LARGE.values())), 60)
    # When the loop worked on them itself, there were five.
    assert answered > 5 * len(LARGE)


async def test_an_answer_names_as_many_causes_as_anybody_reads(target: Target) -> None:
    """Four causes for each of a hundred thousand items: the answer had 150 megabytes."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "ownerReferences": [{}] * 20_000}}
    async with target.session(target.process.admin) as session, session.post(CONFIG_MAPS, json=body) as answer:
        assert answer.status == 422
        assert len((await answer.json())["details"]["causes"]) == 1000
