"""The policies' loop before it knows anything: after a start of the machine, and after a start of the proxy alone."""

import asyncio
from types import SimpleNamespace

from services.kube_proxy.fake_nft import FakeNft
from services.kube_proxy.policy import render
from services.kube_proxy.policy.agent import PolicyAgent, leave
from services.kube_proxy.policy.plan import Plan

ISOLATED = Plan(
    rules={("ingress", "d/closed"): ()},
    pods={"ingress": {"10.244.0.2": ("d/closed",)}, "egress": {}},
    known=frozenset({"10.244.0.2"}),
    held="10.244.0.0/24",
)


class Policies:
    """An informer of policies whose first answer has not come; there are none."""

    def __init__(self):
        self.synced = asyncio.Event()
        self.lister = SimpleNamespace(list=list)

    def add_handler(self, handler):
        pass


async def held(nft, then=None):
    """What is held once the loop waits for policies, and, after them, in the end."""
    policies = Policies()
    agent = PolicyAgent(policies, lambda name: None, nft, "n1", lambda: "10.244.0.0/24", "10.244.0.0/16")
    task = asyncio.create_task(agent.run())
    for _ in range(20):
        await asyncio.sleep(0)
    before = (set(nft.tables[render.TABLE].sets["held"]), set(nft.tables[render.TABLE].sets["ingress-pods"]))
    policies.synced.set()
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    assert agent.current == Plan()
    return before, set(nft.tables[render.TABLE].sets["held"])


async def test_after_a_start_of_the_machine_every_pod_is_held_until_the_policies_are_known():
    assert await held(FakeNft()) == (({"10.244.0.0/16"}, set()), set())


async def test_rules_of_an_earlier_run_stay_until_the_policies_are_known():
    nft = FakeNft()
    await nft.apply(render.adopt(ISOLATED, await nft.names(render.TABLE)))
    assert await held(nft) == (({"10.244.0.0/24"}, {"10.244.0.2"}), set())


async def test_whoever_leaves_policies_to_others_leaves_no_rules():
    nft = FakeNft()
    await leave(nft)
    await nft.apply(render.adopt(ISOLATED, await nft.names(render.TABLE)))
    await leave(nft)
    assert render.TABLE not in nft.tables
