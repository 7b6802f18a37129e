"""The table of what is served agrees with the published API."""

from __future__ import annotations

import importlib

import pytest

from services.apiserver.registry.allocation import ServiceRange
from services.apiserver.registry.builtin import rows
from services.apiserver.registry.table import build_registry

_MODULES = (
    "core_v1", "apps_v1", "batch_v1", "autoscaling_v1", "autoscaling_v2", "networking_v1", "policy_v1",
    "rbac_authorization_v1",
    "storage_v1", "admissionregistration_v1", "apiextensions_v1", "apiregistration_v1", "scheduling_v1",
    "coordination_v1",
    "node_v1", "discovery_v1", "flowcontrol_apiserver_v1", "events_v1", "authentication_v1", "authorization_v1",
)  # fmt: skip
_VERBS = {"post": "create", "put": "update"}


@pytest.mark.parametrize("module", _MODULES)
def test_every_stable_resource_is_served_with_its_scope_and_verbs(module: str) -> None:
    served = {(row.group, row.version, row.kind.kind): row for row in rows()}
    resources = importlib.import_module(f"lightkube.resources.{module}")
    found = 0
    for cls in vars(resources).values():
        info = getattr(cls, "_api_info", None)
        if info is None or info.parent is not None or not isinstance(cls, type):
            continue
        row = served[info.resource.group, info.resource.version, info.resource.kind]
        assert row.plural == info.plural
        assert row.namespaced is ("Namespaced" in cls.__mro__[1].__name__)
        verbs = {_VERBS.get(verb, verb) for verb in info.verbs if not verb.startswith("global_")}
        # The published document lists a watch of component statuses, which no server ever had.
        assert set(row.verbs) == verbs - ({"watch"} if row.plural == "componentstatuses" else set()), row.plural
        found += 1
    assert found


def test_every_row_has_a_strategy_and_a_schema_and_knows_its_fields() -> None:
    registry = build_registry(ServiceRange("10.96.0.0/16", 30000, 32767))
    for row in registry.all():
        assert row.strategy is not None
        assert row.schema is not None
        for path in row.selectable_fields:
            assert path in row.positions or path.startswith("metadata.name")
    assert registry.versions("autoscaling") == ["v2", "v1"]
    assert registry.resolve("", "", "events").kind.kind == "Event"
