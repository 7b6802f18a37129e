"""One real apiserver for the whole folder, and kubectl in a namespace of each test's own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.apiserver_process import ApiServerProcess
from tests.support.kubectl import Kubectl

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServerProcess]:
    """The apiserver."""
    process = ApiServerProcess(tmp_path_factory.mktemp("apiserver")).start()
    yield process
    process.stop()


@pytest.fixture(scope="session")
def admin(server: ApiServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """kubectl as the administrator."""
    return Kubectl(server.kubeconfig(), tmp_path_factory.mktemp("home"))


@pytest.fixture
def kubectl(admin: Kubectl) -> Kubectl:
    """kubectl as the administrator in a new namespace, with the service account that controllers would make."""
    namespace = f"t{next(_numbers)}"
    admin("create", "namespace", namespace)
    here = admin.in_namespace(namespace)
    here("create", "serviceaccount", "default")
    return here


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A Deployment and its Service in one file."""
    path = tmp_path / "web.yaml"
    path.write_text(WEB)
    return path


WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: nginx, image: "nginx:1.25", ports: [{containerPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""
