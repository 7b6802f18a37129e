"""Schemathesis asks what our own OpenAPI documents allow, and what they don't: no 5xx, and every answer is as the
document says.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.apiserver_process import ROOT, ApiServerProcess

THOROUGH = bool(os.environ.get("CUTAWAY_TEST_THOROUGH"))
"""Set, every constraint of every parameter and body is gone through: thousands of requests, minutes."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServerProcess]:
    process = ApiServerProcess(tmp_path_factory.mktemp("apiserver")).start()
    yield process
    assert process.stop() == 0, process.log
    assert "Traceback" not in process.log, process.log


@pytest.mark.parametrize(
    ("document", "paths"),
    [
        ("api/v1", "^/api/v1/namespaces/.namespace./(configmaps|services)"),
        ("apis/apps/v1", "^/apis/apps/v1/namespaces/.namespace./deployments"),
        ("apis/apiextensions.k8s.io/v1", "."),
    ],
    ids=["core", "apps", "definitions"],
)
def test_no_request_breaks_the_server_or_its_documents(
    server: ApiServerProcess, tmp_path: Path, document: str, paths: str
) -> None:
    program = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run(
        [
            program, "run", f"{server.url}/openapi/v3/{document}", "--url", server.url,
            "--tls-verify", server.admin.ca_file, "--request-cert", server.admin.cert_file,
            "--request-cert-key", server.admin.key_file,
            "--include-path-regex", paths, "--exclude-path-regex", "/proxy",
            "--phases", "coverage,fuzzing" if THOROUGH else "fuzzing", "--max-examples", "50" if THOROUGH else "2",
            # The documents name successes alone, as upstream's do, so the status is not compared.
            "--checks", "not_a_server_error,content_type_conformance,response_schema_conformance",
            "--generation-deterministic", "--no-shrink", "--warnings", "off", "--no-color",
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=3600 if THOROUGH else 200, check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
