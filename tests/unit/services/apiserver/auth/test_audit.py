"""The audit policy's first fitting rule counts; the log is whole lines, rotated, and never in the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.apiserver.auth.audit import Asked, AuditFile, Policy, PolicyError
from services.apiserver.request import User

JANE = User("jane", groups=("dev",))
NODE = User("system:node:n1", groups=("system:nodes",))


def policy(*rules: dict[str, Any], **more: Any) -> Policy:
    return Policy({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": list(rules), **more})


def test_the_first_rule_that_fits() -> None:
    judged = policy(
        {"level": "None", "userGroups": ["system:nodes"]},
        {"level": "None", "nonResourceURLs": ["/healthz*"]},
        {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets"]}]},
        {"level": "RequestResponse", "verbs": ["create", "delete"], "namespaces": ["prod"]},
        {"level": "Request", "resources": [{"group": "apps", "resources": ["deployments/*"]}]},
        {"level": "Metadata", "resources": [{"group": "", "resources": ["pods"], "resourceNames": ["web"]}]},
    )

    def level(user: User = JANE, verb: str = "get", **more: str) -> str:
        return judged.level_of(Asked(user, verb, **more))

    assert level(NODE, resource="secrets") == "None"
    assert level(path="/healthz/ping") == "None"
    assert level(resource="secrets", namespace="prod") == "Metadata"
    assert level(verb="delete", resource="pods", namespace="prod") == "RequestResponse"
    assert level(verb="delete", resource="pods", namespace="test") == "None"
    assert level(group="apps", resource="deployments", subresource="scale") == "Request"
    assert level(resource="pods", name="web") == "Metadata"
    assert level(resource="pods", name="db") == "None"


def test_stages_can_be_left_out() -> None:
    assert policy({"level": "Metadata"}, omitStages=["ResponseComplete"]).level_of(Asked(JANE, "get")) == "None"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"kind": "Policy"}, "not an audit policy"),
        ({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "All"}]}, r"rules\[0\].level"),
        (
            {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "None", "omitStages": ["x"]}]},
            "omitStages",
        ),
    ],
)
def test_a_policy_that_makes_no_sense_says_where(document: dict[str, Any], words: str) -> None:
    with pytest.raises(PolicyError, match=words):
        Policy(document)


def test_the_file_has_whole_lines_and_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    log = AuditFile(path, bytes_max=2_000, backups=2)
    for number in range(200):
        log.write({"number": number, "text": "x" * 50})
    log.close()
    names = sorted(entry.name for entry in tmp_path.iterdir())
    assert names == ["audit.log", "audit.log.1", "audit.log.2"]
    newest = [json.loads(line)["number"] for line in path.read_text().splitlines()]
    before = [json.loads(line)["number"] for line in (tmp_path / "audit.log.1").read_text().splitlines()]
    assert before + newest == list(range(before[0], 200))
    assert log.dropped == 0
