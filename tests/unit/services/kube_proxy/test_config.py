from types import SimpleNamespace

import pytest

from machinery.component.process import Fatal
from services.kube_proxy.__main__ import KubeProxyConfig, serve


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"cluster_cidr": "fd00::/48"}, "cluster_cidr: 'fd00::/48' is no IPv4 range; this proxy serves IPv4 only"),
        ({"cluster_cidr": "10.244.0.0/40"}, "cluster_cidr: '10.244.0.0/40' is no IPv4 range"),
        ({"node_port_addresses": ["192.0.2.0/24", "::/0"]}, "node_port_addresses: '::/0' is no IPv4 range"),
    ],
)
async def test_ranges_that_can_not_be_served_are_refused_at_the_start(wrong, words):
    with pytest.raises(Fatal, match=words.replace("(", "\\(")):
        await serve(SimpleNamespace(config=KubeProxyConfig(node_name="n1", **wrong)))
