"""Which apiservers serve this cluster, so that the `kubernetes` Service leads to all of them and to no other.

Each has a Lease in kube-system, as upstream's do (`apiserver-<hash>`, label `apiserver.kubernetes.io/identity`), renews
it, and looks at the others'. One that is not renewed belongs to an apiserver that has died. Each judges that by its own
clock, from the moment at which it saw the Lease change: what time the others think it is counts for nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from machinery.api import errors, objects
from services.apiserver.deletion import Deleter
from services.apiserver.registry.resource import Registry
from services.apiserver.request import SYSTEM, DeleteOptions, Request, WriteOptions
from services.apiserver.writes import Writer

NAMESPACE = "kube-system"
LABEL, LABEL_VALUE = "apiserver.kubernetes.io/identity", "kube-apiserver"
ADDRESS = "cutaway.dev/advertised-address"
"""Annotation: where its REST front is reached."""
RENEW_SECONDS = 10.0
DEAD_SECONDS = 20.0
"""A Lease that nobody has changed for so long: two renewals were missed. (Upstream: fifteen seconds.)"""
FORGOTTEN_SECONDS = 3600.0
"""After this it is deleted, as upstream does."""
WITHDRAW_SECONDS = 2.0
_OPTIONS = WriteOptions(field_manager="kube-apiserver", field_validation="Ignore")

Clock = Callable[[], float]


class Observed:
    """How long ago each Lease was seen to change, in seconds of our own monotonic clock. Pure but for the clock."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[object, float]] = {}

    def ages(self, leases: Mapping[str, object]) -> dict[str, float]:
        """By name; `leases` are what they are now: name -> anything that every renewal changes. One seen for the first
        time has the age 0.
        """
        now = self._clock()
        self._seen = {
            name: known if (known := self._seen.get(name)) is not None and known[0] == version else (version, now)
            for name, version in leases.items()
        }
        return {name: now - since for name, (_, since) in self._seen.items()}


class Masters:
    """Our Lease and the others'. `own` tells this apiserver from every other one, on this host too."""

    def __init__(self, registry: Registry, writer: Writer, deleter: Deleter, address: str, own: Iterable[str]) -> None:
        found = registry.by_kind("coordination.k8s.io/v1", "Lease")
        assert found is not None
        self._leases = found
        self._writer = writer
        self._deleter = deleter
        self._address = address
        digest = hashlib.sha256("\0".join((socket.gethostname(), *own)).encode()).hexdigest()
        self.name = f"apiserver-{digest[:26]}"
        self._observed = Observed()
        self._renewed_at = -RENEW_SECONDS

    async def renew(self) -> None:
        """Renew our Lease, if it is time. Raises ApiError."""
        if time.monotonic() - self._renewed_at < RENEW_SECONDS:
            return
        spec = {
            "holderIdentity": self.name, "leaseDurationSeconds": int(DEAD_SECONDS),
            "renewTime": objects.now_rfc3339_micro(),
        }  # fmt: skip
        labels = {LABEL: LABEL_VALUE, "kubernetes.io/hostname": socket.gethostname()}
        metadata = {
            "name": self.name,
            "namespace": NAMESPACE,
            "labels": labels,
            "annotations": {ADDRESS: self._address},
        }
        wanted = {"metadata": metadata, "spec": spec}
        try:
            if self._writer.lookup.exists(self._leases.storage, NAMESPACE, self.name):
                await self._writer.patch(self._request("patch"), "merge", wanted, _OPTIONS)
            else:
                typed = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **wanted}
                await self._writer.create(self._request("create"), typed, _OPTIONS)
        except (errors.AlreadyExists, errors.Conflict, errors.NotFound):
            # Somebody touched it meanwhile; the next look is soon.
            return
        self._renewed_at = time.monotonic()

    async def addresses(self) -> set[str]:
        """Where live apiservers are reached, ours among them; what has long been dead is deleted. Raises ApiError."""
        others = self._others()
        ages = self._observed.ages({name: lease["metadata"]["resourceVersion"] for name, lease in others.items()})
        for name, age in ages.items():
            if age >= FORGOTTEN_SECONDS:
                version = others[name]["metadata"]["resourceVersion"]
                await self._delete(name, DeleteOptions(resource_version=version))
        return {self._address, *(_address(others[name]) for name, age in ages.items() if age < DEAD_SECONDS)} - {""}

    async def withdraw(self) -> set[str]:
        """We end: our Lease goes, unless there is nobody else; the addresses of those who stay. Raises ApiError."""
        others = self._others()
        ages = self._observed.ages({name: lease["metadata"]["resourceVersion"] for name, lease in others.items()})
        staying = {_address(others[name]) for name, age in ages.items() if age < DEAD_SECONDS} - {""}
        if staying:
            async with asyncio.timeout(WITHDRAW_SECONDS):
                await self._delete(self.name, DeleteOptions())
        return staying

    def _others(self) -> dict[str, dict[str, Any]]:
        return {
            lease["metadata"]["name"]: lease
            for lease in self._writer.lookup.list(self._leases.storage, NAMESPACE)
            if (lease["metadata"].get("labels") or {}).get(LABEL) == LABEL_VALUE
            and lease["metadata"]["name"] != self.name
        }

    async def _delete(self, name: str, options: DeleteOptions) -> None:
        try:
            await self._deleter.delete(self._request("delete", name), options)
        except (errors.NotFound, errors.Conflict):
            # Another apiserver was first, or its owner lives after all.
            return

    def _request(self, verb: str, name: str = "") -> Request:
        return Request(SYSTEM, verb, self._leases, "", NAMESPACE, name or self.name, "kube-apiserver")


def _address(lease: Mapping[str, Any]) -> str:
    """Empty for what is no address that an endpoint may have."""
    text = str((lease["metadata"].get("annotations") or {}).get(ADDRESS, ""))
    try:
        return "" if ipaddress.ip_address(text).is_loopback else text
    except ValueError:
        return ""
