"""Requests through a real HAProxy as the controller drives it: where they go, what the backend is told, what is
refused."""

import asyncio
import random
import shutil
import ssl

import aiohttp
import grpc
import pytest

from tests.support import ingress_worlds
from tests.support.ingress_live import backend, live_ingress, secret, self_signed
from tests.support.ingress_objects import ENDING, path

pytestmark = pytest.mark.skipif(not shutil.which("haproxy", path="/usr/sbin:/usr/bin"), reason="needs HAProxy")


@pytest.fixture
async def live(monkeypatch):
    async with live_ingress(monkeypatch) as made:
        yield made


@pytest.fixture
async def client():
    # A new connection each time: one from before a reload has one more answer by what was before.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), connector=connector) as session:
        yield session


async def ask(client, live, host, text="/", **options):
    """The backend's JSON, or the status if it is no 200."""
    headers = {"Host": host, **options.pop("headers", {})}
    method = options.pop("method", "GET")
    url = f"http://127.0.0.1:{live.http}{text}"
    async with client.request(method, url, headers=headers, allow_redirects=False, **options) as response:
        return await response.json() if response.status == 200 else response.status


async def test_every_request_goes_where_the_api_says(live, client):
    """One backend serves all; by its rewritten path it tells which rule was taken."""
    every = [(host, text, kind) for host in ingress_worlds.HOSTS for text in ingress_worlds.PATHS
             for kind in ("Exact", "Prefix")]  # fmt: skip
    requests = [(host, text) for host in ingress_worlds.REQUEST_HOSTS for text in ingress_worlds.REQUEST_PATHS]
    async with backend() as port:
        for seed in range(5):
            chosen = random.Random(seed).sample(every, 4 + 12 * seed)
            live.ingresses = []
            for number, (host, text, kind) in enumerate(chosen):
                live.service(f"s{number}", port)
                live.add(f"i{number}", host, [path(text, f"s{number}", kind=kind)],
                         annotations={"rewrite-target": f"/s{number}"})  # fmt: skip
            await live.settled()
            for host, text in requests:
                answer = await ask(client, live, host, text)
                got = answer["path"][1:] if isinstance(answer, dict) else None
                assert got == ingress_worlds.expected(chosen, host, text), (seed, host, text)


async def test_hosts_are_compared_without_case_and_port_and_can_not_hold_a_path(live, client):
    async with backend() as port:
        live.service("web", port)
        live.add(host="a.test", paths=[path("/admin")])
        await live.settled()
        assert (await ask(client, live, "A.Test:8080", "/admin"))["path"] == "/admin"
        assert await ask(client, live, "a.test/admin", "/x") == 400
        assert await ask(client, live, "*.a.test", "/") == 400
        assert await ask(client, live, "b.test", "/admin") == 404


async def test_a_path_can_not_climb_out_of_its_prefix(live):
    """Written as it is: a client library would have resolved it."""

    async def status(target):
        reader, writer = await asyncio.open_connection("127.0.0.1", live.http)
        writer.write(f"GET {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n".encode())
        line = await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        return int(line.split()[1])

    async with backend() as port:
        live.service("web", port)
        live.add(paths=[path("/public")])
        await live.settled()
        for hostile in ("/../admin", "/%2e%2E/admin", "/..%2fadmin", "%2f..%2Fadmin", "/.%2e", "/x/..", "/..?q"):
            assert await status(f"/public{hostile}") == 400, hostile
        for fine in ("/..a", "/a..", "/a..b/c", "/.well-known", "/...", "/x?next=/../y", "/%2e"):
            assert await status(f"/public{fine}") == 200, fine


async def test_a_rewrite_with_groups_and_without(live, client):
    async with backend() as port:
        live.service("web", port)
        live.add("groups", "a.test", [path("/api(/|$)(.*)", kind="ImplementationSpecific")],
                 annotations={"rewrite-target": "/v1/$2", "use-regex": "true"})  # fmt: skip
        live.add("plain", "b.test", [path("/old")], annotations={"rewrite-target": "/new%20x"})
        await live.settled()
        assert (await ask(client, live, "a.test", "/api/items?q=1"))["path"] == "/v1/items?q=1"
        assert (await ask(client, live, "a.test", "/API"))["path"] == "/v1/"
        assert await ask(client, live, "a.test", "/apix") == 404
        assert (await ask(client, live, "b.test", "/old/deep"))["path"] == "/new%20x"


async def test_the_backend_is_told_who_asks_and_no_client_can_pretend(live, client):
    async with backend() as port:
        live.service("web", port)
        live.add()
        await live.settled()
        told = (await ask(client, live, "a.test", headers={"X-Forwarded-For": "6.6.6.6", "X-Real-IP": "6.6.6.6"}))[
            "headers"
        ]
        assert told["X-Forwarded-For"] == told["X-Real-IP"] == "127.0.0.1"
        assert (told["X-Forwarded-Proto"], told["X-Forwarded-Port"]) == ("http", str(live.http))
        assert told["X-Forwarded-Host"] == told["Host"] == "a.test"


async def test_body_limit_time_limit_and_source_range(live, client):
    async with backend() as port:
        live.service("web", port)
        live.add("body", "body.test", annotations={"proxy-body-size": "1k"})
        live.add("time", "time.test", annotations={"proxy-read-timeout": "1"})
        live.add("range", "range.test", annotations={"whitelist-source-range": "10.0.0.0/8"})
        await live.settled()
        assert (await ask(client, live, "body.test", method="POST", data=b"x" * 1024))["body"] == 1024
        assert await ask(client, live, "body.test", method="POST", data=b"x" * 1025) == 413

        async def pieces():
            yield b"x" * 2000

        assert await ask(client, live, "body.test", method="POST", data=pieces()) == 411
        assert await ask(client, live, "time.test", "/?wait=3") == 504
        assert await ask(client, live, "range.test") == 403


async def test_a_client_stays_with_its_endpoint_while_it_serves_or_drains(live, client):
    async with backend("one") as one, backend("two") as two, backend("three") as three:
        live.service("web", one, two)
        live.add(annotations={"affinity": "cookie", "session-cookie-name": "route"})
        await live.settled()
        async with client.get(f"http://127.0.0.1:{live.http}/", headers={"Host": "a.test"}) as response:
            first, cookie = (await response.json())["server"], response.cookies["route"]
        assert cookie["httponly"]
        headers = {"Cookie": f"route={cookie.value}"}
        mine, other = (one, two) if first == "one" else (two, one)

        async def servers(**options):
            return {(await ask(client, live, "a.test", **options))["server"] for _ in range(8)}

        assert await servers(headers=headers) == {first}
        live.endpoints("web", (mine, ENDING), other, three)
        await live.settled()
        assert await servers(headers=headers) == {first}, "a draining endpoint keeps its sessions"
        assert first not in await servers(), "and gets no new ones"
        live.endpoints("web", other, three)
        await live.settled()
        assert first not in await servers(headers=headers)


async def test_no_backend_is_a_503_and_no_route_a_404_and_a_default_takes_the_rest(live, client):
    async with backend() as port:
        live.service("empty")
        live.add("i", paths=[path("/missing", "nobody"), path("/empty", "empty")])
        await live.settled()
        assert await ask(client, live, "a.test", "/missing") == 503
        assert await ask(client, live, "a.test", "/empty") == 503
        assert await ask(client, live, "other.test") == 404
        live.service("rest", port)
        live.add("d", rules=None, defaultBackend={"service": {"name": "rest", "port": {"number": 80}}})
        await live.settled()
        assert (await ask(client, live, "other.test", "/x"))["path"] == "/x"
        assert await ask(client, live, "a.test", "/missing") == 503, "a default backend is no stand-in for a broken one"


def trusting(*pems, alpn=()):
    context = ssl.create_default_context()
    for pem in pems:
        context.load_verify_locations(cadata=pem.decode())
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


async def handshake(live, host, context):
    """(certificate's names, protocol) of a new connection."""
    _, writer = await asyncio.open_connection("127.0.0.1", live.https, ssl=context, server_hostname=host)
    tls = writer.get_extra_info("ssl_object")
    names = [name for _, name in tls.getpeercert()["subjectAltName"]]
    chosen = tls.selected_alpn_protocol()
    writer.close()
    return names, chosen


async def test_certificates_by_sni_and_the_redirect_to_them(live, client):
    a, b = self_signed("a.test"), self_signed("*.w.test")
    async with backend() as port:
        live.service("web", port)
        live.put_secret(secret("a", *a))
        live.put_secret(secret("b", *b))
        live.add("a", "a.test", tls=[{"hosts": ["a.test"], "secretName": "a"}])
        live.add("w", "x.w.test", tls=[{"hosts": ["*.w.test"], "secretName": "b"}])
        await live.settled()
        assert await handshake(live, "a.test", trusting(a[0], alpn=["h2", "http/1.1"])) == (["a.test"], "h2")
        assert await handshake(live, "x.w.test", trusting(b[0])) == (["*.w.test"], None)
        with pytest.raises(ssl.SSLCertVerificationError):
            await handshake(live, "other.test", trusting(a[0], b[0]))
        headers, url = {"Host": "a.test"}, f"http://127.0.0.1:{live.http}/p?q=1"
        async with client.get(url, headers=headers, allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (308, f"https://a.test:{live.https}/p?q=1")


async def test_backends_with_tls(live, client, tmp_path):
    chain, key = self_signed("pod.test")
    (tmp_path / "pem").write_bytes(chain + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    async with backend("tls", ssl_context=context) as port:
        live.service("web", port)
        live.add(annotations={"backend-protocol": "HTTPS"})
        await live.settled()
        assert (await ask(client, live, "a.test"))["server"] == "tls"


async def test_a_websocket_lives_through_other_endpoints_and_a_reload(live, client):
    async with backend("one") as one, backend("two") as two:
        live.service("web", one)
        live.add()
        await live.settled()
        url = f"http://127.0.0.1:{live.http}/chat"
        async with client.ws_connect(url, headers={"Host": "a.test"}) as chat:
            await chat.send_str("1")
            assert await chat.receive_str(timeout=5) == "one 1"
            live.endpoints("web", two)
            await live.settled()
            await chat.send_str("2")
            assert await chat.receive_str(timeout=5) == "one 2"
            reloads = live.proxy.reloads
            live.service("other", two)
            live.add("other", "b.test", [path("/", "other")])
            await live.settled()
            assert live.proxy.reloads == reloads + 1
            await chat.send_str("3")
            assert await chat.receive_str(timeout=5) == "one 3"
        async with client.ws_connect(url, headers={"Host": "a.test"}) as chat:
            await chat.send_str("4")
            assert await chat.receive_str(timeout=5) == "two 4"


class _Echo(grpc.GenericRpcHandler):
    """Answers bytes with the same, one by one, in both directions."""

    def service(self, _details):
        async def echo(requests, context):
            context.set_trailing_metadata((("seen", "yes"),))
            async for request in requests:
                yield b"echo " + request

        return grpc.stream_stream_rpc_method_handler(echo)


async def test_grpc_streams_over_clear_text_and_tls(live):
    chain, key = self_signed("g.test")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([_Echo()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    live.service("web", port)
    live.put_secret(secret("g", chain, key))
    live.add(host="g.test", annotations={"backend-protocol": "GRPC", "ssl-redirect": "false"},
             tls=[{"hosts": ["g.test"], "secretName": "g"}])  # fmt: skip
    live.service("typed", port, appProtocol="kubernetes.io/h2c")
    live.add("typed", "t.test", [path("/", "typed")])
    await live.settled()
    trust = grpc.ssl_channel_credentials(chain)
    channels = [
        grpc.aio.insecure_channel(f"127.0.0.1:{live.http}", options=[("grpc.default_authority", "g.test")]),
        grpc.aio.insecure_channel(f"127.0.0.1:{live.http}", options=[("grpc.default_authority", "t.test")]),
        grpc.aio.secure_channel(
            f"127.0.0.1:{live.https}", trust, options=[("grpc.ssl_target_name_override", "g.test")]
        ),
    ]  # fmt: skip
    try:
        for channel in channels:
            call = channel.stream_stream("/echo.Echo/Stream")(timeout=10)
            for number in range(3):
                await call.write(b"%d" % number)
                assert await call.read() == b"echo %d" % number
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            assert dict(await call.trailing_metadata())["seen"] == "yes"
    finally:
        for channel in channels:
            await channel.close()
        await server.stop(0)


async def test_a_request_without_an_answer_is_sent_again_unless_its_ingress_says_off(live, client):
    arrived = []

    async def mute(reader, writer):
        line = await reader.readline()
        if line:
            arrived.append(line.split()[1].decode())
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    live.service("mute", port)
    for name, annotations in {
        "again": {},
        "off": {"proxy-next-upstream": "off"},
        "twice": {"proxy-next-upstream-tries": "2"},
    }.items():
        live.add(name, f"{name}.test", [path("/", "mute")], annotations=annotations)
    await live.settled()
    async with server:
        for name in ("again", "off", "twice"):
            assert await ask(client, live, f"{name}.test", f"/{name}") == 502
        # What may not be done twice is not.
        assert await ask(client, live, "again.test", "/posted", method="POST", data=b"x") == 502
    counts = {name: arrived.count(f"/{name}") for name in ("again", "off", "twice", "posted")}
    assert counts == {"again": 4, "off": 1, "twice": 2, "posted": 1}
