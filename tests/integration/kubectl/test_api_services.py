"""APIServices: one for everything that is served here."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from tests.support.kubectl import Kubectl

CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "boats.harbour.example.com"},
    "spec": {
        "group": "harbour.example.com",
        "scope": "Cluster",
        "names": {"plural": "boats", "singular": "boat", "kind": "Boat"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        ],
    },
}


def eventually(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def exists(admin: Kubectl, name: str) -> bool:
    return bool(admin("get", "apiservice", name, "--ignore-not-found", "-o", "name"))


def test_every_version_that_is_served_has_one_that_is_available(admin: Kubectl) -> None:
    served = set(admin("api-versions").split()) - {"apiregistration.k8s.io/v1"}
    found = json.loads(admin("get", "apiservices", "-o", "json"))["items"]
    listed = {f"{item['spec'].get('group', '')}/{item['spec']['version']}".lstrip("/") for item in found}
    assert listed == served
    lines = [line.split() for line in admin("get", "apiservices", "--no-headers").splitlines()]
    assert {(line[1], line[2]) for line in lines} == {("Local", "True")}
    assert "v1." in {line[0] for line in lines}


def test_a_deleted_or_changed_one_comes_back(admin: Kubectl) -> None:
    before = json.loads(admin("get", "apiservice", "v1.apps", "-o", "json"))
    admin("delete", "apiservice", "v1.apps")
    eventually(lambda: exists(admin, "v1.apps"), "it comes back")
    after = json.loads(admin("get", "apiservice", "v1.apps", "-o", "json"))
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    admin("patch", "apiservice", "v1.apps", "--type=merge", "-p", '{"spec":{"versionPriority":3}}')
    spec = "jsonpath={.spec.versionPriority}"
    eventually(lambda: admin("get", "apiservice", "v1.apps", "-o", spec) == "15", "its spec is put back")


def test_custom_resources_bring_theirs_and_take_it_along(admin: Kubectl) -> None:
    admin("create", "-f", "-", stdin=json.dumps(CRD))
    eventually(lambda: exists(admin, "v1.harbour.example.com"), "it comes with the definition")
    admin("wait", "--for=condition=Available", "apiservice/v1.harbour.example.com", "--timeout=20s")
    spec = json.loads(admin("get", "apiservice", "v1.harbour.example.com", "-o", "json"))["spec"]
    assert (spec["groupPriorityMinimum"], spec["versionPriority"]) == (1000, 100)
    admin("delete", "crd", "boats.harbour.example.com")
    eventually(lambda: not exists(admin, "v1.harbour.example.com"), "it goes with the definition")
