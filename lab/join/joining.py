"""The whole way of a host into a cluster, and out of it again. What fails halfway leaves nothing."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import time
from pathlib import Path
from typing import Any

from cryptography import x509

from lab import cluster as clusters
from lab import doctor, machine, network, nodes, process_spec, supervisor_client
from lab import up as upping
from lab.cluster import PROJECT_ROOT
from lab.errors import LabError
from lab.join import discovery, signing, systemd
from lab.join import host as hosts
from lab.join.host import SERVING, HeldPki, JoinedHost
from lab.join.rest import Refused, Rest, trusting, with_certificate
from lab.join.tokens import INFO_NAME, NAMESPACE, own_address
from lab.nodes import Node
from lab.progress import Say

READY_SECONDS = 60.0
ASK_PAUSE_SECONDS = 0.2
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")


def join(home: Path, server: str, token: str, *, pin: str, name: str, ip: str, supervisor: str, say: Say) -> JoinedHost:
    """Make this host a node of the cluster at `server`. Raises LabError; then nothing of it is left."""
    _refuse_unfit(home, name)
    found = discovery.discover(discovery.parse_server(server), token, pin)
    say(f"the cluster at {found.server} has proven itself" + ("" if pin else " (by the token alone: no --ca-hash)"))
    newcomer = Rest(found.server, trusting(found.ca_pem), token)
    node = name or socket.gethostname().lower()
    host = describe(home, found, _ask_info(newcomer), node, ip or own_address(), supervisor)
    _refuse_known_name(newcomer, node)
    try:
        _take_certificates(host, found, newcomer, say)
        _start(host)
        _wait_ready(host, say)
    except BaseException:
        _undo(host)
        raise
    return host


def describe(
    home: Path, found: discovery.Found, info: dict[str, Any], node: str, ip: str, supervisor: str
) -> JoinedHost:
    """The host as it will be."""
    return JoinedHost(
        home=home, slot=int(info["slot"]), nodes=(Node(node, 0),), server=found.server, ip=ip,
        apiservers=tuple(info["apiservers"]), cluster_name=str(info["cluster"]),
        supervisor=supervisor or ("systemd" if systemd.is_here() else "own"),
    )  # fmt: skip


def _refuse_unfit(home: Path, name: str) -> None:
    if name and not _NAME.fullmatch(name):
        raise LabError(f"--name {name!r} is no name of a node", "small letters, digits, - and ., at most 63")
    if (known := hosts.load(home)) is not None:
        raise LabError(f"this host already is node {known.me.name} of {known.server}", "`cutaway leave` first")
    if clusters.load(home) is not None:
        raise LabError(f"{home} holds a cluster of its own", "choose another folder with CUTAWAY_HOME")
    obstacle = doctor.first_obstacle(home)
    if obstacle is not None:
        raise LabError(obstacle.message, obstacle.way_out)


def _ask_info(newcomer: Rest) -> dict[str, Any]:
    try:
        answer = newcomer.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/{INFO_NAME}")
        info: dict[str, Any] = json.loads(answer["data"]["join.json"])
    except Refused as error:
        raise LabError(f"the cluster refuses the token: {error}", "`cutaway token create` makes another") from error
    except (KeyError, ValueError) as error:
        raise LabError(f"{NAMESPACE}/{INFO_NAME} is damaged", "`cutaway token create` writes it anew") from error
    return info


def _refuse_known_name(newcomer: Rest, node: str) -> None:
    try:
        newcomer.get(f"/api/v1/nodes/{node}")
    except Refused as error:
        if error.code == 404:
            return
        raise
    raise LabError(
        f"the cluster has a node {node!r} already", "another --name, or `kubectl delete node` if it is gone for good"
    )


def _take_certificates(host: JoinedHost, found: discovery.Found, newcomer: Rest, say: Say) -> None:
    for folder in ("components", "config", "logs", "run", "pki"):
        (host.home / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
    pki = HeldPki(host.pki)
    pki.ca_file.write_bytes(found.ca_pem)
    host.save()
    for name, wanted in hosts.wanted(host).items():
        path = host.pki / f"{name}.pem"
        if name == SERVING:
            # The controller-manager signs it for addresses that the Node has, so the kubelet registers first;
            # `certificates` asks for the real one as soon as it may.
            signing.write_provisional(path, wanted.common_name)
        else:
            signing.obtain(newcomer, wanted, path)
            say(f"certificate for {wanted.common_name}")


def _start(host: JoinedHost) -> None:
    _turn_forwarding_on()
    paths = host.node_paths(host.me)
    nodes.prepare(paths)
    upping.write(host, hosts.parts(host))
    if host.supervisor == "systemd":
        systemd.install(host.home, list(process_spec.read_specs(host.components)))
    else:
        supervisor_client.ensure_running(host.home, PROJECT_ROOT)


def _turn_forwarding_on() -> None:
    for setting in (network.IP_FORWARD, Path("/proc/sys/net/bridge/bridge-nf-call-iptables")):
        if setting.exists() and setting.read_text().strip() == "0":
            setting.write_text("1")


def _wait_ready(host: JoinedHost, say: Say) -> None:
    me = HeldPki(host.pki).file("kubelet")
    deadline = time.monotonic() + READY_SECONDS
    while _is_provisional(host):
        _within(deadline, host, "the node's serving certificate was not issued")
    say("serving certificate")
    asyncio.run(upping.wait_healthy(host, say, identity=me))
    client = Rest(host.server, with_certificate(me.ca_file.read_bytes(), me.cert_file))
    while not _is_ready(client.get(f"/api/v1/nodes/{host.me.name}")):
        _within(deadline, host, "the node is not Ready")
    say(f"{host.me.name} is Ready")


def _is_provisional(host: JoinedHost) -> bool:
    certificate = x509.load_pem_x509_certificate((host.pki / f"{SERVING}.pem").read_bytes())
    return certificate.issuer == certificate.subject


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or []
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def _within(deadline: float, host: JoinedHost, problem: str) -> None:
    if time.monotonic() > deadline:
        last = [upping.last_line(Path(spec.log)) for spec in process_spec.read_specs(host.components).values()
                if spec.component in ("kubelet", "certificates")]  # fmt: skip
        raise LabError(f"{problem} within {READY_SECONDS:.0f} s: {'; '.join(last)}")
    time.sleep(ASK_PAUSE_SECONDS)


def leave(home: Path, say: Say) -> None:
    """Take this host out: pods, processes, network, folder. The Node object stays for the cluster's people to delete.

    Raises LabError if it joined nothing.
    """
    host = hosts.load(home)
    if host is None:
        raise LabError(f"{home} joined no cluster", "`cutaway down` stops a cluster of this machine's own")
    _undo(host)
    say(f"left; on the cluster: `kubectl delete node {host.me.name}`")


def _undo(host: JoinedHost) -> None:
    specs = process_spec.read_specs(host.components)
    socket_path = host.node_paths(host.me).cri_socket
    kubelet = f"kubelet-{host.me.name}"
    own = host.supervisor == "own" and supervisor_client.is_running(host.home)
    if own and kubelet in specs:
        supervisor_client.call(host.home, "stop", kubelet)
    elif host.supervisor == "systemd":
        systemd.stop([kubelet])
    if socket_path.exists():
        asyncio.run(machine.remove_sandboxes(socket_path))
    if host.supervisor == "systemd":
        systemd.remove(list(specs))
    upping.stop_processes(host)
    machine.sweep(host)
    _remove_network()
    shutil.rmtree(host.home, ignore_errors=True)


def _remove_network() -> None:
    """What the proxy and the CNI plugins made in this host's network."""
    for table in ("ip cutaway-proxy", "ip cutaway-policy", "ip cutaway-pod-network"):
        network.run("nft", "delete", "table", *table.split(), check=False)
    for link in ("cutaway-vxlan", "cni0"):
        network.run("ip", "link", "delete", link, check=False)
