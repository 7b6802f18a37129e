"""What to tell the running proxy so that it does what is wanted: commands if it can, else a reload. Pure.

A backend has slots for servers; an endpoint takes a free slot, keeps it, and leaves it, all by commands. Only what has
no command needs a reload: another frontend, a new or changed backend, more endpoints than slots, regular expressions. A
backend that nobody wants any more just stays until the next reload.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from services.ingress.render import REGEX_HOSTS, UNAVAILABLE, Wanted
from services.ingress.table import Endpoint

SLOTS_MIN = 4
# Keys that are one word of the proxy's command line; one with other characters waits for a reload.
_PLAIN_KEY = re.compile(r"[A-Za-z0-9\-._~/*:@+=,!&|]+")

Servers = tuple[Endpoint | None, ...]


class SetServer(NamedTuple):
    """Give a slot (from 1) to an endpoint, or change whether it drains."""

    backend: str
    slot: int
    endpoint: Endpoint


class FreeServer(NamedTuple):
    """Send nothing more to a slot; what is under way ends as it will."""

    backend: str
    slot: int


class SetKey(NamedTuple):
    """Give a key of a map a value."""

    map: str
    key: str
    value: str
    is_new: bool


class DropKey(NamedTuple):
    """Take a key out of a map."""

    map: str
    key: str


class SetCertificate(NamedTuple):
    """Put a certificate in place, at once for every new handshake."""

    file: str
    pem: str
    is_new: bool


class DropCertificate(NamedTuple):
    """Forget a certificate that no host has any more."""

    file: str


class AddHosts(NamedTuple):
    """Show a certificate to clients that ask for these hosts."""

    file: str
    hosts: tuple[str, ...]


class DropHosts(NamedTuple):
    """Take back the `AddHosts` of this certificate with these very hosts."""

    file: str
    hosts: tuple[str, ...]


Command = SetServer | FreeServer | SetKey | DropKey | SetCertificate | DropCertificate | AddHosts | DropHosts


@dataclass(frozen=True)
class Running:
    """What the proxy has: what it was started with, and the commands since."""

    wanted: Wanted
    servers: Mapping[str, Servers]


class Plan(NamedTuple):
    """`reload` says why one is needed; empty: commands do it all. `then` is what runs after the commands alone."""

    reload: str
    commands: tuple[Command, ...]
    then: Running


def fresh(wanted: Wanted) -> Running:
    """What runs after a start or reload with this."""
    return Running(wanted, {name: _slots((), endpoints) for name, endpoints in wanted.endpoints.items()})


def reloaded(running: Running, wanted: Wanted) -> Running:
    """The same with endpoints in the slots that they have, where they have one: cookies and statistics stay."""
    return Running(
        wanted,
        {name: _slots(running.servers.get(name, ()), endpoints) for name, endpoints in wanted.endpoints.items()},
    )


def plan(running: Running, wanted: Wanted) -> Plan:
    """What to do. The commands are also right alone, if a reload has to wait: they never refer to what it brings."""
    have = running.wanted
    reasons = []
    if wanted.frame != have.frame:
        reasons.append("frontend")
    new = [n for n in wanted.sections if _section(wanted, n) != _section(have, n)]
    if new:
        reasons.append(f"{len(new)} backends")
    if wanted.regexes != have.regexes:
        reasons.append("regular expressions")
    known = {name for name in have.sections if name not in new}
    servers, commands, full = dict(running.servers), [], []
    for name in [name for name in wanted.endpoints if name in known]:
        slots = running.servers[name]
        kept = list(wanted.endpoints[name])
        if len(kept) > len(slots):
            full.append(name)
            kept = kept[: len(slots)]
        servers[name] = _assign(slots, kept)
        commands += _server_commands(name, slots, servers[name])
    if full:
        reasons.append(f"{len(full)} backends without free slots")
    certificates, sni, certificate_commands = _certificates(have, wanted)
    maps, before, after, waiting = _maps(have.maps, wanted.maps, {*known, *_FIXED})
    if waiting:
        reasons.append("keys that are no plain words")
    # Certificates and endpoints first, then what leads to them; what goes, goes last.
    every = [*certificate_commands, *commands, *before, *after]
    then = Running(
        replace(
            have,
            endpoints={**have.endpoints, **{n: tuple(e for e in servers[n] if e) for n in servers}},
            maps=maps, certificates=certificates, sni=sni,
        ),
        servers,
    )  # fmt: skip
    return Plan(", ".join(reasons), tuple(every), then)


_FIXED = (UNAVAILABLE,)


def _section(wanted: Wanted, name: str) -> tuple[str | None, str | None]:
    return wanted.sections.get(name), wanted.server_options.get(name)


# --- slots ------------------------------------------------------------------------------------------------------------


def slot_count(endpoints: int) -> int:
    """How many slots a backend gets: room to double, so that a growing one reloads rarely."""
    count = SLOTS_MIN
    while count < endpoints + endpoints // 2:
        count *= 2
    return count


def _slots(before: Servers, endpoints: tuple[Endpoint, ...]) -> Servers:
    # Never fewer: a backend that was so large once can be again.
    count = max(slot_count(len(endpoints)), len(before))
    return _assign((*before, *(None,) * (count - len(before))), endpoints)


def _assign(slots: Servers, endpoints: Iterable[Endpoint]) -> Servers:
    """Endpoints in slots: each where it was, new ones in free slots. There must be enough."""
    wanted = {(endpoint.ip, endpoint.port): endpoint for endpoint in endpoints}
    result: list[Endpoint | None] = [
        wanted.pop((slot.ip, slot.port), None) if slot is not None else None for slot in slots
    ]
    # Never used ones first: whoever still talks to a freed slot's old address is left in peace for longest.
    free = [i for i, slot in enumerate(result) if slot is None and slots[i] is None]
    free += [i for i, slot in enumerate(result) if slot is None and slots[i] is not None]
    for index, endpoint in zip(free, wanted.values(), strict=False):
        result[index] = endpoint
    return tuple(result)


def _server_commands(backend: str, before: Servers, after: Servers) -> list[Command]:
    found: list[Command] = []
    for number, (old, new) in enumerate(zip(before, after, strict=True), 1):
        if new is not None and new != old:
            found.append(SetServer(backend, number, new))
    found += [
        FreeServer(backend, number)
        for number, (old, new) in enumerate(zip(before, after, strict=True), 1)
        if new is None and old is not None
    ]
    return found


# --- maps and certificates --------------------------------------------------------------------------------------------


def _maps(
    have: Mapping[str, Mapping[str, str]], wanted: Mapping[str, Mapping[str, str]], known: set[str]
) -> tuple[dict[str, dict[str, str]], list[Command], list[Command], bool]:
    """The maps afterwards, what to set, what to drop, and whether something has to wait for a reload."""
    maps = {name: dict(keys) for name, keys in have.items()}
    sets: list[Command] = []
    drops: list[Command] = []
    waiting = False
    for name, keys in wanted.items():
        if name == REGEX_HOSTS:
            continue  # changes only with the expressions, which bring it by their reload
        for key, value in keys.items():
            if maps[name].get(key) == value or value not in known:
                continue
            if not _PLAIN_KEY.fullmatch(key):
                waiting = True
                continue
            sets.append(SetKey(name, key, value, key not in maps[name]))
            maps[name][key] = value
        for key in [key for key in maps[name] if key not in keys]:
            if not _PLAIN_KEY.fullmatch(key):
                waiting = True
                continue
            drops.append(DropKey(name, key))
            del maps[name][key]
    return maps, sets, drops, waiting


def _certificates(
    have: Wanted, wanted: Wanted
) -> tuple[dict[str, str], dict[str, tuple[str, ...]], list[Command]]:  # fmt: skip
    found: list[Command] = []
    for file, pem in wanted.certificates.items():
        if have.certificates.get(file) != pem:
            found.append(SetCertificate(file, pem, file not in have.certificates))
    changed = sorted(f for f in {*have.sni, *wanted.sni} if have.sni.get(f, ()) != wanted.sni.get(f, ()))
    # Added before the old entry goes: no client meets a moment in which its host has no certificate.
    found += [AddHosts(f, wanted.sni[f]) for f in changed if f in wanted.sni]
    found += [DropHosts(f, have.sni[f]) for f in changed if f in have.sni]
    found += [DropCertificate(f) for f in sorted(have.certificates) if f not in wanted.certificates]
    return dict(wanted.certificates), dict(wanted.sni), found
