"""11. Connections and watches that are only held: ten thousand of each, and everyone else is served."""

from __future__ import annotations

import json
import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.pki import Identity
from services.apiserver.rest.connection import WAITING_MAX
from tests.support.apiserver_process import ApiServerProcess
from tests.support.memory import resident_mb
from tests.support.torture import figure, percentile, times

CONNECTIONS = times(10_000)
WATCHES = times(10_000)
USERS = 4
WATCHES_MAX = WATCHES // USERS * (USERS + 1)
"""Nobody may have more than are left: with all of them held, each of the users has just its share."""
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
READ_SECONDS_MAX = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServerProcess]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    process = ApiServerProcess(tmp_path_factory.mktemp("apiserver"), watches_max=WATCHES_MAX).start()
    yield process
    process.stop()


class Client:
    """Connections of one user, over bare sockets: what they cost here must not hide what they cost there."""

    def __init__(self, server: ApiServerProcess, identity: Identity) -> None:
        self._address = ("127.0.0.1", server.rest_port)
        self._context = ssl.create_default_context(cafile=str(server.pki.ca_file))
        self._context.load_cert_chain(identity.cert_file, identity.key_file)

    def open(self, sent: str = "") -> ssl.SSLSocket:
        """A connection on which this was sent."""
        raw = socket.create_connection(self._address, READ_SECONDS_MAX)
        connection = self._context.wrap_socket(raw, server_hostname="127.0.0.1")
        connection.sendall(sent.encode())
        return connection


def get(path: str) -> str:
    """A request."""
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"


def read_until(connection: ssl.SSLSocket, wanted: bytes) -> bytes:
    """What comes, up to these bytes. AssertionError if the connection ends before."""
    seen = b""
    while wanted not in seen:
        part = connection.recv(65536)
        assert part, seen
        seen += part
    return seen


def resident(server: ApiServerProcess) -> float:
    """The server's resident memory in MB."""
    assert server.process is not None
    return resident_mb(server.process.pid)


@contextmanager
def held(count: int, open_one: Callable[[int], ssl.SSLSocket]) -> Iterator[list[ssl.SSLSocket]]:
    """So many connections, opened some at a time."""
    with ThreadPoolExecutor(16) as threads:
        connections = list(threads.map(open_one, range(count)))
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()


@contextmanager
def others(client: Client) -> Iterator[list[float]]:
    """Somebody else, who asks all the time; how many seconds each answer took."""
    seconds: list[float] = []
    done = threading.Event()
    connection = client.open()

    def ask() -> None:
        while not done.wait(0.01):
            began = time.monotonic()
            connection.sendall(get("/api/v1/namespaces/default").encode())
            assert read_until(connection, b'"phase":"Active"').startswith(b"HTTP/1.1 200")
            seconds.append(time.monotonic() - began)

    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(ask)
        try:
            yield seconds
        finally:
            done.set()
            asking.result()
            connection.close()


def served(seconds: list[float]) -> str:
    assert seconds
    return f"others served after {percentile(seconds, 0.5) * 1e3:.0f} ms, at most {max(seconds) * 1e3:.0f} ms"


def test_idle_connections(server: ApiServerProcess) -> None:
    client = Client(server, server.admin)
    before = resident(server)

    def open_one(number: int) -> ssl.SSLSocket:
        # Every other one is a client that keeps its connection; the rest never say anything, or never to the end.
        if number % 2:
            return client.open("" if number % 4 == 1 else "POST /api/v1/namespaces HTTP/1.1\r\nHost: ")
        connection = client.open(get("/version"))
        read_until(connection, b'"gitVersion"')
        return connection

    with others(Client(server, server.admin)) as seconds, held(CONNECTIONS, open_one):
        while len(seconds) < 10:
            time.sleep(0.01)
        memory = resident(server) - before
        assert server.process is not None
        files = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
    assert files < WAITING_MAX + 100
    assert memory < 100 + files * 0.1
    figure(11, f"{CONNECTIONS} connections held, {files} files open: {memory:.0f} MB more; {served(seconds)}")


def test_watches(server: ApiServerProcess) -> None:
    clients = [
        Client(server, server.pki.client(f"watcher-{number}", f"watcher-{number}", ["system:masters"]))
        for number in range(USERS)
    ]
    watch = get(f"{CONFIG_MAPS}?watch=1&resourceVersion=0&fieldSelector=metadata.name%3Dw")
    before = resident(server)

    def open_one(number: int) -> ssl.SSLSocket:
        connection = clients[number % USERS].open(watch)
        assert read_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 200")
        return connection

    admin = Client(server, server.admin)
    with others(admin) as seconds, held(WATCHES, open_one) as watches:
        memory = resident(server) - before
        for client in clients:
            with client.open(watch) as refused:
                answer = read_until(refused, b"Too many watches")
                assert answer.startswith(b"HTTP/1.1 429")
                assert b"\r\nRetry-After: " in answer
        with admin.open(watch) as one_more:
            assert read_until(one_more, b"\r\n\r\n").startswith(b"HTTP/1.1 200")
        body = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "w"}})
        head = f"Content-Type: application/json\r\nContent-Length: {len(body)}"
        began = time.monotonic()
        with admin.open() as creator:
            creator.sendall(f"POST {CONFIG_MAPS} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n{body}".encode())
            assert read_until(creator, b"\r\n\r\n").startswith(b"HTTP/1.1 201")
        for connection in watches:
            read_until(connection, b'"ADDED"')
        told = time.monotonic() - began
    assert memory < 100 + WATCHES * 0.1
    figure(
        11,
        f"{WATCHES} watches held, {memory * 1e3 / WATCHES:.0f} kB each, all told of a change within {told:.1f} s;"
        f" {served(seconds)}",
    )
    # They are gone with their connections.
    deadline = time.monotonic() + READ_SECONDS_MAX
    while True:
        with clients[0].open(watch) as again:
            if read_until(again, b"\r\n\r\n").startswith(b"HTTP/1.1 200"):
                break
        assert time.monotonic() < deadline
