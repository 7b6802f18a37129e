"""Which default class an Ingress gets that names none."""

from types import SimpleNamespace

import pytest

from services.apiserver.admission.pod_defaults import DEFAULT_INGRESS_CLASS, DefaultIngressClass


def default(name, created):
    return {"metadata": {"name": name, "creationTimestamp": created, "annotations": {DEFAULT_INGRESS_CLASS: "true"}}}


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ([], None),
        ([{"metadata": {"name": "plain", "creationTimestamp": "2026-01-01T00:00:00Z"}}], None),
        ([default("new", "2026-01-02T00:00:00Z"), default("old", "2026-01-01T00:00:00Z")], "new"),
        ([default("b", "2026-01-01T00:00:00Z"), default("a", "2026-01-01T00:00:00Z")], "a"),
    ],
)
def test_the_newest_default_class_then_the_first_by_name(classes, expected):
    ctx = SimpleNamespace(obj={"spec": {}}, metadata={}, lookup=SimpleNamespace(list=lambda _: classes))
    DefaultIngressClass().mutate(ctx)
    assert ctx.obj["spec"].get("ingressClassName") == expected
