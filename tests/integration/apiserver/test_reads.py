"""Lists and watches over REST: revisions, chunks, selectors, bookmarks, expiry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.apiserver_process import ApiServerProcess
from tests.support.rest import Rest


@pytest.fixture
async def rest(server: ApiServerProcess) -> AsyncIterator[Rest]:
    async with Rest(server) as client:
        yield client


def config_map(name: str, labels: dict[str, str] | None = None, value: str = "v") -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"k": value}}


async def fill(rest: Rest, path: str, count: int) -> None:
    for index in range(count):
        status, body = await rest.post(
            path, config_map(f"c{index:02}", {"parity": "even" if index % 2 == 0 else "odd"})
        )
        assert status == 201, body


async def test_chunks_show_one_state_whatever_is_written_meanwhile(rest: Rest, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    await fill(rest, path, 10)
    _, first = await rest.get(path, limit=4)
    assert [item["metadata"]["name"] for item in first["items"]] == ["c00", "c01", "c02", "c03"]
    assert first["metadata"]["remainingItemCount"] == 6
    await rest.delete(f"{path}/c05")
    await rest.post(path, config_map("c045"))
    _, second = await rest.get(path, limit=4, **{"continue": first["metadata"]["continue"]})
    assert [item["metadata"]["name"] for item in second["items"]] == ["c04", "c05", "c06", "c07"]
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    _, third = await rest.get(path, limit=4, **{"continue": second["metadata"]["continue"]})
    assert [item["metadata"]["name"] for item in third["items"]] == ["c08", "c09"]
    assert "continue" not in third["metadata"]


async def test_an_exact_list_answers_the_past(rest: Rest, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    await fill(rest, path, 2)
    _, before = await rest.get(path)
    revision = before["metadata"]["resourceVersion"]
    await rest.delete(f"{path}/c00")
    _, past = await rest.get(path, resourceVersion=revision, resourceVersionMatch="Exact")
    assert past["items"] == before["items"]
    _, now = await rest.get(path, resourceVersion=revision, resourceVersionMatch="NotOlderThan")
    assert [item["metadata"]["name"] for item in now["items"]] == ["c01"]


@pytest.mark.parametrize(
    "query",
    [
        {"resourceVersionMatch": "Exact"},
        {"resourceVersion": "0", "resourceVersionMatch": "Exact"},
        {"resourceVersion": "abc"},
        {"labelSelector": "a in"},
        {"fieldSelector": "spec.nope=1"},
        {"continue": "rubbish"},
    ],
)
async def test_senseless_list_options_are_refused(rest: Rest, namespace: str, query: dict[str, str]) -> None:
    status, body = await rest.get(f"/api/v1/namespaces/{namespace}/configmaps", **query)
    assert status in (400, 422), body
    assert body["kind"] == "Status"


async def test_a_revision_of_the_future_is_a_timeout_that_can_be_retried(rest: Rest, namespace: str) -> None:
    status, body = await rest.get(f"/api/v1/namespaces/{namespace}/configmaps", resourceVersion=10**12)
    assert (status, body["reason"]) == (504, "Timeout")
    assert body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


async def test_a_selector_sees_objects_come_and_go(rest: Rest, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    _, listed = await rest.get(path)
    revision = listed["metadata"]["resourceVersion"]
    async with rest.watch(path, resourceVersion=revision, labelSelector="on=yes") as watch:
        await rest.post(path, config_map("a"))
        await rest.patch(f"{path}/a", {"metadata": {"labels": {"on": "yes"}}})
        await rest.patch(f"{path}/a", {"data": {"k": "2"}})
        _, last = await rest.patch(f"{path}/a", {"metadata": {"labels": {"on": "no"}}})
        assert await watch.take(2) == [("ADDED", "a"), ("MODIFIED", "a")]
        gone = await watch.next()
        assert gone is not None
        assert gone["type"] == "DELETED"
        # The state that was selected last, at the revision that ended it.
        assert gone["object"]["metadata"]["labels"] == {"on": "yes"}
        assert gone["object"]["metadata"]["resourceVersion"] == last["metadata"]["resourceVersion"]


async def test_a_watch_list_ends_its_state_with_a_bookmark(rest: Rest, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    await fill(rest, path, 3)
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    async with rest.watch(path, **query) as watch:
        assert await watch.take(3) == [("ADDED", "c00"), ("ADDED", "c01"), ("ADDED", "c02")]
        bookmark = await watch.next()
        assert bookmark is not None
        assert bookmark["type"] == "BOOKMARK"
        assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        await rest.delete(f"{path}/c01")
        assert await watch.take(1) == [("DELETED", "c01")]


async def test_a_watch_ends_at_its_timeout(rest: Rest, namespace: str) -> None:
    async with rest.watch(f"/api/v1/namespaces/{namespace}/configmaps", timeoutSeconds=1) as watch:
        assert await watch.next() is None


async def test_pods_are_found_by_their_node(rest: Rest, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods"
    for name, node in (("p1", "n1"), ("p2", "n2"), ("p3", "")):
        spec = {"containers": [{"name": "c", "image": "i"}], **({"nodeName": node} if node else {})}
        status, body = await rest.post(
            path, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        )
        assert status == 201, body
    for selector, names in (
        ("spec.nodeName=n1", ["p1"]),
        ("spec.nodeName!=n1", ["p2", "p3"]),
        ("spec.nodeName=", ["p3"]),
        ("status.phase=Pending,metadata.name=p2", ["p2"]),
    ):
        _, found = await rest.get(path, fieldSelector=selector)
        assert [item["metadata"]["name"] for item in found["items"]] == names, selector


async def test_an_object_as_of_a_revision(rest: Rest, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    _, made = await rest.post(path, config_map("past"))
    await rest.patch(f"{path}/past", {"data": {"k": "later"}})
    then = {"resourceVersion": made["metadata"]["resourceVersion"], "resourceVersionMatch": "Exact"}
    code, found = await rest.get(f"{path}/past", **then)
    assert (code, found) == (200, made)
    code, found = await rest.get(path, **then)
    assert [item["metadata"]["name"] for item in found["items"] if item["metadata"]["name"] == "past"] == ["past"]
    code, found = await rest.get(f"{path}/past", resourceVersion="0", resourceVersionMatch="Exact")
    assert code == 400
    assert "greater than 0" in found["message"]
