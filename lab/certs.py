"""The cluster's certificates: when they end, and new ones before they do.

`cutaway up` and the supervisor (twice a day) renew what is in the last third of its life; `cutaway certs --renew`
renews all. Servers read a renewed certificate by themselves; clients keep the one that they began with, so whoever has
a renewed one is started anew, one process after the other.
"""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import dataclass

from lab import process_spec, supervisor_client
from lab import up as upping
from lab.cluster import Cluster
from lab.errors import LabError
from lab.pki import Pki
from lab.progress import Say


@dataclass(frozen=True, slots=True)
class Certificate:
    """One of the files in `pki/`."""

    name: str
    subject: str
    ends: datetime.datetime
    authority: bool
    due: bool

    def days_left(self, now: datetime.datetime) -> int:
        """Whole days; negative if it has ended."""
        return (self.ends - now).days


def listed(cluster: Cluster, now: datetime.datetime | None = None) -> list[Certificate]:
    """All of them, the one that ends first first."""
    now = now or datetime.datetime.now(datetime.UTC)
    pki = Pki(cluster.pki)
    found = []
    for name, certificate in pki.certificates():
        authority = certificate.issuer == certificate.subject
        due = pki.is_due(certificate, now)
        found.append(
            Certificate(name, certificate.subject.rfc4514_string(), certificate.not_valid_after_utc, authority, due)
        )
    return sorted(found, key=lambda certificate: (certificate.ends, certificate.name))


def renew(cluster: Cluster, say: Say, *, due_only: bool) -> list[str]:
    """New keys and certificates, and whoever has one started anew; the names of what was renewed. Raises LabError."""
    pki = Pki(cluster.pki)
    wanted = [found for found in listed(cluster) if not found.authority and (found.due or not due_only)]
    for certificate in wanted:
        pki.renew(certificate.name)
        say(f"{certificate.name} is renewed")
    if wanted:
        upping.write_kubeconfigs(cluster, pki)
        _start_anew(cluster, {certificate.name for certificate in wanted}, say)
    return [certificate.name for certificate in wanted]


def _start_anew(cluster: Cluster, renewed: set[str], say: Say) -> None:
    """One after the other, each healthy before the next one goes: of several masters one always serves."""
    if not supervisor_client.is_running(cluster.home):
        return
    for name in process_spec.read_specs(cluster.components):
        config = cluster.home / "config" / f"{name}.yaml"
        text = config.read_text() if config.exists() else ""
        if not any(f"/{certificate}.crt" in text for certificate in renewed):
            continue
        if process_spec.read_state(cluster.components, name).stopped:
            continue
        supervisor_client.call(cluster.home, "restart", name)
        asyncio.run(upping.wait_healthy(cluster, lambda _: None, [name]))
        say(f"{name} is started anew")


def ending_authority(cluster: Cluster) -> None:
    """Raise LabError if an authority itself is near its end: everybody trusts it by its key, so it is not replaced
    under a running cluster."""
    for certificate in listed(cluster):
        if certificate.authority and certificate.due:
            raise LabError(
                f"the authority {certificate.name} ends on {certificate.ends:%Y-%m-%d}",
                "back up, make a new cluster, restore",
            )
