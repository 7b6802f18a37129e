"""The table as the kernel holds it after the last transaction, and what a change of some Services turns it into.

Invariants: `ports` are the ServicePorts whose objects the table has; `uses` counts who needs each shared element;
`claims` has, for each address and port, every ServicePort that wants it, and the least of them has it. A plan changes
this object at once: the caller applies its text, or on refusal begins anew with an empty Table and `adopt`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from services.kube_proxy import render
from services.kube_proxy.nft import Names
from services.kube_proxy.port_store import PortStore
from services.kube_proxy.render import Parts, Transaction
from services.kube_proxy.ruleset import Frontend, ServicePort, Settings

Address = tuple[str, str, int]
# A Service's own cluster address is not to be taken from it by another's externalIPs.
_RANK = {"cluster": 0, "node": 0, "balancer": 1, "external": 2}

# Ports whose commands are put together at a time where all are written.
TOGETHER = 200


class Table:
    """See the module."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ports = PortStore()
        self.uses: Counter[tuple[str, str]] = Counter()
        self.shared: dict[str, None] = {}
        self.claims: dict[Address, tuple[tuple[int, str], ...]] = {}
        # What a port wants and another has.
        self.lost: dict[str, tuple[Frontend, ...]] = {}

    def adopt(self, ports: Iterable[ServicePort], there: Names) -> str:
        """The transaction that fills the kernel's table anew, whatever it holds.

        All in one, so no packet sees a gap; sets of clients that are still wanted keep their members.
        """
        pieces: list[str] = []
        transaction = Transaction()
        render.base(self.settings, transaction)
        # Who has an address is known once all have been seen.
        for port in ports:
            self.ports[port.key] = port
            self._claim(port.key, port)
        for number, key in enumerate([*self.ports], 1):
            self._change(key, None, self._granted(key, self.ports[key]), transaction, there)
            # Many small strings that live until the end would keep the memory around them from being given back.
            if number % TOGETHER == 0:
                pieces.append(transaction.text())
                transaction = Transaction()
        keep = {name for port in self.ports.values() if port.affinity_seconds for name in self._own_names(port)}
        keep |= {*render.BASE, *self.shared}
        for name in there.chains - keep:
            transaction.delete_chain(name)
        for name in there.sets - keep - {*render.SETS}:
            transaction.delete_set(name)
        return "".join((*pieces, transaction.text()))

    def change(self, ports: Mapping[str, ServicePort | None]) -> str:
        """The transaction that makes these ports be so (None: gone); all others stay, but for addresses in dispute."""
        transaction = Transaction()
        touched: set[str] = set()
        for key, port in ports.items():
            touched |= self._disclaim(key)
            if port is not None:
                touched |= self._claim(key, port)
        wanted = dict(ports)
        for key in touched - ports.keys():
            mine = self.ports[key]
            wanted[key] = replace(mine, frontends=mine.frontends + self.lost.pop(key, ()))
        for key, port in wanted.items():
            self._change(key, self.ports.get(key), self._granted(key, port), transaction, None)
        return transaction.text()

    def _own_names(self, port: ServicePort) -> set[str]:
        own = render.parts(port, self.settings)
        return {*own.chains, *own.sets}

    def _change(
        self, key: str, old: ServicePort | None, new: ServicePort | None, transaction: Transaction, there: Names | None
    ) -> None:
        if old == new:
            return
        before = render.parts(old, self.settings) if old else Parts()
        after = render.parts(new, self.settings) if new else Parts()
        if there is not None:
            # What was left by an earlier run is emptied and filled, not made.
            before.chains = {name: () for name in after.chains if name in there.chains}
        render.difference(before, after, self.shared, transaction)
        self.shared |= dict.fromkeys(after.shared)
        self._count(before, after, transaction)
        if new is None:
            self.ports.pop(key, None)
        else:
            self.ports[key] = new

    def _count(self, before: Parts, after: Parts, transaction: Transaction) -> None:
        gone = [e for e in before.elements if e[0] in render.COUNTED and e not in after.elements]
        come = [e for e in after.elements if e[0] in render.COUNTED and e not in before.elements]
        for element in come:
            self.uses[element] += 1
            if self.uses[element] == 1 and not _withdraw(transaction.removed, element):
                transaction.added[element[0]].append(element[1])
        for element in gone:
            self.uses[element] -= 1
            if not self.uses[element]:
                del self.uses[element]
                if not _withdraw(transaction.added, element):
                    transaction.removed[element[0]].append(element[1])

    def _claim(self, key: str, port: ServicePort) -> set[str]:
        """Enter a port's claims; the other ports that they touch."""
        touched: set[str] = set()
        for frontend in port.frontends:
            address = (frontend.ip, frontend.protocol, frontend.port)
            others = self.claims.get(address, ())
            self.claims[address] = tuple(sorted((*others, (_RANK[frontend.kind], key))))
            touched.update(name for _, name in others)
        return touched

    def _disclaim(self, key: str) -> set[str]:
        old = self.ports.get(key)
        touched: set[str] = set()
        for frontend in (*(old.frontends if old else ()), *self.lost.pop(key, ())):
            address = (frontend.ip, frontend.protocol, frontend.port)
            left = tuple(claim for claim in self.claims.get(address, ()) if claim[1] != key)
            if left:
                self.claims[address] = left
                touched.update(name for _, name in left)
            else:
                self.claims.pop(address, None)
        return touched

    def _granted(self, key: str, port: ServicePort | None) -> ServicePort | None:
        if port is None:
            return None
        lost = tuple(f for f in port.frontends if self.claims[f.ip, f.protocol, f.port][0][1] != key)
        if not lost:
            return port
        self.lost[key] = lost
        return replace(port, frontends=tuple(f for f in port.frontends if f not in lost))


def _withdraw(commands: dict[str, list[str]], element: tuple[str, str]) -> bool:
    """Take a command back that this transaction no longer needs; whether there was one."""
    name, key = element
    if key in commands.get(name, ()):
        commands[name].remove(key)
        if not commands[name]:
            del commands[name]
        return True
    return False
