"""What metadata may be."""

from __future__ import annotations

from machinery.api import kinds
from services.apiserver.schema.rules import metadata

META = {"name": "a", "namespace": "n", "finalizers": ["test-finalizer"]}


def test_only_kubernetes_own_kinds_want_finalizers_with_a_domain() -> None:
    (cause,) = metadata.create(kinds.CONFIG_MAP, META)
    assert "neither a standard finalizer name nor is it fully qualified" in cause.message
    assert metadata.create(kinds.CONFIG_MAP, META, custom=True) == []
    assert metadata.update(kinds.CONFIG_MAP, META, META, custom=True) == []
    assert metadata.create(kinds.CONFIG_MAP, {**META, "finalizers": ["x.io/y", "foregroundDeletion"]}) == []
