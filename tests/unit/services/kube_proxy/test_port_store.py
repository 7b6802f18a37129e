from services.kube_proxy.port_store import PortStore
from services.kube_proxy.ruleset import Endpoint, Frontend, ServicePort

END = Endpoint("10.244.0.2", 8080, "n1")
PORT = ServicePort(
    "d",
    "dns",
    "dns",
    "UDP",
    (
        Frontend("10.96.0.10", "UDP", 53, "balance", (END,), "outside"),
        Frontend("192.0.2.9", "UDP", 53, "balance", (END,), "always", (), ("192.0.2.0/24",), "balancer"),
        Frontend("", "UDP", 30053, "drop", kind="node"),
    ),
    (END,),
    frozenset({"10.244.0.2:8080", "10.244.0.3:8080"}),
    affinity_seconds=60,
    port=53,
    node_port=30053,
)


def test_a_port_comes_back_equal():
    store = PortStore()
    store[PORT.key] = PORT
    assert store[PORT.key] == PORT
    assert hash(store[PORT.key]) == hash(PORT)
    # None and () of a local policy are two things.
    assert [f.local for f in store[PORT.key].frontends] == [None, (), None]
    assert {**store} == {"d/dns:dns/UDP": PORT}


def test_it_is_a_mapping():
    store = PortStore()
    assert store.get("x") is None
    store["x"] = PORT
    assert ("x" in store, len(store), [*store], store.pop("x"), len(store)) == (True, 1, ["x"], PORT, 0)
