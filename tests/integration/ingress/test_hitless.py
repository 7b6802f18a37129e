"""Nothing that changes behind the proxy, or in it, costs a client a connection."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import ssl
from contextlib import AsyncExitStack

import aiohttp
import pytest

from tests.support.ingress_live import backend, live_ingress, secret, self_signed
from tests.support.ingress_objects import ENDING, path

pytestmark = pytest.mark.skipif(not shutil.which("haproxy", path="/usr/sbin:/usr/bin"), reason="needs HAProxy")

# A tenth of what the issue asks for; `INGRESS_CHANGES=1000` runs it whole.
CHANGES = int(os.environ.get("INGRESS_CHANGES", "100"))


@pytest.fixture
async def live(monkeypatch):
    async with live_ingress(monkeypatch) as made:
        yield made


async def until(check):
    """Wait until something is true."""
    async with asyncio.timeout(20):
        while not check():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


class Load:
    """Clients that ask without a pause: some over one connection each, some over a new one each time."""

    def __init__(self, url, host):
        self.url, self.headers = url, {"Host": host}
        self.answers = 0
        self.failures = []

    async def _ask(self, keep):
        connector = aiohttp.TCPConnector(limit=1, force_close=not keep)
        async with aiohttp.ClientSession(connector=connector) as session:
            while True:
                try:
                    async with session.get(
                        self.url, headers=self.headers, timeout=aiohttp.ClientTimeout(10)
                    ) as response:
                        await response.read()
                        if response.status != 200:
                            self.failures.append(response.status)
                        self.answers += 1
                except (aiohttp.ClientError, OSError) as error:
                    self.failures.append(repr(error))

    @contextlib.asynccontextmanager
    async def __call__(self, clients=4):
        tasks = [asyncio.ensure_future(self._ask(keep=number % 2 == 0)) for number in range(clients)]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def test_endpoints_change_under_load_and_no_request_fails(live):
    """Endpoints terminate, go and come, as in rollouts; the servers of those that left are shut, as their pods are."""
    chance = random.Random(1)
    async with AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(backend(f"b{n}")) for n in range(6)]
        live.service("web", *ports[:3])
        live.add()
        await live.settled()
        load = Load(f"http://127.0.0.1:{live.http}/", "a.test")
        present = ports[:3]
        async with load():
            reloads = live.proxy.reloads
            for _ in range(CHANGES):
                leaving = chance.choice(present)
                coming = chance.choice([port for port in ports if port not in present])
                kept = [port for port in present if port != leaving]
                live.endpoints("web", (leaving, ENDING), coming, *kept)
                await asyncio.sleep(chance.random() * 0.03)
                present = [coming, *kept]
                live.endpoints("web", *present)
                await asyncio.sleep(chance.random() * 0.03)
            await live.settled()
            assert live.proxy.reloads == reloads, "endpoints alone never need a reload"
    assert load.failures == []
    assert load.answers > CHANGES


async def test_reloads_under_load_fail_no_request(live):
    async with backend() as port:
        live.service("web", port)
        live.add()
        await live.settled()
        load = Load(f"http://127.0.0.1:{live.http}/", "a.test")
        async with load():
            for number in range(3):
                live.service(f"s{number}", port)
                live.add(f"i{number}", f"h{number}.test", [path("/", f"s{number}")])
                await live.settled()
        assert live.proxy.reloads >= 3
    assert load.failures == []
    assert load.answers > 50


async def test_an_endpoint_that_is_gone_before_anybody_says_so_costs_no_request(live):
    """A pod that died: its slice still names it, and nobody listens."""
    async with AsyncExitStack() as stack:
        alive = await stack.enter_async_context(backend("alive"))
        dying = AsyncExitStack()
        port = await dying.enter_async_context(backend("dying"))
        live.service("web", alive, port)
        live.add()
        await live.settled()
        load = Load(f"http://127.0.0.1:{live.http}/", "a.test")
        async with load():
            await asyncio.sleep(0.2)
            await dying.aclose()
            await asyncio.sleep(0.5)
            live.endpoints("web", alive)
            await live.settled()
    assert load.failures == []


async def test_a_renewed_certificate_is_in_the_next_handshake_and_no_handshake_fails(live):
    old, new = self_signed("a.test"), self_signed("a.test")
    # Not judged by a trust store, but compared below: each handshake must show the old one or the new one.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    live.service("web")
    live.put_secret(secret("c", *old))
    live.add(tls=[{"hosts": ["a.test"], "secretName": "c"}])
    await live.settled()
    seen, failures, reloads = [], [], live.proxy.reloads

    async def shake():
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", live.https, ssl=context, server_hostname="a.test")
            seen.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
            writer.close()
        except OSError as error:
            failures.append(repr(error))

    async def shake_for_ever():
        while True:
            await shake()

    tasks = [asyncio.ensure_future(shake_for_ever()) for _ in range(2)]
    try:
        for number in range(10):
            live.put_secret(secret("c", *(new if number % 2 == 0 else old)))
            await live.settled()
            await asyncio.sleep(0.05)
        assert live.proxy.reloads == reloads
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    live.put_secret(secret("c", *new))
    await live.settled()
    await shake()
    assert failures == []
    assert {ssl.DER_cert_to_PEM_cert(der).strip().encode() for der in seen} == {
        chain.strip() for chain, _ in (old, new)
    }
    assert ssl.DER_cert_to_PEM_cert(seen[-1]).strip().encode() == new[0].strip()


async def test_a_proxy_that_dies_is_started_again_with_all_that_was_said_since(live):
    async with backend("one") as one, backend("two") as two:
        live.service("web", one)
        live.add()
        await live.settled()
        live.endpoints("web", two)
        await live.settled()
        os.kill(int((live.run / "haproxy.pid").read_text().split()[0]), signal.SIGKILL)
        await until(lambda: live.sync.running is None)
        await live.settled()
        url, headers = f"http://127.0.0.1:{live.http}/", {"Host": "a.test"}
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
            assert (await response.json())["server"] == "two"


async def test_a_taken_port_is_told_and_served_once_it_is_free(live, monkeypatch):
    await live.settled()
    await live.proxy.stop()
    blocker = await asyncio.start_server(lambda *_: None, "127.0.0.1", live.http)
    await until(lambda: "ended at once" in live.sync.error)
    assert f"127.0.0.1:{live.http}" in live.sync.error, "which port it is"
    blocker.close()
    await blocker.wait_closed()
    await until(lambda: not live.sync.error)
