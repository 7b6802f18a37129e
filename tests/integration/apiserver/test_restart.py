"""What is acknowledged survives a kill, and watches go on where they were."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.integration.apiserver.test_reads import config_map
from tests.support.apiserver_process import ApiServerProcess
from tests.support.rest import Rest

PATH = "/api/v1/namespaces/default/configmaps"


async def test_a_watch_resumes_over_a_kill_without_gap_or_duplicate(tmp_path: Path) -> None:
    server = ApiServerProcess(tmp_path).start()
    try:
        async with Rest(server) as rest:
            _, first = await rest.post(PATH, config_map("a"))
            await rest.post(PATH, config_map("b", {"on": "yes"}))
            await rest.patch(f"{PATH}/b", {"metadata": {"labels": {"on": "no"}}})
            await rest.delete(f"{PATH}/a")
        server.stop(signal.SIGKILL)
        server.start()
        async with Rest(server) as rest:
            revision = first["metadata"]["resourceVersion"]
            async with rest.watch(PATH, resourceVersion=revision) as watch:
                assert await watch.take(3) == [("ADDED", "b"), ("MODIFIED", "b"), ("DELETED", "a")]
                await rest.post(PATH, config_map("c"))
                assert await watch.take(1) == [("ADDED", "c")]
            async with rest.watch(PATH, resourceVersion=revision, labelSelector="on=yes") as watch:
                assert await watch.take(2) == [("ADDED", "b"), ("DELETED", "b")]
            _, listed = await rest.get(PATH)
            assert [item["metadata"]["name"] for item in listed["items"]] == ["b", "c"]
    finally:
        assert server.stop() == 0


async def test_a_second_start_changes_nothing(tmp_path: Path) -> None:
    server = ApiServerProcess(tmp_path).start()
    try:
        async with Rest(server) as rest:
            _, before = await rest.get("/api/v1/namespaces")
        server.stop()
        server.start()
        async with Rest(server) as rest:
            _, after = await rest.get("/api/v1/namespaces")
        assert after == before
    finally:
        assert server.stop() == 0


def test_a_second_process_on_the_same_file_is_refused(tmp_path: Path) -> None:
    server = ApiServerProcess(tmp_path).start()
    try:
        with pytest.raises(AssertionError, match="storage_url"):
            ApiServerProcess(tmp_path).start()
    finally:
        assert server.stop() == 0
