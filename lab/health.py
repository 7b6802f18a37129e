"""Asks every process how it is, all at once."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass

from lab import process_spec
from lab.cluster import Cluster
from lab.pki import Identity
from lab.process_spec import ProcessSpec

ASK_SECONDS = 2.0
ALONE = frozenset({"postgres", "balancer", "containerd", "cri"})
"""Components that are ready without an apiserver."""


@dataclass(frozen=True, slots=True)
class Report:
    """One process as `cutaway status` shows it."""

    name: str
    component: str
    node: str
    pid: int
    address: str
    # "ok", "stopped", "not running", or what is wrong.
    health: str
    restarts: int

    @property
    def ok(self) -> bool:
        return self.health == "ok"


async def report(cluster: Cluster, admin: Identity) -> list[Report]:
    """Every process of the cluster, in the order in which they start."""
    specs = sorted(process_spec.read_specs(cluster.components).values(), key=start_order)
    context = client_context(admin)
    return list(await asyncio.gather(*(_report_one(cluster, spec, context) for spec in specs)))


_ORDER = (
    "postgres",
    "balancer",
    "apiserver",
    "scheduler",
    "controller-manager",
    "containerd",
    "cri",
    "kubelet",
    "kube-proxy",
    "dns",
    "ingress",
)


def start_order(spec: ProcessSpec) -> tuple[str, int]:
    """Control plane first, then node by node, each in the order of dependence."""
    return spec.node, _ORDER.index(spec.component) if spec.component in _ORDER else len(_ORDER)


def client_context(identity: Identity) -> ssl.SSLContext:
    """TLS as the admin."""
    context = ssl.create_default_context(cafile=str(identity.ca_file))
    context.load_cert_chain(identity.cert_file, identity.key_file)
    return context


async def _report_one(cluster: Cluster, spec: ProcessSpec, context: ssl.SSLContext) -> Report:
    state = process_spec.read_state(cluster.components, spec.name)
    if process_spec.is_alive(state):
        health = await ask(spec, context)
    elif state.stopped:
        health = "stopped"
    else:
        health = "not running" if state.last_exit is None else f"not running (exit code {state.last_exit})"
    pid = state.pid if process_spec.is_alive(state) else 0
    return Report(spec.name, spec.component, spec.node, pid, spec.address, health, state.restarts)


async def ask(spec: ProcessSpec, context: ssl.SSLContext) -> str:
    """ "ok", or what is wrong in a few words. Never raises."""
    scheme, _, rest = spec.health.partition("://")
    try:
        async with asyncio.timeout(ASK_SECONDS):
            if scheme == "https":
                return await _ask_https(rest, context)
            if scheme == "unix":
                _, writer = await asyncio.open_unix_connection(rest)
                writer.close()
                return "ok"
            if scheme == "cri":
                return await _ask_cri(rest)
    except TimeoutError:
        return f"no answer in {ASK_SECONDS:.0f} s"
    except (OSError, ssl.SSLError) as error:
        return error.strerror or type(error).__name__
    return "ok"


async def _ask_https(target: str, context: ssl.SSLContext) -> str:
    authority, _, path = target.partition("/")
    host, _, port = authority.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        writer.write(f"GET /{path}?verbose HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        answer = (await reader.read(65536)).decode(errors="replace")
    finally:
        writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    if " 200 " in head.partition("\r\n")[0] + " ":
        return "ok"
    failing = [line for line in body.splitlines() if line.startswith("[-]")]
    return "; ".join(failing) or head.partition("\r\n")[0]


async def _ask_cri(socket_path: str) -> str:
    import grpc
    from cri_api.v1 import api_pb2, api_pb2_grpc

    async with grpc.aio.insecure_channel(f"unix://{socket_path}") as channel:
        try:
            await api_pb2_grpc.RuntimeServiceStub(channel).Version(api_pb2.VersionRequest(), timeout=ASK_SECONDS)
        except grpc.aio.AioRpcError as error:
            return error.details() or error.code().name
    return "ok"
