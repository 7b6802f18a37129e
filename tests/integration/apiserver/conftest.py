"""One apiserver process for all tests of this folder; a test that breaks it starts its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.support.apiserver_process import ApiServerProcess

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServerProcess]:
    process = ApiServerProcess(tmp_path_factory.mktemp("apiserver")).start()
    yield process
    assert process.stop() == 0, process.log
    assert "Traceback" not in process.log, process.log


@pytest.fixture
def namespace(server: ApiServerProcess) -> str:
    """A namespace of the test's own, with the service account that pods run as."""
    return make_namespace(server, f"test-{next(_numbers)}")


@pytest.fixture
def apply(server: ApiServerProcess, namespace: str) -> Callable[[str], str]:
    """`kubectl apply` a manifest into the test's namespace; what kubectl said."""

    def run(manifest: str) -> str:
        return server.kubectl("apply", "-n", namespace, "-f", "-", stdin=manifest).stdout

    return run


def make_namespace(server: ApiServerProcess, name: str) -> str:
    manifest = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: {name}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: default, namespace: {name}}}
"""
    server.kubectl("apply", "-f", "-", stdin=manifest)
    return name
