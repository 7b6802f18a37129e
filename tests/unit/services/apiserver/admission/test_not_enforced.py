"""Warnings where something is stored and does nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.apiserver.admission.not_enforced import FIELDS, KINDS, tree, used
from services.apiserver.registry import builtin
from services.apiserver.request import WriteOptions
from services.apiserver.schema import definitions
from tests.support.apiserver_core import CoreClient, running_core

ROWS = {row.storage: row for row in builtin.rows() if row.kind == row.storage_kind}


@pytest.mark.parametrize(
    ("storage", "path"), [(storage, path) for storage, paths in FIELDS.items() for path in paths], ids=str
)
def test_every_entry_is_a_field_of_its_kind(storage: str, path: str) -> None:
    node: Any = definitions.node_for(ROWS[storage].kind)
    for step in path.split("."):
        name = step.removesuffix("[]")
        assert name in node.fields, f"{storage} has no {path}"
        node = node.fields[name].item if step.endswith("[]") else node.fields[name]


def test_every_kind_is_served() -> None:
    assert KINDS.keys() <= ROWS.keys()
    assert not KINDS.keys() & FIELDS.keys()


def test_places_are_named() -> None:
    pod = {"spec": {"containers": [{"name": "a"}, {"securityContext": {"windowsOptions": {"hostProcess": True}}}]}}
    table = tree({"spec.containers[].securityContext.windowsOptions": "Linux", "spec.gpus": "none", "spec.os": "one"})
    assert used(pod, table) == [("spec.containers[1].securityContext.windowsOptions", "Linux")]
    assert used({"spec": {"gpus": 0, "os": {}, "containers": None}}, table) == [("spec.gpus", "none")]
    assert used({"spec": "x"}, table) == used(None, table) == []


def test_every_path_of_the_tables_is_found() -> None:
    for storage, paths in FIELDS.items():
        for path, why in paths.items():
            obj: Any = 1
            for step in reversed(path.split(".")):
                obj = {step.removesuffix("[]"): [obj] if step.endswith("[]") else obj}
            assert used(obj, tree(FIELDS[storage])) == [(path.replace("[]", "[0]"), why)]


async def created(client: CoreClient, plural: str, obj: dict[str, Any], group: str = "") -> list[str]:
    row = client.core.registry.resolve(group, "", plural)
    namespace = "default" if row.namespaced else ""
    req = client.request("create", plural, namespace, "", group)
    return (await client.core.handlers.create(req, obj, WriteOptions())).warnings


async def test_who_uses_it_is_warned_once(tmp_path: Path) -> None:
    async with running_core(tmp_path) as client:
        spec: dict[str, Any] = {
            "containers": [{"name": "a", "image": "x"}],
            "schedulingGroup": {"podGroupName": "together"},
        }
        pod = {"metadata": {"name": "p"}, "spec": spec}
        warnings = await created(client, "pods", pod)
        expected = "spec.schedulingGroup: is stored and has no effect: pods are scheduled one by one"
        assert [text.startswith(expected) for text in warnings] == [True]
        # Who labels it later brings nothing in.
        req = client.request("patch", "pods", "default", "p")
        labels = {"metadata": {"labels": {"a": "b"}}}
        assert (await client.core.handlers.patch(req, "merge", labels, WriteOptions())).warnings == []
        driver = {"metadata": {"name": "d.example.com"}, "spec": {}}
        assert await created(client, "csidrivers", driver, "storage.k8s.io") == [
            "CSIDriver is stored and has no effect: no CSI driver runs here"
        ]
        plain = {"metadata": {"name": "q"}, "spec": {"containers": [{"name": "a", "image": "x"}]}}
        assert await created(client, "pods", plain) == []
