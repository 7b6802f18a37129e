"""Cluster IPs and node ports: each handed out once in the whole cluster, however many apiservers there are.

An allocation is an object of its own, created in the same transaction as the Service that holds it and only if it does
not exist, so the database itself judges uniqueness. A cluster IP is an `IPAddress` (networking.k8s.io/v1), as upstream
has it; a node port is a record of the internal resource `nodeports.internal`, which is not served.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from machinery.api.errors import Cause
from services.apiserver import codec
from services.apiserver.registry.metadata import new_uid, now_text
from services.apiserver.watch_cache import WatchCache
from storage.store import ABSENT, EXISTS, Delete, Key, Put

ADDRESSES = "ipaddresses.networking.k8s.io"
CIDRS = "servicecidrs.networking.k8s.io"
PORTS = "nodeports.internal"
_ADDRESS_HEAD = b'{"apiVersion":"networking.k8s.io/v1","kind":"IPAddress","metadata":{"resourceVersion":"'
_PORT_HEAD = b'{"apiVersion":"internal/v1","kind":"NodePort","metadata":{"resourceVersion":"'
_random = random.SystemRandom()
RANDOM_TRIES = 32
"""How many addresses are drawn before the whole range is searched."""


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Refused(Exception):
    """The wanted address or port can't be had. `cause` says why, for its field."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.message)
        self.cause = cause


def _candidates(network: Network) -> Iterator[str]:
    """Addresses of a network in the order in which they are tried: some at random, then all."""
    size = network.num_addresses
    first, last = 1, size - 2
    if last < first:
        return
    static = min(max(16, size // 16), 256) if size > 32 else 0
    for _ in range(RANDOM_TRIES):
        yield str(network[_random.randint(min(first + static, last), last)])
    for offset in (*range(first + static, last + 1), *range(first, first + static)):
        yield str(network[offset])


class ServiceRange:
    """The addresses and ports that Services may have, and which of them are taken (as far as the watch cache knows)."""

    def __init__(self, cidr: str, port_min: int, port_max: int) -> None:
        self.network = ipaddress.ip_network(cidr)
        self.port_min = port_min
        self.port_max = port_max
        # Set once the cache exists: the table of resources, which the cache needs, is built with this object in it.
        self.cache: WatchCache | None = None

    # --- addresses

    def free_address(self, avoid: Iterable[str] = ()) -> str:
        """An address that nobody holds. Raises Refused if the range is full.

        As upstream, the lower part of the range is left to Services that ask for a certain address, until the upper is
        full.
        """
        taken = set(avoid)
        networks = self.networks()
        for network in networks:
            for address in _candidates(network):
                if address not in taken and not self.address_taken(address):
                    return address
        full = ", ".join(map(str, networks))
        message = f"Internal error: failed to allocate a serviceIP: range is full: {full}"
        raise Refused(Cause("InternalError", message, "spec.clusterIPs"))

    def networks(self) -> list[Network]:
        """The cluster's own range, then what ServiceCIDRs add (KEP-1880) that are ready and not being deleted."""
        assert self.cache is not None
        found: list[Network] = [self.network]
        for entry in self.cache.of(CIDRS).listed(""):
            body = orjson.loads(entry.value)
            conditions = (body.get("status") or {}).get("conditions") or ()
            unready = any(c["type"] == "Ready" and c["status"] == "False" for c in conditions)
            if unready or body["metadata"].get("deletionTimestamp"):
                continue
            for cidr in body["spec"].get("cidrs") or ():
                network = ipaddress.ip_network(cidr)
                if network.version == self.network.version and network not in found:
                    found.append(network)
        return found

    def check_address(self, address: str) -> None:
        """Raises Refused if a Service may not have this address."""
        shown = orjson.dumps([address]).decode()
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            message = f"Invalid value: {shown}: must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            raise Refused(Cause("FieldValueInvalid", message, "spec.clusterIPs")) from None
        networks = self.networks()
        if not any(parsed in network and parsed not in (network[0], network[-1]) for network in networks):
            message = (
                f"Invalid value: {shown}: failed to allocate IP {address}: "
                f"the provided IP ({address}) is not in the valid range. "
                f"The range of valid IPs is {', '.join(map(str, networks))}"
            )
            raise Refused(Cause("FieldValueInvalid", message, "spec.clusterIPs"))
        if self.address_taken(address):
            message = f"Invalid value: {shown}: failed to allocate IP {address}: provided IP is already allocated"
            raise Refused(Cause("FieldValueInvalid", message, "spec.clusterIPs"))

    def address_taken(self, address: str) -> bool:
        """Whether a Service holds it."""
        assert self.cache is not None
        return self.cache.of(ADDRESSES).get("", address) is not None

    # --- ports

    def free_port(self, protocol: str, avoid: Iterable[tuple[str, int]] = ()) -> int:
        """A node port that nobody holds. Raises Refused if there is none."""
        taken = set(avoid)
        for _ in range(RANDOM_TRIES):
            port = _random.randint(self.port_min, self.port_max)
            if (protocol, port) not in taken and not self.port_taken(protocol, port):
                return port
        for port in range(self.port_min, self.port_max + 1):
            if (protocol, port) not in taken and not self.port_taken(protocol, port):
                return port
        message = "Internal error: failed to allocate a nodePort: range is full"
        raise Refused(Cause("InternalError", message, "spec.ports"))

    def check_port(self, protocol: str, port: int, field: str) -> None:
        """Raises Refused if a Service may not have this node port."""
        if not self.port_min <= port <= self.port_max:
            message = (
                f"Invalid value: {port}: provided port is not in the valid range. "
                f"The range of valid ports is {self.port_min}-{self.port_max}"
            )
            raise Refused(Cause("FieldValueInvalid", message, field))
        if self.port_taken(protocol, port):
            message = f"Invalid value: {port}: provided port is already allocated"
            raise Refused(Cause("FieldValueInvalid", message, field))

    def port_taken(self, protocol: str, port: int) -> bool:
        """Whether a Service holds it."""
        assert self.cache is not None
        return self.cache.of(PORTS).get("", _port_name(protocol, port)) is not None


def take_address(address: str, namespace: str, name: str) -> Put:
    """The mutation that makes an address a Service's own, if nobody has it."""
    family = "IPv6" if ":" in address else "IPv4"
    obj: dict[str, Any] = {
        "metadata": {
            "name": address,
            "uid": new_uid(),
            "creationTimestamp": now_text(),
            "labels": {
                "ipaddress.kubernetes.io/ip-family": family,
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {"group": "", "resource": "services", "namespace": namespace, "name": name}},
    }
    return Put(Key(ADDRESSES, "", address), ABSENT, _ADDRESS_HEAD, codec.encode_tail(obj))


def give_address(address: str) -> Delete:
    """The mutation that frees an address."""
    return Delete(
        Key(ADDRESSES, "", address), EXISTS, _ADDRESS_HEAD, codec.encode_tail({"metadata": {"name": address}})
    )


def take_port(protocol: str, port: int, namespace: str, name: str) -> Put:
    """The mutation that makes a node port a Service's own, if nobody has it."""
    obj = {"metadata": {"name": _port_name(protocol, port)}, "service": f"{namespace}/{name}"}
    return Put(Key(PORTS, "", _port_name(protocol, port)), ABSENT, _PORT_HEAD, codec.encode_tail(obj))


def give_port(protocol: str, port: int) -> Delete:
    """The mutation that frees a node port."""
    name = _port_name(protocol, port)
    return Delete(Key(PORTS, "", name), EXISTS, _PORT_HEAD, codec.encode_tail({"metadata": {"name": name}}))


def _port_name(protocol: str, port: int) -> str:
    return f"{port}-{protocol.lower()}"
