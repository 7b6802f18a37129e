"""Which signals count and who goes first."""

from __future__ import annotations

from services.kubelet import eviction
from services.kubelet.eviction import Signal, Use
from tests.support.kubelet_pods import pod

GI = 1 << 30


def named(uid: str, memory: str = "", **spec: object):  # type: ignore[no-untyped-def]
    resources = {"requests": {"memory": memory}} if memory else {}
    found = pod({"name": "c", "image": "i", "resources": resources}, **spec)
    found.metadata.uid = uid
    return found


def test_signals_below_their_thresholds_are_breaches() -> None:
    signals = {"memory.available": Signal(50 << 20, 8 * GI), "nodefs.available": Signal(20 * GI, 100 * GI)}
    found = eviction.breaches(signals, {"memory.available": "100Mi", "nodefs.available": "10%"})
    assert [(b.signal, b.condition, b.threshold) for b in found] == [("memory.available", "memory", 100 << 20)]
    found = eviction.breaches(signals, {"nodefs.available": "25%"})
    assert found[0].condition == "disk"


def test_the_order_of_eviction() -> None:
    within = named("within", "4Gi")
    over = named("over", "1Gi")
    far_over = named("far", "1Gi")
    important = named("important", "1Gi", priority=100)
    critical = named("critical", priority=2_000_001_000)
    usage = {"within": 3 * GI, "over": 2 * GI, "far": 3 * GI, "important": 5 * GI, "critical": 9 * GI}
    used = {uid: Use(amount) for uid, amount in usage.items()}
    order = eviction.rank([within, important, over, critical, far_over], used, "memory")
    assert [p.metadata.uid for p in order] == ["far", "over", "important", "within"]


def test_process_ids_are_taken_back_from_the_least_important_who_has_most() -> None:
    few, many, important = named("few"), named("many"), named("important", priority=7)
    used = {"few": Use(3), "many": Use(900), "important": Use(5000)}
    order = eviction.rank([important, few, many], used, "pids")
    assert [p.metadata.uid for p in order] == ["many", "few", "important"]


def test_the_message_names_the_resource() -> None:
    breach = eviction.Breach("memory.available", "memory", "memory", 51200 * 1024, 100 << 20)
    text = eviction.message(breach, named("u"), Use(GI, {"c": GI}))
    assert text == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. "
        "Container c was using 1Gi, request is 0, has larger consumption of memory. "
    )
    assert "Container" not in eviction.message(breach, named("u", "2Gi"), Use(GI, {"c": GI}))
    breach = eviction.Breach("pid.available", "pid", "pids", 100, 1500)
    text = eviction.message(breach, named("u"), Use(900))
    assert text == "The node was low on resource: pids. Threshold quantity: 1500, available: 100. "


def test_empty_dirs_over_their_limit() -> None:
    limited = pod(volumes=[{"name": "e", "emptyDir": {"sizeLimit": "1Ki"}}])
    assert eviction.over_size_limit(limited, {"e": 512}) == ""
    assert eviction.over_size_limit(limited, {"e": 4096}) == 'Usage of EmptyDir volume "e" exceeds the limit "1Ki". '
