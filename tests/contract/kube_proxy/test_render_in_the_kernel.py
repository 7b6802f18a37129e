"""A difference must leave in the kernel exactly what writing everything anew would."""

import os
import re
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.kube_proxy import render
from services.kube_proxy.ruleset import Balancer, Endpoint, Frontend, Ruleset, ServicePort, Settings
from tests.support.netns import namespace

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft"), reason="needs root and nft"),
]
SETTINGS = Settings(node="n1", cluster_cidr="10.244.0.0/16")


@pytest.fixture(scope="module")
def kernel():
    with namespace() as made:
        yield made


@st.composite
def service_ports(draw, number):
    ends = draw(st.lists(st.integers(2, 9), unique=True, max_size=4).map(sorted))
    endpoints = tuple(Endpoint(f"10.244.{number}.{last}", 8080, "n1") for last in ends)
    affinity = draw(st.sampled_from([0, 0, 60]))
    chain = f"svc-{number}-in"
    balancers = (
        (Balancer(chain, endpoints, affinity, draw(st.sampled_from(["never", "outside", "always"]))),) if ends else ()
    )
    outcome = "balance" if ends else draw(st.sampled_from(["reject", "drop"]))
    node_port = draw(st.sampled_from([0, 30000 + number]))
    frontends = [Frontend(f"10.96.0.{number}", "TCP", 80, outcome, chain if ends else "")]
    if node_port:
        frontends.append(Frontend("", "TCP", node_port, outcome, chain if ends else ""))
    return ServicePort("d", f"s{number}", "", "TCP", tuple(frontends), balancers, endpoints, 80, node_port)


@st.composite
def rulesets(draw):
    numbers = draw(st.sets(st.integers(1, 5)))
    return Ruleset(SETTINGS, {port.key: port for number in numbers for port in [draw(service_ports(number))]})


def _listing(kernel):
    """The table in a comparable form: rules keep their order, chains, maps and elements have none."""
    text = kernel.run("nft", "-s", "list", "table", *render.TABLE.split())
    blocks = re.findall(r"\t(chain|map|set) (\S+) \{\n(.*?)\n\t\}", text, re.DOTALL)
    found = {}
    for kind, name, body in blocks:
        flat = re.sub(r"\s+", " ", body)
        elements = re.search(r"elements = \{ (.*) \}", flat)
        parts = sorted(elements.group(1).split(", ")) if elements else []
        found[kind, name] = (re.sub(r"elements = \{ .* \}", "", flat).strip(), parts)
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states=st.lists(rulesets(), min_size=2, max_size=5))
def test_differences_end_where_a_full_write_would(kernel, states):
    kernel.run("nft", "-f", "-", stdin=render.full(states[0]))
    for before, after in zip(states, states[1:], strict=False):
        change = render.difference(before, after)
        if change:
            kernel.run("nft", "-f", "-", stdin=change)
    by_steps = _listing(kernel)
    kernel.run("nft", "-f", "-", stdin=render.full(states[-1]))
    assert by_steps == _listing(kernel)


def test_no_change_is_no_transaction():
    assert render.difference(Ruleset(SETTINGS), Ruleset(SETTINGS)) == ""
