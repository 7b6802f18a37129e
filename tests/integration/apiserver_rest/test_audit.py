"""The audit log of a real apiserver."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.apiserver_process import ApiServerProcess

POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- {level: None, verbs: [get, list, watch]}
- {level: RequestResponse, resources: [{group: "", resources: [configmaps, secrets]}]}
"""


def test_who_did_what_is_written_and_no_secret_is(tmp_path: Path) -> None:
    policy, log = tmp_path / "policy.yaml", tmp_path / "audit.log"
    policy.write_text(POLICY)
    server = ApiServerProcess(tmp_path / "server", audit_policy_file=str(policy), audit_log_file=str(log)).start()
    try:
        server.kubectl("create", "configmap", "c", "--from-literal=a=b", "--as=jane", "--as-group=system:masters")
        server.kubectl("create", "secret", "generic", "s", "--from-literal=password=canary")
        server.kubectl("create", "serviceaccount", "unwritten")
        server.kubectl("get", "configmaps")
    finally:
        server.stop()
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [event["objectRef"]["resource"] for event in events] == ["configmaps", "secrets"]
    made, secret = events
    assert made["verb"] == "create"
    assert made["user"]["username"] == "kubernetes-admin"
    assert made["impersonatedUser"]["username"] == "jane"
    assert made["responseStatus"]["code"] == 201
    assert made["responseObject"]["data"] == {"a": "b"}
    assert made["auditID"]
    assert (secret["level"], "requestObject" in secret) == ("Metadata", False)
    assert "canary" not in log.read_text()
