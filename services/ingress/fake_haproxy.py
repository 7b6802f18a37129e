"""A proxy without a process, for tests of what drives it. It passes the real one's contract."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from services.ingress.changes import (
    AddHosts,
    Command,
    DropCertificate,
    DropHosts,
    DropKey,
    FreeServer,
    Running,
    SetCertificate,
    SetKey,
    SetServer,
)
from services.ingress.proxy import ProxyError, ProxyState
from services.ingress.render import DEFAULT, DEFAULT_CERTIFICATE, NOT_FOUND, REGEX_HOSTS, ROUTES, WHOLE
from services.ingress.table import Endpoint


class FakeHaproxy:
    """Keeps what HAProxy would keep, and refuses what HAProxy would refuse."""

    def __init__(self) -> None:
        self.servers: dict[str, list[Endpoint | None]] = {}
        self.maps: dict[str, dict[str, str]] = {}
        self.certificates: set[str] = set()
        self.entries: list[tuple[str, tuple[str, ...]]] = []
        self.regexes: tuple[tuple[str, str], ...] = ()
        self.loads = 0
        self.commands: list[Command] = []
        self.ended = asyncio.Event()

    def route(self, host: str, path: str) -> str:
        """The backend that a request leads to, by the rules that `render` writes for the real one."""
        wild = f"*.{host.partition('.')[2]}" if "." in host else "*"
        for key in (host, wild, ""):
            base, found = f"{key}{path}", None
            if (key or "*") in self.maps[REGEX_HOSTS]:
                # Python wants flags at the start of an expression.
                found = next((b for p, b in self.regexes if re.match("(?i)" + p.replace("(?i)", ""), base)), None)
            if found is None:
                text = f"{base}{WHOLE}"
                longest = max((p for p in self.maps[ROUTES] if text.startswith(p)), key=len, default=None)
                found = self.maps[ROUTES].get(longest) if longest is not None else None
            if found is not None:
                return found
        defaults = self.maps[DEFAULT]
        return defaults.get(host) or defaults.get(wild) or defaults.get("*") or NOT_FOUND

    async def load(self, running: Running) -> None:
        """See the contract."""
        self.loads += 1
        self.ended.clear()
        wanted = running.wanted
        self.servers = {name: list(running.servers[name]) for name in wanted.sections}
        self.maps = {name: dict(keys) for name, keys in wanted.maps.items()}
        self.certificates = set(wanted.certificates)
        self.entries = list(wanted.sni.items())
        self.regexes = wanted.regexes

    async def run(self, commands: Sequence[Command]) -> None:
        """See the contract."""
        for command in commands:
            self._do(command)
            self.commands.append(command)

    def _do(self, command: Command) -> None:
        match command:
            case SetServer(backend, slot, endpoint):
                self._slots(backend, slot)[slot - 1] = endpoint
            case FreeServer(backend, slot):
                self._slots(backend, slot)[slot - 1] = None
            case SetKey(name, key, value, _):
                self.maps[name][key] = value
            case DropKey(name, key):
                if key not in self.maps[name]:
                    raise ProxyError(f"{command}: no such key")
                del self.maps[name][key]
            case SetCertificate(file, _, is_new):
                if is_new == (file in self.certificates):
                    raise ProxyError(f"{command.file}: {'already there' if is_new else 'not there'}")
                self.certificates.add(file)
            case AddHosts(file, hosts):
                if file not in self.certificates:
                    raise ProxyError(f"{file}: no such certificate")
                self.entries.append((file, hosts))
            case DropHosts(file, hosts):
                if (file, hosts) not in self.entries:
                    raise ProxyError(f"{file}: has no such hosts")
                self.entries.remove((file, hosts))
            case DropCertificate(file):
                if file not in self.certificates or any(file == used for used, _ in self.entries):
                    raise ProxyError(f"{file}: not there, or in use")
                self.certificates.discard(file)

    def _slots(self, backend: str, slot: int) -> list[Endpoint | None]:
        slots = self.servers.get(backend)
        if slots is None or not 1 <= slot <= len(slots):
            raise ProxyError(f"no server s{slot} in {backend}")
        return slots

    async def state(self) -> ProxyState:
        """See the contract."""
        sni: dict[str, set[str]] = {}
        for file, hosts in self.entries:
            sni.setdefault(file, set()).update(hosts)
        return ProxyState(
            {name: tuple(slots) for name, slots in self.servers.items()},
            {name: dict(keys) for name, keys in self.maps.items()},
            {file: frozenset(hosts) for file, hosts in sni.items() if file != DEFAULT_CERTIFICATE},
        )

    async def wait_ended(self) -> None:
        """See the contract."""
        await self.ended.wait()

    async def stop(self) -> None:
        """See the contract."""
        self.ended.set()
