"""What any nft must do, the kernel's and the fake one: all or nothing, and refuse what does not fit."""

import asyncio
import ctypes
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.kube_proxy import nft as nft_module
from services.kube_proxy.fake_nft import FakeNft
from services.kube_proxy.nft import Names, NftCommand, NftError
from services.kube_proxy.nft_library import NftLibrary
from services.kube_proxy.ruleset import Settings, service_ports
from services.kube_proxy.table import Table
from tests.support.netns import namespace
from tests.support.service_objects import ENDING, READY, pieces, service

TABLE = "ip contract"
SETTINGS = Settings("n1", "10.244.0.0/16")
BOX = f"""add table {TABLE}
add map {TABLE} m {{ type ipv4_addr : verdict; }}
add set {TABLE} s {{ type ipv4_addr; }}
add chain {TABLE} c
"""


@pytest.fixture(params=["fake", "program", "library"])
def nft(request, monkeypatch):
    if request.param == "fake":
        yield FakeNft()
        return
    if os.geteuid() != 0 or shutil.which("nft") is None:
        pytest.skip("the real nft needs root and the program")
    with namespace() as inside:
        start = asyncio.create_subprocess_exec

        async def start_inside(*argv, **options):
            return await start("nsenter", f"--net=/proc/{inside.pid}/ns/net", "--", *argv, **options)

        monkeypatch.setattr(nft_module.asyncio, "create_subprocess_exec", start_inside)
        if request.param == "program":
            yield NftCommand()
            return
        # A namespace is a thread's own: the socket that this one opens is in there.
        with ThreadPoolExecutor(1, initializer=_enter, initargs=(f"/proc/{inside.pid}/ns/net",)) as executor:
            library = NftLibrary(executor)
            first = NftCommand.apply

            async def only_at_first(command, transaction):
                assert not library._asked
                await first(command, transaction)

            monkeypatch.setattr(NftCommand, "apply", only_at_first)
            yield library


def _enter(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert ctypes.CDLL(None, use_errno=True).setns(descriptor, 0x40000000) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(descriptor)


async def test_names_are_those_of_the_table_and_none_without_it(nft):
    assert await nft.names(TABLE) == Names()
    await nft.apply(BOX)
    assert await nft.names(TABLE) == Names(frozenset({"c"}), frozenset({"s"}))


@pytest.mark.parametrize(
    "refused",
    [
        f"add chain {TABLE} d\nadd rule {TABLE} d jump nowhere\n",
        f"add chain {TABLE} d\nadd element {TABLE} m {{ 10.0.0.1 : goto nowhere }}\n",
        f"add chain {TABLE} d\ndelete element {TABLE} s {{ 10.0.0.1 }}\n",
        f"add chain {TABLE} d\nadd rule {TABLE} d ip saddr @nowhere drop\n",
        f"add chain {TABLE} d\nadd rule {TABLE} c jump d\ndelete chain {TABLE} d\n",
        f"add chain {TABLE} d\nadd map {TABLE} m {{ type inet_service : verdict; }}\n",
        f"add chain {TABLE} d\ndelete chain {TABLE} nowhere\n",
    ],
    ids=["jump", "verdict", "absent element", "absent set", "chain in use", "other definition", "absent chain"],
)
async def test_a_refused_transaction_changes_nothing(nft, refused):
    await nft.apply(BOX)
    with pytest.raises(NftError):
        await nft.apply(refused)
    assert (await nft.names(TABLE)).chains == frozenset({"c"})


async def test_an_element_is_replaced_within_one_transaction_and_not_by_adding_it_again(nft):
    await nft.apply(BOX + f"add chain {TABLE} d\nadd element {TABLE} m {{ 10.0.0.1 : goto c }}\n")
    with pytest.raises(NftError):
        await nft.apply(f"add element {TABLE} m {{ 10.0.0.1 : goto d }}\n")
    await nft.apply(f"delete element {TABLE} m {{ 10.0.0.1 }}\nadd element {TABLE} m {{ 10.0.0.1 : goto d }}\n")


async def test_chains_are_emptied_and_removed_with_what_refers_to_them(nft):
    await nft.apply(BOX + f"add rule {TABLE} c accept\nadd element {TABLE} m {{ 10.0.0.1 : goto c }}\n")
    await nft.apply(f"delete element {TABLE} m {{ 10.0.0.1 }}\nflush chain {TABLE} c\ndelete chain {TABLE} c\n")
    assert (await nft.names(TABLE)).chains == frozenset()


HERE, THERE = ("10.244.0.2", "n1", READY), ("10.244.1.2", "n2", READY)
NODE_PORT = {"type": "NodePort", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]}
STATES = [
    (service(), pieces(HERE)),
    (service(), pieces(HERE, THERE)),
    (service(), []),
    (service(**NODE_PORT), pieces(HERE, THERE)),
    (service(**NODE_PORT, externalTrafficPolicy="Local"), pieces(THERE)),
    (service(**NODE_PORT, externalTrafficPolicy="Local"), pieces(HERE, THERE)),
    (service(**NODE_PORT, sessionAffinity="ClientIP", externalTrafficPolicy="Local"), pieces(HERE, THERE)),
    (service(sessionAffinity="ClientIP"), pieces(THERE)),
    (service(externalIPs=["192.0.2.1", "10.96.0.5"]), pieces(("10.244.0.3", "n1", ENDING))),
    (
        service(
            type="LoadBalancer",
            loadBalancerSourceRanges=["192.0.2.0/24", "10.0.0.0/8"],
            status={"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}},
        ),
        pieces(HERE),
    ),
]


async def test_every_state_of_a_service_turns_into_every_other_one(nft):
    table = Table(SETTINGS)
    await nft.apply(table.adopt([], await nft.names("ip cutaway-proxy")))
    empty = await nft.names("ip cutaway-proxy")
    present: dict = {}
    for first in range(len(STATES)):
        for second in range(len(STATES)):
            for which in (first, second):
                ports = {port.key: port for port in service_ports(*STATES[which], SETTINGS)}
                if transaction := table.change(dict.fromkeys(present) | ports):
                    await nft.apply(transaction)
                present = ports
    await nft.apply(table.change(dict.fromkeys(present)))
    left = await nft.names("ip cutaway-proxy")
    assert left.sets == empty.sets
    assert {c for c in left.chains - empty.chains if c.startswith("svc-")} == set()
    assert not table.uses
    assert not table.claims


async def test_what_an_earlier_run_left_is_adopted_and_its_affinity_kept(nft):
    before = Table(SETTINGS)
    sticky, other = service(sessionAffinity="ClientIP"), service("other", ip="10.96.0.6", sessionAffinity="ClientIP")
    old = [*service_ports(sticky, pieces(HERE, THERE), SETTINGS), *service_ports(other, pieces(HERE), SETTINGS)]
    await nft.apply(before.adopt(old, Names()))
    there = await nft.names("ip cutaway-proxy")
    assert len([name for name in there.sets if name.startswith("svc-")]) == 3
    after = Table(SETTINGS)
    await nft.apply(after.adopt(service_ports(sticky, pieces(HERE), SETTINGS), there))
    left = await nft.names("ip cutaway-proxy")
    assert len([name for name in left.sets if name.startswith("svc-")]) == 1
    await nft.apply(after.change(dict.fromkeys(after.ports)))


async def test_an_address_that_two_services_want_has_one_of_them_and_passes_to_the_other(nft):
    table = Table(SETTINGS)
    await nft.apply(table.adopt([], Names()))
    thief = service("aaa", ip="10.96.0.7", externalIPs=["10.96.0.5", "192.0.2.9"])
    owner, late = service(), service("zzz", ip="10.96.0.8", externalIPs=["192.0.2.9"])

    def of(which):
        return {port.key: port for port in service_ports(which, pieces(HERE), SETTINGS)}

    def holder(ip):
        return [p.service for p in table.ports.values() for f in p.frontends if f.ip == ip]

    for which in (thief, owner, late):
        await nft.apply(table.change(of(which)))
    assert (holder("10.96.0.5"), holder("192.0.2.9")) == (["web"], ["aaa"])
    await nft.apply(table.change(dict.fromkeys(of(thief))))
    assert holder("192.0.2.9") == ["zzz"]
    await nft.apply(table.change(of(thief)))
    assert (holder("10.96.0.5"), holder("192.0.2.9")) == (["web"], ["aaa"])
    await nft.apply(table.change(dict.fromkeys(of(owner))))
    assert holder("10.96.0.5") == ["aaa"]
