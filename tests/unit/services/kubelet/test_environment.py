"""Variables in every form."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightkube.models import core_v1

from services.kubelet.environment import MissingReference, NodeFacts, Sources, build, expand
from tests.support.kubelet_pods import pod

NODE = NodeFacts("n1", ("192.0.2.1",), ("10.0.0.1",), {"cpu": "4", "memory": "8Gi"})


def env(*variables: dict, sources: Sources | None = None, **container: object) -> dict[str, str]:
    spec = pod({"name": "c", "image": "i", "env": list(variables), **container})
    return build(spec, spec.spec.containers[0], sources or Sources(), NODE)


def test_expansion_as_written_in_the_api_reference() -> None:
    known = {"A": "1", "B": "2"}.get
    assert expand("$(A)-$(B)", known) == "1-2"
    assert expand("$$(A)", known) == "$(A)"
    assert expand("$(C) $A $( $", known) == "$(C) $A $( $"


@given(st.text())
def test_text_without_dollars_stays(text: str) -> None:
    clean = text.replace("$", "")
    assert expand(clean, {}.get) == clean


def test_later_variables_see_earlier_ones() -> None:
    assert env({"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2"})["B"] == "12"


def test_fields_and_resources() -> None:
    def field(path: str) -> dict:
        return {"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}

    for path, value in (
        ("metadata.name", "p"), ("metadata.uid", "u1"), ("metadata.labels['app']", "x"), ("spec.nodeName", "n1"),
        ("status.podIP", "10.0.0.1"), ("status.hostIP", "192.0.2.1"),
    ):  # fmt: skip
        assert env(field(path))["X"] == value

    def resource(name: str, divisor: str = "1") -> dict:
        return {"name": "X", "valueFrom": {"resourceFieldRef": {"resource": name, "divisor": divisor}}}

    limits = {"limits": {"cpu": "1500m", "memory": "64Mi"}}
    assert env(resource("limits.cpu"), resources=limits)["X"] == "2"
    assert env(resource("limits.cpu", "1m"), resources=limits)["X"] == "1500"
    assert env(resource("requests.memory", "1Mi"), resources=limits)["X"] == "64"
    assert env(resource("limits.cpu"))["X"] == "4"


def test_config_maps_and_secrets_by_key_and_whole() -> None:
    sources = Sources({"m": {"k": "v", "bad=key": "x"}}, {"s": {"p": b"w"}})
    by_key = {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}
    by_secret = {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}}
    whole = [{"prefix": "M_", "configMapRef": {"name": "m"}}, {"secretRef": {"name": "s"}}]
    assert env(by_key, by_secret, sources=sources, envFrom=whole) == {"A": "v", "B": "w", "M_k": "v", "p": "w"}


def test_what_is_missing_is_named() -> None:
    def of(**reference: object) -> dict:
        return {"name": "A", "valueFrom": {"configMapKeyRef": reference}}

    with pytest.raises(MissingReference, match='configmap "m" not found'):
        env(of(name="m", key="k"))
    with pytest.raises(MissingReference, match="couldn't find key k in ConfigMap ns/m"):
        env(of(name="m", key="k"), sources=Sources({"m": {}}))
    assert env(of(name="m", key="k", optional=True)) == {}


def test_service_variables() -> None:
    service = msgspec.convert(
        {
            "metadata": {"name": "my-db", "namespace": "ns"},
            "spec": {
                "clusterIP": "10.96.0.5",
                "ports": [{"name": "sql", "port": 5432}, {"port": 53, "protocol": "UDP"}],
            },
        },
        core_v1.Service,
    )
    found = env(sources=Sources(services=[service]))
    assert found["MY_DB_SERVICE_HOST"] == "10.96.0.5"
    assert found["MY_DB_SERVICE_PORT"] == found["MY_DB_SERVICE_PORT_SQL"] == "5432"
    assert found["MY_DB_PORT"] == found["MY_DB_PORT_5432_TCP"] == "tcp://10.96.0.5:5432"
    assert found["MY_DB_PORT_53_UDP_PROTO"] == "udp"
    spec = pod(enableServiceLinks=False)
    assert build(spec, spec.spec.containers[0], Sources(services=[service]), NODE) == {}
