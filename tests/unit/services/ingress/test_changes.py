"""What becomes commands, what a reload, and that either leads to what is wanted."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingress import changes, render
from services.ingress.changes import DropCertificate, FreeServer, SetCertificate, SetKey, SetServer
from services.ingress.fake_haproxy import FakeHaproxy
from services.ingress.table import Certificate, Endpoint
from tests.support import ingress_worlds
from tests.support.ingress_objects import ingress, path, table

SETTINGS = render.Settings(Path("/run/x"), ("10.0.0.1:80",), ("10.0.0.1:443",))
ENDS = [Endpoint(f"10.0.0.{n}", 80) for n in range(1, 30)]


def wanted(built, *ends):
    return render.render(built, dict.fromkeys(built.backends, tuple(ends)), SETTINGS, "PEM")


async def follow(proxy, running, new):
    """What `sync` does: the plan carried out."""
    plan = changes.plan(running, new)
    if plan.reload:
        running = changes.reloaded(running, new)
        await proxy.load(running)
        return running
    await proxy.run(plan.commands)
    return plan.then


async def assert_is(proxy, running, new):
    state = await proxy.state()
    assert state.maps == new.maps
    assert state.sni == {file: frozenset(hosts) for file, hosts in new.sni.items()}
    for name, ends in new.endpoints.items():
        assert {e for e in state.servers[name] if e} == set(ends)
        assert state.servers[name] == tuple(running.servers[name])


def test_the_same_again_is_nothing_to_do():
    new = wanted(table(ingress()), *ENDS[:2])
    plan = changes.plan(changes.fresh(new), wanted(table(ingress(created="2026-01-01T00:00:00Z")), *ENDS[:2]))
    assert (plan.reload, plan.commands) == ("", ())


def test_endpoints_come_and_go_by_commands_and_keep_their_slots():
    built = table(ingress())
    (name,) = built.backends
    running = changes.fresh(wanted(built, *ENDS[:3]))
    plan = changes.plan(running, wanted(built, ENDS[0], ENDS[2]._replace(draining=True), ENDS[3]))
    assert plan.reload == ""
    draining = ENDS[2]._replace(draining=True)
    assert set(plan.commands) == {SetServer(name, 3, draining), SetServer(name, 4, ENDS[3]), FreeServer(name, 2)}
    assert plan.then.servers[name] == (ENDS[0], None, draining, ENDS[3])


def test_more_endpoints_than_slots_reload_and_until_then_those_that_fit_serve():
    built = table(ingress())
    (name,) = built.backends
    running = changes.fresh(wanted(built, *ENDS[:3]))
    plan = changes.plan(running, wanted(built, *ENDS[:9]))
    assert "free slots" in plan.reload
    assert [command.slot for command in plan.commands] == [4]
    after = changes.reloaded(running, wanted(built, *ENDS[:9]))
    assert after.servers[name][:3] == tuple(ENDS[:3])
    assert len(after.servers[name]) == 16


def test_a_path_of_a_known_backend_is_a_command_and_a_new_backend_a_reload():
    running = changes.fresh(wanted(table(ingress())))
    plan = changes.plan(running, wanted(table(ingress(paths=[path(), path("/more")]))))
    assert plan.reload == ""
    assert [type(command) for command in plan.commands] == [SetKey]
    plan = changes.plan(running, wanted(table(ingress(paths=[path(), path("/more", "other")]))))
    assert plan.reload == "1 backends"
    assert plan.commands == (), "nothing may lead to a backend that is not there yet"


def test_an_ingress_that_goes_needs_no_reload():
    running = changes.fresh(wanted(table(ingress(), ingress("b", "b.test", [path("/", "other")]))))
    plan = changes.plan(running, wanted(table(ingress())))
    assert plan.reload == ""
    assert [tuple(command) for command in plan.commands] == [("routes", "b.test/")]


@pytest.mark.parametrize("text", ["/a;b", "/a$b", "/a(b)", "/it's"])
def test_a_key_that_is_no_plain_word_waits_for_a_reload(text):
    running = changes.fresh(wanted(table(ingress())))
    plan = changes.plan(running, wanted(table(ingress(paths=[path(), path(text)]))))
    assert plan.reload
    assert plan.commands == ()


def test_a_renewed_certificate_is_one_command_and_a_dropped_one_goes_last():
    tls = [{"hosts": ["a.test"], "secretName": "c"}]

    def with_pem(pem):
        return wanted(table(ingress(tls=tls), secrets={"d/c": Certificate(pem, ("a.test",), 9e9)}))

    running = changes.fresh(with_pem("OLD"))
    plan = changes.plan(running, with_pem("NEW"))
    assert (plan.reload, plan.commands) == ("", (SetCertificate("d_c.pem", "NEW", False),))
    gone = changes.plan(running, dataclasses.replace(with_pem("OLD"), certificates={"default.pem": "PEM"}, sni={}))
    assert gone.commands[-1] == DropCertificate("d_c.pem")


@given(ingress_worlds.rules, st.lists(ingress_worlds.requests, min_size=1, max_size=5))
async def test_every_request_goes_where_the_api_says(chosen, requests):
    proxy = FakeHaproxy()
    built = table(*ingress_worlds.ingresses(chosen))
    await proxy.load(changes.fresh(wanted(built)))
    for host, text in requests:
        found = proxy.route(host, text)
        service = built.backends[found].service if found in built.backends else None
        assert service == ingress_worlds.expected(chosen, host, text), (host, text)


_worlds = st.lists(st.tuples(ingress_worlds.rules, st.sets(st.sampled_from(ENDS), max_size=12)), min_size=2, max_size=4)


@settings(max_examples=60)
@given(_worlds)
async def test_any_sequence_of_changes_ends_in_what_a_fresh_start_would_be(worlds):
    proxy, running = FakeHaproxy(), None
    for number, (chosen, ends) in enumerate(worlds):
        tls = [{"hosts": [host for host, _, _ in chosen if host], "secretName": f"c{number % 2}"}]
        objects = [*ingress_worlds.ingresses(chosen), ingress("tls", "t.test", tls=tls)]
        secrets = {f"d/c{n}": Certificate(f"PEM{number}", (), 9e9) for n in range(2)}
        new = wanted(table(*objects, secrets=secrets), *sorted(ends))
        if running is None:
            running = changes.fresh(new)
            await proxy.load(running)
        else:
            running = await follow(proxy, running, new)
        await assert_is(proxy, running, new)
