"""Applies nft transactions. The only place in the proxy that changes the kernel's rules."""

from __future__ import annotations

import asyncio
from typing import Protocol

APPLY_SECONDS = 30.0


class NftError(Exception):
    """nft refused a transaction; nothing of it was applied."""


class Nft(Protocol):
    """Where transactions go. A transaction is applied as a whole or not at all."""

    async def apply(self, transaction: str) -> None:
        """Apply a transaction. Raises NftError with what nft said."""
        ...


class NftCommand:
    """The `nft` program, in the network namespace of this process."""

    async def apply(self, transaction: str) -> None:
        """Apply a transaction. Raises NftError if nft refuses, is not installed, or takes longer than 30 s."""
        try:
            process = await asyncio.create_subprocess_exec(
                "nft", "-f", "-",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise NftError("nft is not installed (Debian's package is nftables)") from error
        try:
            async with asyncio.timeout(APPLY_SECONDS):
                _, complaint = await process.communicate(transaction.encode())
        except TimeoutError as error:
            process.kill()
            raise NftError(f"nft did not finish in {APPLY_SECONDS:.0f} s") from error
        if process.returncode != 0:
            raise NftError(complaint.decode(errors="replace").strip()[:2000])
