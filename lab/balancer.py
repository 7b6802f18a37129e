"""HAProxy in front of the apiservers' REST ports: TCP, so that certificates are seen by the apiserver itself.

An apiserver gets connections while its `/readyz` says yes: one that is being stopped says no first, finishes what it
has, and no client notices.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.cluster import Cluster
from lab.components import Component
from lab.errors import LabError
from lab.process_spec import ProcessSpec

NAME = "balancer"


def configuration(listen: str, backends: dict[str, str], ca_file: str, *, connections_max: int = 8000) -> str:
    """haproxy.cfg: `backends` maps an apiserver's name to "host:port" of its REST front."""
    servers = "\n".join(f"    server {name} {address}" for name, address in backends.items())
    return f"""global
    maxconn {connections_max}

defaults
    mode tcp
    timeout connect 2s
    # Watches are silent for long; upstream's load balancers use an hour as well.
    timeout client 1h
    timeout server 1h
    # A connection that one apiserver does not take goes to another.
    retries 3
    option redispatch 1

frontend kubernetes
    bind {listen}
    default_backend apiservers

backend apiservers
    balance roundrobin
    # One that is back is seen before one that leaves is given up, though they follow on one another.
    option httpchk GET /readyz
    http-check expect status 200
    default-server check check-ssl verify required ca-file {ca_file}
    default-server inter 1s fastinter 200ms downinter 200ms fall 3 rise 1
{servers}
"""


def component(cluster: Cluster, listen: str, backends: dict[str, str], ca_file: Path) -> Component:
    """The balancer as a process of the cluster. Raises LabError if HAProxy is not installed."""
    program = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        raise LabError("several masters need HAProxy as their balancer", "apt-get install haproxy")
    name = f"{NAME}.cfg"
    _, _, port = listen.rpartition(":")
    spec = ProcessSpec(
        name=NAME,
        component=NAME,
        argv=[program, "-db", "-f", str(cluster.home / "config" / name)],
        log=str(cluster.home / "logs" / f"{NAME}.log"),
        health=f"https://127.0.0.1:{port}/readyz",
        address=f"127.0.0.1:{port}",
    )
    return Component(spec, files={name: configuration(listen, backends, str(ca_file))})
