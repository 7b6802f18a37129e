"""Every port of every component of a real cluster, attacked: nothing is let in that does not belong, nothing listens
that nobody expects.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import yaml
from cryptography.x509.oid import ExtendedKeyUsageOID
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from lab.pki import Identity, Pki
from tests.integration.security.test_who import forged

pytestmark = pytest.mark.root

CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
SECONDS = 10.0
# What is open to all by its nature: names, health of Services for balancers (KEP-3836), Services themselves, and the
# streams of the runtime, whose URLs hold a secret of their own and which listen on loopback only.
OPEN = {("dns", 53), ("kube-proxy", 10256)}


@pytest.fixture(scope="module")
def home(cluster: Any) -> Path:
    return Path(cluster.home)


def configured(home: Path, *keys: str) -> dict[str, str]:
    """ "component key" to address, of every component."""
    found = {}
    for file in sorted((home / "config").glob("*.yaml")):
        settings = yaml.safe_load(file.read_text())
        for key in keys:
            if settings.get(key):
                found[f"{file.stem} {key}"] = settings[key].replace("0.0.0.0", "127.0.0.1")
    return found


@pytest.fixture(scope="module")
def credentials(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Identity]:
    """One credential for each attack."""
    pki = SimpleNamespace(pki=Pki(home / "pki"))

    def place(name: str) -> Path:
        return tmp_path_factory.mktemp(name)

    other = Pki(place("other"))
    other.ensure("other")
    foreign = other.client("admin", "kubernetes-admin", ["system:masters"])
    return {
        "another authority's": Identity(home / "pki" / "ca.crt", foreign.cert_file, foreign.key_file),
        "expired": forged(pki, place("expired"), usage=CLIENT, days=(-10, -1)),  # type: ignore[arg-type]
        "not yet valid": forged(pki, place("early"), usage=CLIENT, days=(1, 10)),  # type: ignore[arg-type]
        "a server's": forged(pki, place("server"), usage=SERVER, days=(-1, 10)),  # type: ignore[arg-type]
    }


async def grpc_code(address: str, ca: bytes, identity: Identity | None, name: str = "") -> grpc.StatusCode:
    """What asking a gRPC port for its services ends with."""
    pair = {} if identity is None else {
        "private_key": identity.key_file.read_bytes(), "certificate_chain": identity.cert_file.read_bytes()
    }  # fmt: skip
    options = [("grpc.ssl_target_name_override", name)] if name else []
    async with grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(ca, **pair), options=options) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[no-untyped-call]

        async def asked() -> Any:
            yield reflection_pb2.ServerReflectionRequest(list_services="")

        try:
            async for _ in stub.ServerReflectionInfo(asked(), timeout=SECONDS):
                return grpc.StatusCode.OK
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.UNKNOWN


async def test_every_grpc_port_refuses_who_does_not_belong(home: Path, credentials: dict[str, Identity]) -> None:
    ports = configured(home, "grpc_address")
    assert {name.split()[0].removesuffix("-node1") for name in ports} >= {
        "apiserver", "scheduler", "controller-manager", "kubelet", "kube-proxy", "dns", "ingress"
    }  # fmt: skip
    ca = (home / "pki" / "ca.crt").read_bytes()
    admin = Identity(home / "pki" / "ca.crt", home / "pki" / "admin.crt", home / "pki" / "admin.key")
    for port, address in ports.items():
        for attack, identity in {"none": None, **credentials}.items():
            assert await grpc_code(address, ca, identity) is grpc.StatusCode.UNAVAILABLE, (port, attack)
        assert await grpc_code(address, ca, admin, "elsewhere.example") is grpc.StatusCode.UNAVAILABLE, port
        assert await grpc_code(address, ca, admin) is grpc.StatusCode.OK, port


async def test_a_client_of_the_cluster_without_rights_calls_nothing(home: Path, tmp_path: Path) -> None:
    from tests.integration.security import test_certificates

    ca = (home / "pki" / "ca.crt").read_bytes()
    stranger = Pki(home / "pki").authority()
    identity = test_certificates.issued(stranger, tmp_path, home / "pki" / "ca.crt", "stranger")
    for port, address in configured(home, "grpc_address").items():
        # The apiserver's handlers judge each request; what it serves is no secret to who is authenticated.
        expected = grpc.StatusCode.OK if port.startswith("apiserver") else grpc.StatusCode.PERMISSION_DENIED
        assert await grpc_code(address, ca, identity) is expected, port


async def https_status(address: str, ca: Path, identity: Identity | None, path: str) -> int | None:
    """The status of a GET, or None if the server would not talk."""
    context = ssl.create_default_context(cafile=str(ca))
    if identity is not None:
        context.load_cert_chain(identity.cert_file, identity.key_file)
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(SECONDS):
            reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            line = await reader.readline()
            writer.transport.abort()
    except (OSError, ssl.SSLError):
        return None
    return int(line.split()[1]) if line else None


async def test_every_https_port_refuses_who_does_not_belong(home: Path, credentials: dict[str, Identity]) -> None:
    ports = configured(home, "http_address", "rest_address")
    assert len(ports) >= 7
    ca = home / "pki" / "ca.crt"
    for port, address in ports.items():
        assert await https_status(address, ca, None, "/livez") == 200, port
        for path in ("/metrics", "/configz", "/pods", "/api/v1/secrets", "/containerLogs/a/b/c", "/stats/summary"):
            assert await https_status(address, ca, None, path) in (401, 403, 404), (port, path)
        for attack, identity in credentials.items():
            assert await https_status(address, ca, identity, "/metrics") is None, (port, attack)


def listening(pid: int) -> set[tuple[str, int]]:
    """(address, port) of the TCP sockets that a process listens on."""
    links = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(fd))
        except FileNotFoundError:
            continue
    inodes = {match[1] for link in links if (match := re.fullmatch(r"socket:\[(\d+)\]", link))}
    found = set()
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{family}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, _, port = fields[1].partition(":")
                found.add((address, int(port, 16)))
    return found


def test_nothing_listens_that_is_not_expected(cluster: Any, home: Path) -> None:
    expected = {int(address.rpartition(":")[2]) for address in
                configured(home, "grpc_address", "http_address", "rest_address").values()}  # fmt: skip
    for component in json.loads(cluster.cutaway("status", "-o", "json")):
        if not component["pid"]:
            continue
        for address, port in listening(component["pid"]):
            loopback = address.endswith("0100007F")
            known = port in expected or (component["component"], port) in OPEN
            if component["component"] in ("cri", "kube-proxy"):
                known = known or loopback
            assert known, (component["name"], address, port)


def test_sockets_are_for_root_alone(home: Path) -> None:
    sockets = [path for path in home.rglob("*") if path.is_socket()]
    assert sockets
    for path in sockets:
        mode = path.stat().st_mode & 0o777
        assert mode & 0o007 == 0, (path, oct(mode))
        assert path.stat().st_gid == 0
    assert (home / "pki").stat().st_mode & 0o077 == 0
    for secret in (*(home / "pki").glob("*.key"), home / "state.db", home / "admin.kubeconfig"):
        assert secret.stat().st_mode & 0o077 == 0, secret
