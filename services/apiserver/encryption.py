"""Secrets encrypted at rest: a store around the store, which sees only sealed values of the resources that are to be
sealed.

    plain    HEAD 42 TAIL                                            what the apiserver writes and reads
    stored   HEAD 42 ","sealed":"KEY-NAME:base64(nonce + AES-256-GCM(TAIL))"}}

The revision stays readable because the store splices it in; the object's place (resource, namespace, name) is
authenticated with the ciphertext, so that a sealed value can't be moved to another name. The first key of the file
seals, every key opens: to rotate, put a new key first and start again; what an older key has sealed is then written
anew, and the history of what it had sealed is erased: so a key may be taken out of the file once every apiserver has
started with the new one.

A key named `identity`, without bytes, seals nothing. First in the file it lets apiservers that run side by side all be
given a key before one of them seals with it.
"""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.apiserver import codec
from storage.errors import Corrupt, PreconditionFailed
from storage.store import Entry, Event, Key, Mutation, Page, Put, Store

SEALED_RESOURCES = frozenset(("secrets",))
KEY_BYTES = 32
IDENTITY = "identity"
_NONCE_BYTES = 12
_SEALED = b'","sealed":"'
_END = b'"}}'


class KeyFileError(ValueError):
    """The key file can't be used; the message is one line."""


class Sealer:
    """AES-256-GCM with several keys by name."""

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        self._first = keys[0][0]
        self._ciphers = {name: AESGCM(key) for name, key in keys if name != IDENTITY}

    @classmethod
    def from_file(cls, path: str) -> Sealer:
        """Keys of a file with one `name: base64-of-32-bytes` a line, the sealing one first. Raises KeyFileError,
        OSError."""
        keys: list[tuple[str, bytes]] = []
        for number, line in enumerate(Path(path).read_text().splitlines(), 1):
            name, colon, text = line.strip().partition(":")
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            try:
                key = base64.b64decode(text.strip(), validate=True)
            except ValueError as err:
                raise KeyFileError(f"{path} line {number}: the key is not base64") from err
            if not colon or not name.isalnum() or len(key) != (0 if name == IDENTITY else KEY_BYTES):
                raise KeyFileError(f"{path} line {number}: must be `name: base64 of {KEY_BYTES} bytes`")
            keys.append((name, key))
        if not keys:
            raise KeyFileError(f"{path} holds no key")
        return cls(keys)

    def seal(self, key: Key, tail: bytes) -> bytes:
        """The stored tail."""
        if self._first == IDENTITY:
            return tail
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._ciphers[self._first].encrypt(nonce, tail, _place(key))
        return b"%b%b:%b%b" % (_SEALED, self._first.encode(), base64.b64encode(sealed), _END)

    def open(self, key: Key, value: bytes) -> bytes:
        """A stored value as it was written; one that is not sealed (from before encryption) as it is. Raises
        Corrupt."""
        if not is_sealed(value):
            return value
        tail = codec.tail_of(value)
        name = key_name(value)
        text = tail[len(_SEALED) + len(name) + 1 : -len(_END)]
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise Corrupt(f"{'/'.join(key)} is sealed with the key {name!r}, which the key file does not have")
        sealed = base64.b64decode(text)
        try:
            plain = cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _place(key))
        except InvalidTag as err:
            raise Corrupt(f"{'/'.join(key)} does not open with the key {name!r}") from err
        return value[: len(value) - len(tail)] + plain

    def is_current(self, value: bytes) -> bool:
        """Whether a stored value is sealed with the first key."""
        if self._first == IDENTITY:
            return not is_sealed(value)
        return codec.tail_of(value).startswith(_SEALED + self._first.encode() + b":")


def is_sealed(value: bytes) -> bool:
    """Whether stored bytes are sealed."""
    return codec.tail_of(value).startswith(_SEALED)


def key_name(value: bytes) -> str:
    """The key that stored bytes are sealed with; empty if they are not."""
    if not is_sealed(value):
        return ""
    return codec.tail_of(value)[len(_SEALED) :].partition(b":")[0].decode()


def _place(key: Key) -> bytes:
    return "\0".join(key).encode()


class SealedStore:
    """A `Store` that seals some resources on the way in and opens them on the way out. Everything else passes
    through."""

    def __init__(self, store: Store, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer
        # Resources whose past has yet to be erased.
        self._outdated: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        # resources, revision, compact, close … do not see values.
        return getattr(self._store, name)

    async def commit(self, *mutations: Mutation) -> list[Event]:
        """As Store.commit."""
        events = await self._store.commit(*map(self._sealed, mutations))
        return [self._opened(event) for event in events]

    async def get(self, key: Key, at_revision: int | None = None) -> Entry | None:
        """As Store.get."""
        entry = await self._store.get(key, at_revision)
        return self._opened_entry(entry) if entry is not None else None

    async def list(self, resource: str, namespace: str | None = None, **options: Any) -> Page:
        """As Store.list."""
        page = await self._store.list(resource, namespace, **options)
        if resource not in SEALED_RESOURCES:
            return page
        return replace(page, entries=[self._opened_entry(entry) for entry in page.entries])

    async def events(self, after_revision: int, **options: Any) -> Sequence[Event]:
        """As Store.events."""
        return [self._opened(event) for event in await self._store.events(after_revision, **options)]

    async def history(self, key: Key, **options: Any) -> Sequence[Event]:
        """As Store.history."""
        return [self._opened(event) for event in await self._store.history(key, **options)]

    async def follow(self, after_revision: int) -> AsyncIterator[Sequence[Event]]:
        """As Store.follow."""
        async for events in self._store.follow(after_revision):
            yield [self._opened(event) for event in events]

    async def seal_anew(self) -> int:
        """Write again, with the first key, what is not sealed with it; how many. Who writes meanwhile has done it
        already."""
        count = 0
        for resource in SEALED_RESOURCES:
            page = await self._store.list(resource)
            for entry in page.entries:
                if self._sealer.is_current(entry.value):
                    continue
                plain = self._sealer.open(entry.key, entry.value)
                tail = codec.tail_of(plain)
                head = plain[: plain.index(b'"resourceVersion":"') + len(b'"resourceVersion":"')]
                try:
                    await self.commit(Put(entry.key, entry.revision, head, tail, entry.epoch))
                except PreconditionFailed:
                    continue
                count += 1
                self._outdated.add(resource)
            if resource in self._outdated:
                # The past is sealed with a key that is to go, or not at all.
                await self._store.erase(resource)
                self._outdated.discard(resource)
        return count

    def _sealed(self, mutation: Mutation) -> Mutation:
        if mutation.key.resource not in SEALED_RESOURCES:
            return mutation
        return replace(mutation, tail=self._sealer.seal(mutation.key, mutation.tail))

    def _opened(self, event: Event) -> Event:
        if event.key.resource not in SEALED_RESOURCES:
            return event
        previous = event.previous
        return replace(
            event,
            value=self._sealer.open(event.key, event.value),
            previous=self._sealer.open(event.key, previous) if previous is not None else None,
        )

    def _opened_entry(self, entry: Entry) -> Entry:
        if entry.key.resource not in SEALED_RESOURCES:
            return entry
        return replace(entry, value=self._sealer.open(entry.key, entry.value))
