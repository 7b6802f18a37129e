"""Ranges of a cluster that this host has a use for already."""

import pytest

from lab.network import Addresses, clash, says_nothing


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        ([{"dst": "default", "gateway": "192.0.2.1"}, {"dst": "192.0.2.0/24", "dev": "eth0"}], ""),
        # Ours are a small part of it: the rest of it goes on being reached.
        ([{"dst": "10.0.0.0/8", "dev": "tun0"}], ""),
        ([{"dst": "10.244.7.0/24", "dev": "tun0"}], "10.244.0.0/16 (for pods) overlaps 10.244.7.0/24"),
        ([{"dst": "10.96.0.0/16", "dev": "tun0"}], "10.96.0.0/16 (for Services) overlaps 10.96.0.0/16"),
        ([{"dst": "10.197.0.9", "dev": "eth1"}], "10.197.0.0/24 (for nodes) overlaps 10.197.0.9/32"),
    ],
)
def test_a_range_that_this_host_reaches_elsewhere_is_told(routes, expected):
    found = clash(Addresses(0), routes)
    assert found.startswith(expected) if expected else found == ""
    assert clash(Addresses(1), routes) == ""


FORWARD = {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "accept"}}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([FORWARD], True),
        ([FORWARD, {"rule": {"chain": "FORWARD", "expr": [{"accept": None}]}}], False),
        ([{"chain": FORWARD["chain"] | {"policy": "drop"}}], False),
        ([FORWARD, {"chain": {"name": "DOCKER-USER"}}], False),
        ([FORWARD, {"set": {"name": "kept"}}], False),
    ],
)
def test_a_filter_table_goes_only_if_nobody_would_miss_it(entries, expected):
    table = {"nftables": [{"metainfo": {}}, {"table": {"family": "ip", "name": "filter"}}, *entries]}
    assert says_nothing(table) is expected
