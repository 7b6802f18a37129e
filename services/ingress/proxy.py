"""The proxy as the controller sees it: what any implementation promises. `haproxy.py` is the real one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from services.ingress.changes import Command, Running
from services.ingress.table import Endpoint


class ProxyError(Exception):
    """The proxy did not do it. After this nobody knows what it has; a `load` makes it certain again."""


class ProxyState(NamedTuple):
    """What the proxy has, read back from it."""

    # Backend -> what is in each slot; None: free.
    servers: Mapping[str, tuple[Endpoint | None, ...]]
    maps: Mapping[str, Mapping[str, str]]
    # Certificate's file -> hosts, in no order.
    sni: Mapping[str, frozenset[str]]


class Proxy(Protocol):
    """A proxy process."""

    async def load(self, running: Running) -> None:
        """Be as `running` says: start, or take over from what runs, without a failed connection.

        Raises ProxyError if it refuses; then what ran goes on.
        """

    async def run(self, commands: Sequence[Command]) -> None:
        """Do the commands in order, at once. Raises ProxyError at the first that fails."""

    async def state(self) -> ProxyState:
        """What it has."""

    async def wait_ended(self) -> None:
        """Return when the process is gone."""

    async def stop(self) -> None:
        """Take no more connections, finish what is under way for a while, end."""
