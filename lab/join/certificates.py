"""Renews a host's certificates before they end: `python -m lab.join.certificates HOME [--now]`.

Each is renewed with itself: the kubelet's and the node's serving certificate as the kubelet, the proxy's and the DNS
server's as they. Who uses them follows the files, so nothing is restarted. A certificate that has ended can't renew
itself; then the host joins again.
"""

from __future__ import annotations

import datetime
import sys
import time
from pathlib import Path

from lab import up as upping
from lab.errors import LabError
from lab.join import host as hosts
from lab.join import signing
from lab.join.host import SERVING, HeldPki, JoinedHost
from lab.join.rest import Rest, with_certificate

# How often files and clock are looked at: a certificate lives ten minutes at least.
LOOK_SECONDS = 30.0
# The serving certificate is asked for again and again until the node is known; then problems are rarer and patience
# longer.
RETRY_SECONDS_FIRST = 0.5
RETRY_SECONDS_MAX = 60.0


def renew(host: JoinedHost, name: str) -> None:
    """Renew the certificate of this name. Raises LabError."""
    shown = host.pki / f"{'kubelet' if name == SERVING else name}.pem"
    ca_pem = HeldPki(host.pki).ca_file.read_bytes()
    client = Rest(host.server, with_certificate(ca_pem, shown))
    signing.obtain(client, hosts.wanted(host)[name], host.pki / f"{name}.pem")
    # Kubeconfigs hold a copy.
    upping.write(host, hosts.parts(host))
    say(f"{name}: certificate renewed")


def due(host: JoinedHost, chances: dict[str, float], now: datetime.datetime) -> list[str]:
    """The certificates whose time has come."""
    return [name for name in chances if signing.renew_at(host.pki / f"{name}.pem", chances[name]) <= now]


def say(message: str) -> None:
    """A line in the log."""
    moment = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    print(f"{moment} {message}", flush=True)


def keep(host: JoinedHost) -> None:
    """Renew what is due, for ever."""
    names = list(hosts.wanted(host))
    chances = dict(zip(names, signing.chances(len(names)), strict=True))
    pause = RETRY_SECONDS_FIRST
    while True:
        failed = False
        for name in due(host, chances, datetime.datetime.now(datetime.UTC)):
            try:
                renew(host, name)
            except (LabError, OSError) as error:
                failed = True
                say(f"{name}: {error}; again in {pause:.1f} s")
        time.sleep(pause if failed else LOOK_SECONDS)
        pause = min(RETRY_SECONDS_MAX, pause * 2) if failed else RETRY_SECONDS_FIRST


def main() -> None:
    """Entry point."""
    host = hosts.load(Path(sys.argv[1]))
    if host is None:
        sys.exit(f"{sys.argv[1]} joined no cluster")
    if "--now" in sys.argv[2:]:
        for name in hosts.wanted(host):
            renew(host, name)
        return
    keep(host)


if __name__ == "__main__":
    main()
