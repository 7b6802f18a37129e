"""What any proxy must do, HAProxy and the fake one: what it is told it has, and what it can't do it refuses."""

import datetime
import shutil
import tempfile
from pathlib import Path

import pytest

from services.ingress import certificates, changes, haproxy, render
from services.ingress.changes import (
    AddHosts,
    DropCertificate,
    DropHosts,
    DropKey,
    FreeServer,
    SetCertificate,
    SetKey,
    SetServer,
)
from services.ingress.fake_haproxy import FakeHaproxy
from services.ingress.proxy import ProxyError
from services.ingress.table import Certificate, Endpoint
from tests.support.ingress_live import free_ports
from tests.support.ingress_objects import ingress, path, table

ENDS = [Endpoint(f"10.99.0.{n}", 8000 + n) for n in range(1, 9)]
PEMS = [certificates.self_signed(datetime.datetime.now(datetime.UTC)).pem for _ in range(3)]


@pytest.fixture(params=["fake", "haproxy"])
async def proxy(request, monkeypatch):
    run = Path(tempfile.mkdtemp(prefix="ing-"))
    http, https = free_ports(2)
    settings = render.Settings(run, (f"127.0.0.1:{http}",), (f"127.0.0.1:{https}",), access_log=False, threads=1)
    if request.param == "fake":
        made = FakeHaproxy()
    else:
        program = haproxy.find_program()
        if program is None:
            pytest.skip("HAProxy is not installed")
        monkeypatch.setattr(haproxy, "DRAIN_SECONDS", 0.2)
        made = haproxy.Haproxy(settings, program)
    made.test_settings = settings
    yield made
    await made.stop()
    shutil.rmtree(run, ignore_errors=True)


def wanted(proxy, built, *ends):
    return render.render(built, dict.fromkeys(built.backends, ends), proxy.test_settings, PEMS[0])


def world(paths=("/a",), pem=PEMS[1], hosts=("a.test",)):
    tls = [{"hosts": list(hosts), "secretName": "c"}]
    return table(
        ingress(paths=[path(text) for text in paths], annotations={"ssl-redirect": "false"}, tls=tls),
        secrets={"d/c": Certificate(pem, (), 9e9)},
    )


async def assert_has(proxy, running):
    state = await proxy.state()
    for name, slots in running.servers.items():
        assert [slot for slot in state.servers[name] if slot] == [slot for slot in slots if slot]
        assert [slot is None for slot in state.servers[name]] == [slot is None for slot in slots]
    assert {n: dict(keys) for n, keys in state.maps.items()} == {n: dict(k) for n, k in running.wanted.maps.items()}
    assert state.sni == {file: frozenset(hosts) for file, hosts in running.wanted.sni.items()}


async def test_after_a_load_it_has_what_it_was_loaded_with(proxy):
    running = changes.fresh(wanted(proxy, world(), ENDS[0], ENDS[1]._replace(draining=True)))
    await proxy.load(running)
    await assert_has(proxy, running)
    again = changes.reloaded(running, wanted(proxy, world(("/a", "/b")), *ENDS[1:7]))
    await proxy.load(again)
    await assert_has(proxy, again)


async def test_commands_lead_to_the_same_as_a_load(proxy):
    running = changes.fresh(wanted(proxy, world(), *ENDS[:2]))
    await proxy.load(running)
    steps = [
        wanted(proxy, world(("/a", "/b/c", "/d")), *ENDS[1:4]),
        wanted(proxy, world(("/b/c",)), ENDS[1]._replace(draining=True), ENDS[5]),
        wanted(proxy, world(pem=PEMS[2]), ENDS[1]),
        wanted(proxy, world(hosts=("a.test", "*.b.test", "c.test"))),
        wanted(proxy, world(hosts=("c.test",)), *ENDS[4:8]),
        wanted(proxy, table(ingress()), ENDS[0]),
    ]
    for step in steps:
        plan = changes.plan(running, step)
        assert plan.reload == "", plan.reload
        assert plan.commands
        await proxy.run(plan.commands)
        running = plan.then
        await assert_has(proxy, running)


@pytest.mark.parametrize(
    "command",
    [
        SetServer("nobody", 1, ENDS[0]),
        FreeServer("nobody", 1),
        DropKey("routes", "a.test/missing"),
        DropCertificate("d_c.pem"),
        DropCertificate("missing.pem"),
        AddHosts("missing.pem", ("a.test",)),
        DropHosts("d_c.pem", ("other.test",)),
        SetCertificate("d_c.pem", PEMS[2], True),
        SetCertificate("missing.pem", PEMS[2], False),
    ],
    ids=lambda command: f"{type(command).__name__}-{command[0]}",
)
async def test_what_can_not_be_done_is_an_error(proxy, command):
    running = changes.fresh(wanted(proxy, world(), ENDS[0]))
    await proxy.load(running)
    with pytest.raises(ProxyError):
        await proxy.run([command])


async def test_a_slot_that_is_not_there_is_an_error(proxy):
    running = changes.fresh(wanted(proxy, world(), ENDS[0]))
    await proxy.load(running)
    (name,) = running.servers
    with pytest.raises(ProxyError):
        await proxy.run([SetServer(name, 99, ENDS[0])])


async def test_many_commands_at_once_are_all_done(proxy):
    running = changes.fresh(wanted(proxy, world(), ENDS[0]))
    await proxy.load(running)
    (name,) = running.servers
    await proxy.run([SetKey("routes", f"h{n}.test/", name, True) for n in range(400)])
    assert len((await proxy.state()).maps["routes"]) == 401


async def test_after_a_stop_it_has_ended(proxy):
    await proxy.load(changes.fresh(wanted(proxy, world(), ENDS[0])))
    await proxy.stop()
    await proxy.wait_ended()
