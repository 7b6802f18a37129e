"""The `kubernetes` Service leads to every apiserver that lives, and to no other."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from services.apiserver.masters import DEAD_SECONDS
from tests.support.apiserver_process import ApiServerProcess
from tests.support.postgres import find_binaries, run_postgres
from tests.support.torture import full_only

ADDRESSES = ["198.51.100.1", "198.51.100.2"]

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(find_binaries() is None, reason="needs PostgreSQL's server programs"),
]


def published(server: ApiServerProcess) -> list[str]:
    """As EndpointSlice and Endpoints say, which must agree."""
    slice_ = server.json("get", "endpointslice", "kubernetes")
    endpoints = server.json("get", "endpoints", "kubernetes")
    found = [address for one in slice_["endpoints"] for address in one["addresses"]]
    assert found == [one["ip"] for one in endpoints["subsets"][0]["addresses"]]
    return found


def until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def lives(tmp_path: Path, *, killed: bool) -> None:
    with run_postgres() as postgres:
        # One database for both: each call makes another.
        url = postgres.url()
        homes = [tmp_path / name for name in ("one", "two")]
        for home in homes:
            home.mkdir()
        one = ApiServerProcess(homes[0], storage_url=url, advertise_address=ADDRESSES[0])
        two = ApiServerProcess(homes[1], one.pki, storage_url=url, advertise_address=ADDRESSES[1])
        try:
            one.start()
            assert published(one) == ADDRESSES[:1]
            two.start()
            until(lambda: published(one) == ADDRESSES, 30)
            two.stop(signal.SIGKILL if killed else signal.SIGTERM)
            # One that says so is gone at once; one that died is when its Lease is over.
            until(lambda: published(one) == ADDRESSES[:1], DEAD_SECONDS * 2 if killed else 10)
            two.start()
            until(lambda: published(one) == ADDRESSES, 30)
            two.stop()
            # The last one stays published: there would be nobody to come back to.
            one.stop()
            two.start()
            assert ADDRESSES[1] in published(two)
        finally:
            for server in (one, two):
                if server.process is not None and server.process.poll() is None:
                    server.stop()


def test_an_apiserver_that_ends_is_published_no_longer(tmp_path: Path) -> None:
    lives(tmp_path, killed=False)


@full_only
def test_an_apiserver_that_died_is_published_no_longer(tmp_path: Path) -> None:
    lives(tmp_path, killed=True)
