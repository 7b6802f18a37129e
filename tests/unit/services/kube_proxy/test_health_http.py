"""What a balancer in front is told."""

import json

import msgspec
import pytest

from services.kube_proxy import api
from services.kube_proxy.health_http import GOING_TAINT, LATE_SECONDS, Health, answer


def node(**fields):
    return msgspec.convert({"metadata": {"name": "n1"} | fields.pop("metadata", {}), **fields}, api.Node)


HERE = node()
GOING = node(spec={"taints": [{"key": GOING_TAINT, "effect": "NoSchedule"}]})
DELETED = node(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})


@pytest.mark.parametrize(
    ("health", "healthz", "livez"),
    [
        (Health(True, None, HERE), 200, 200),
        (Health(True, None, None), 200, 200),
        (Health(False, None, HERE), 503, 503),
        (Health(True, 1000.0 - LATE_SECONDS / 2, HERE), 200, 200),
        (Health(True, 1000.0 - LATE_SECONDS, HERE), 503, 503),
        (Health(True, None, GOING), 503, 200),
        (Health(True, None, DELETED), 503, 200),
    ],
)
def test_a_node_that_is_late_or_going_takes_no_new_connections(health, healthz, livez):
    assert answer(health, "/healthz", 1000.0, "now")[0] == healthz
    assert answer(health, "/livez", 1000.0, "now")[0] == livez
    eligible = json.loads(answer(health, "/healthz", 1000.0, "now")[1])
    assert eligible["nodeEligible"] is (health.node not in (GOING, DELETED))
    assert eligible["lastUpdated"] == "now"


def test_other_paths_are_not_there_and_the_mode_is_told():
    health = Health(True, None, HERE)
    assert answer(health, "/metrics", 0.0, "") is None
    assert answer(health, "/proxyMode", 0.0, "") == (200, b"nftables")
