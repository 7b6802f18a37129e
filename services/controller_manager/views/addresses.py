"""Ranges of cluster IPs."""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec

from services.controller_manager.views.meta import Meta, View, nothing

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class ServiceCidrSpec(View, frozen=True, gc=False):
    cidrs: tuple[str, ...] = ()


class ServiceCidr(View, frozen=True, gc=False):
    """A range, or two of different families."""

    metadata: Meta = Meta()
    spec: ServiceCidrSpec = ServiceCidrSpec()
    status: dict[str, Any] = msgspec.field(default_factory=nothing)

    @property
    def networks(self) -> tuple[Network, ...]:
        """Its ranges; what is none is left out."""
        out = []
        for text in self.spec.cidrs:
            try:
                out.append(ipaddress.ip_network(text))
            except ValueError:
                continue
        return tuple(out)

    def contains(self, address: Address) -> bool:
        """Whether the address is of one of its ranges."""
        return any(address in network for network in self.networks)

    def covers(self, network: Network) -> bool:
        """Whether all of `network` is within one of its ranges."""
        return any(_within(network, own) for own in self.networks)

    def overlaps(self, other: ServiceCidr) -> bool:
        """Whether the two have an address in common."""
        return any(left.overlaps(right) for left in self.networks for right in other.networks)


def _within(inner: Network, outer: Network) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]
