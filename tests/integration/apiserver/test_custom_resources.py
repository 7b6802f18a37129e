"""Custom resources, as kubectl's users meet them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.support.apiserver_process import ApiServerProcess

DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, kind: CronTab, shortNames: [ct], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              cronSpec: {type: string, default: "* * * * *"}
              replicas: {type: integer, minimum: 1, maximum: 10}
              color: {type: string}
          status: {type: object, properties: {replicas: {type: integer}}}
    subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
    selectableFields: [{jsonPath: .spec.color}]
    additionalPrinterColumns: [{name: Spec, type: string, jsonPath: .spec.cronSpec}]
  - name: v1beta1
    served: true
    storage: false
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""
TAB = """
apiVersion: stable.example.com/v1
kind: CronTab
metadata: {name: my}
spec: {replicas: 3, color: blue, junk: 1}
status: {replicas: 9}
"""


@pytest.fixture(scope="module")
def definition(server: ApiServerProcess) -> Iterator[None]:
    """The definition, established."""
    server.kubectl("apply", "-f", "-", stdin=DEFINITION)
    server.kubectl("wait", "--for=condition=Established", "crd/crontabs.stable.example.com", "--timeout=10s")
    yield
    server.kubectl("delete", "crd", "crontabs.stable.example.com", "--ignore-not-found")


@pytest.mark.usefixtures("definition")
class TestServed:
    @pytest.fixture(autouse=True)
    def tab(self, server: ApiServerProcess, namespace: str) -> None:
        server.kubectl("apply", "-n", namespace, "--validate=false", "-f", "-", stdin=TAB)

    def test_it_is_pruned_and_defaulted_and_its_status_is_not_the_users(
        self, server: ApiServerProcess, namespace: str
    ) -> None:
        found = server.json("get", "ct", "my", "-n", namespace)
        assert found["spec"] == {"replicas": 3, "color": "blue", "cronSpec": "* * * * *"}
        assert "status" not in found
        assert found["metadata"]["generation"] == 1

    def test_it_is_in_discovery_explain_and_tables(self, server: ApiServerProcess, namespace: str) -> None:
        assert "crontabs" in server.kubectl("api-resources", "--api-group=stable.example.com").stdout
        assert "cronSpec" in server.kubectl("explain", "crontab.spec").stdout
        assert server.kubectl("get", "ct", "-n", namespace).stdout.splitlines()[0].split() == ["NAME", "SPEC"]
        assert "crontab.stable.example.com/my" in server.kubectl("get", "all", "-n", namespace).stdout

    def test_every_version_shows_it(self, server: ApiServerProcess, namespace: str) -> None:
        other = server.json("get", "crontabs.v1beta1.stable.example.com", "my", "-n", namespace)
        assert other["apiVersion"] == "stable.example.com/v1beta1"
        assert other["spec"]["replicas"] == 3

    def test_a_broken_rule_is_named(self, server: ApiServerProcess, namespace: str) -> None:
        patch = '{"spec":{"replicas":50}}'
        refused = server.kubectl("patch", "ct", "my", "-n", namespace, "--type=merge", "-p", patch, check=False)
        assert "spec.replicas" in refused.stderr
        assert "less than or equal to 10" in refused.stderr

    def test_it_scales_and_selects(self, server: ApiServerProcess, namespace: str) -> None:
        server.kubectl("scale", "ct", "my", "--replicas=5", "-n", namespace)
        found = server.json("get", "ct", "-n", namespace, "--field-selector=spec.color=blue")["items"]
        assert [(item["metadata"]["name"], item["spec"]["replicas"]) for item in found] == [("my", 5)]
        assert server.json("get", "ct", "-n", namespace, "--field-selector=spec.color=red")["items"] == []

    def test_its_status_has_a_path_of_its_own(self, server: ApiServerProcess, namespace: str) -> None:
        patch = '{"status":{"replicas":2},"spec":{"replicas":9}}'
        server.kubectl("patch", "ct", "my", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)
        found = server.json("get", "ct", "my", "-n", namespace)
        assert (found["status"], found["spec"]["replicas"]) == ({"replicas": 2}, 3)
        assert found["metadata"]["generation"] == 1

    def test_server_side_apply_knows_its_fields(self, server: ApiServerProcess, namespace: str) -> None:
        manifest = "{apiVersion: stable.example.com/v1, kind: CronTab, metadata: {name: two}, spec: {replicas: %d}}"
        arguments = ("apply", "--server-side", "-n", namespace, "-f", "-")
        server.kubectl(*arguments, "--field-manager=a", stdin=manifest % 1)
        refused = server.kubectl(*arguments, "--field-manager=b", stdin=manifest % 2, check=False)
        assert 'conflict with "a"' in refused.stderr


@pytest.mark.usefixtures("definition")
def test_it_is_established_as_soon_as_it_is_created(server: ApiServerProcess) -> None:
    found = server.json("get", "crd", "crontabs.stable.example.com")
    established = next(item for item in found["status"]["conditions"] if item["type"] == "Established")
    start, end = (
        datetime.fromisoformat(text)
        for text in (found["metadata"]["creationTimestamp"], established["lastTransitionTime"])
    )
    # Whole seconds: one of them may have just begun.
    assert (end - start).total_seconds() <= 2


@pytest.mark.usefixtures("definition")
def test_names_that_are_taken_are_not_served(server: ApiServerProcess) -> None:
    clash = DEFINITION.replace("name: crontabs.stable", "name: others.stable").replace(
        "plural: crontabs", "plural: others"
    )
    server.kubectl("apply", "-f", "-", stdin=clash)
    server.kubectl("wait", "--for=condition=NamesAccepted=False", "crd/others.stable.example.com", "--timeout=10s")
    found = server.json("get", "crd", "others.stable.example.com")["status"]["conditions"]
    reasons = {item["type"]: (item["status"], item["reason"]) for item in found}
    assert reasons["NamesAccepted"][0] == "False"
    assert reasons["Established"] == ("False", "NotAccepted")
    server.kubectl("delete", "crd", "others.stable.example.com")


def test_a_deleted_definition_takes_its_objects_with_it(server: ApiServerProcess, namespace: str) -> None:
    own = DEFINITION.replace("stable.example.com", "gone.example.com")
    server.kubectl("apply", "-f", "-", stdin=own)
    server.kubectl("wait", "--for=condition=Established", "crd/crontabs.gone.example.com", "--timeout=10s")
    tab = TAB.replace("stable.example.com", "gone.example.com")
    server.kubectl("apply", "-n", namespace, "--validate=false", "-f", "-", stdin=tab)
    server.kubectl("delete", "crd", "crontabs.gone.example.com", "--timeout=15s")
    missing = server.kubectl("get", "crontabs.v1.gone.example.com", "-A", check=False)
    assert missing.returncode != 0
    server.kubectl("apply", "-f", "-", stdin=own)
    server.kubectl("wait", "--for=condition=Established", "crd/crontabs.gone.example.com", "--timeout=10s")
    assert server.json("get", "crontabs.v1.gone.example.com", "-A")["items"] == []
    server.kubectl("delete", "crd", "crontabs.gone.example.com")


def test_a_definition_that_is_wrong_is_refused_with_its_field(server: ApiServerProcess) -> None:
    wrong = DEFINITION.replace("name: crontabs.stable.example.com", "name: wrong.stable.example.com")
    refused = server.kubectl("apply", "-f", "-", stdin=wrong, check=False)
    assert 'must be spec.names.plural+"."+spec.group' in refused.stderr


def test_a_default_that_came_later_shows_on_what_was_stored_before(server: ApiServerProcess, namespace: str) -> None:
    own = DEFINITION.replace("stable.example.com", "later.example.com").replace(', default: "* * * * *"', "")
    server.kubectl("apply", "-f", "-", stdin=own)
    server.kubectl("wait", "--for=condition=Established", "crd/crontabs.later.example.com", "--timeout=10s")
    tab = TAB.replace("stable.example.com", "later.example.com")
    server.kubectl("apply", "-n", namespace, "--validate=false", "-f", "-", stdin=tab)
    kind = "crontabs.v1.later.example.com"
    assert "cronSpec" not in server.json("get", kind, "my", "-n", namespace)["spec"]
    server.kubectl("apply", "-f", "-", stdin=DEFINITION.replace("stable.example.com", "later.example.com"))
    assert server.json("get", kind, "my", "-n", namespace)["spec"]["cronSpec"] == "* * * * *"
    assert server.json("get", kind, "-n", namespace)["items"][0]["spec"]["cronSpec"] == "* * * * *"
    server.kubectl("delete", "crd", "crontabs.later.example.com")
