"""Applies nft transactions and says what is there. The only place that changes the kernel's rules.

`FakeNft` passes the same contract (tests/contract/kube_proxy) without a kernel.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

APPLY_SECONDS = 60.0
COMPLAINT_CHARACTERS_MAX = 2000


class NftError(Exception):
    """nft refused a transaction; nothing of it was applied."""


@dataclass(frozen=True, slots=True)
class Names:
    """The chains and the sets (maps are not among them) of a table."""

    chains: frozenset[str] = frozenset()
    sets: frozenset[str] = frozenset()


class Nft(Protocol):
    """Where transactions go. A transaction is applied as a whole or not at all."""

    async def apply(self, transaction: str) -> None:
        """Apply a transaction. Raises NftError with what nft said."""
        ...

    async def names(self, table: str) -> Names:
        """What a table ("ip NAME") has; nothing if there is no such table. Raises NftError."""
        ...


class NftCommand:
    """The `nft` program, in the network namespace of this process."""

    async def apply(self, transaction: str) -> None:
        """Apply a transaction. Raises NftError if nft refuses, is not installed, or takes longer than a minute."""
        await _nft("-f", "-", stdin=transaction.encode())

    async def names(self, table: str) -> Names:
        """See Nft."""
        family, _, name = table.partition(" ")
        chains = _items(await _nft("-j", "list", "chains", family), "chain", name)
        sets = _items(await _nft("-j", "-t", "list", "sets", family), "set", name)
        return Names(chains, sets)


def _items(answer: bytes, kind: str, table: str) -> frozenset[str]:
    listing: dict[str, list[dict[str, Any]]] = msgspec.json.decode(answer)
    items = (entry[kind] for entry in listing["nftables"] if kind in entry)
    return frozenset(item["name"] for item in items if item["table"] == table)


async def _nft(*arguments: str, stdin: bytes = b"") -> bytes:
    try:
        process = await asyncio.create_subprocess_exec(
            "nft",
            *arguments,
            # A program that reads nothing may have closed its input before we could write nothing to it.
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise NftError("nft is not installed (Debian's package is nftables)") from error
    try:
        async with asyncio.timeout(APPLY_SECONDS):
            output, complaint = await process.communicate(stdin or None)
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise NftError(f"nft did not finish in {APPLY_SECONDS:.0f} s") from error
    if process.returncode != 0:
        raise NftError(complaint.decode(errors="replace").strip()[:COMPLAINT_CHARACTERS_MAX])
    return output
