"""What the network's controllers tell of: selectors that match nothing, ranges that are others'."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import msgspec
import pytest

from services.controller_manager.controllers.endpoint_slice.unmatched import Unmatched
from services.controller_manager.controllers.service_cidr.plan import overlaps
from services.controller_manager.views.addresses import ServiceCidr
from services.controller_manager.views.pod import Node

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WEB = {"app": "web", "tier": "front"}


def look(unmatched, seconds, selector=WEB, matched=False):
    plan = unmatched.look("d/web", selector, matched=matched, now=NOW + timedelta(seconds=seconds))
    return [action.message for action in plan.actions], plan.requeue_after


def test_a_selector_that_matches_nothing_is_told_once_after_a_while():
    unmatched = Unmatched(60)
    assert look(unmatched, 0) == ([], 60)
    assert look(unmatched, 20) == ([], 40)
    (message,), again = look(unmatched, 60)
    assert message.startswith("spec.selector: app=web,tier=front matches no pod")
    assert again is None
    assert look(unmatched, 1000) == ([], None)


def test_pods_and_another_selector_begin_it_anew():
    unmatched = Unmatched(60)
    look(unmatched, 0)
    assert look(unmatched, 59, matched=True) == ([], None)
    assert look(unmatched, 61) == ([], 60)
    assert look(unmatched, 100, {"app": "wbe"}) == ([], 60)
    assert "app=wbe" in look(unmatched, 160, {"app": "wbe"})[0][0]


@pytest.mark.parametrize(
    ("cidrs", "told"),
    [
        (["10.96.0.0/16"], []),
        (["10.244.7.0/24"], ["spec.cidrs[0]: 10.244.7.0/24 overlaps the pods' range 10.244.0.0/16"]),
        (["10.0.0.0/8"], ["spec.cidrs[0]: 10.0.0.0/8 overlaps the pods' range 10.244.0.0/16"]),
        (["192.0.2.8/29"], ["spec.cidrs[0]: 192.0.2.8/29 overlaps 192.0.2.11, an address of node n1"]),
        (["10.96.0.0/16", "fd00::/108"], []),
    ],
)
def test_a_range_of_services_that_holds_others_addresses_is_told(cidrs, told):
    cidr = msgspec.convert({"metadata": {"name": "c"}, "spec": {"cidrs": cidrs}}, ServiceCidr)
    addresses = [{"type": "InternalIP", "address": "192.0.2.11"}, {"type": "Hostname", "address": "n1"}]
    node = msgspec.convert({"metadata": {"name": "n1"}, "status": {"addresses": addresses}}, Node)
    messages = [action.message for action in overlaps(cidr, [ip_network("10.244.0.0/16")], [node])]
    assert [message.partition(": Services need")[0] for message in messages] == told
