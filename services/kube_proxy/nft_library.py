"""Applies nft transactions by libnftables, in this process: what `nft -f` does, without a process for each change.

A program's start costs a few milliseconds, and its end more: the kernel closes a netlink socket only after the memory
of what was deleted is free, which waits for every processor (RCU). Here the socket stays open. What is large goes to
the program all the same, so that the memory which it needs goes with it; so does the first question, as the library
ends the whole process (`exit`) where the kernel has no nf_tables at all.

Source: libnftables(3), <nftables/libnftables.h>.
"""

from __future__ import annotations

import asyncio
import ctypes
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from machinery.component import logs
from services.kube_proxy.nft import APPLY_SECONDS, COMPLAINT_CHARACTERS_MAX, Names, Nft, NftCommand, NftError

LIBRARY = "libnftables.so.1"
# Some hundreds of Services.
COMMAND_FROM_BYTES = 128 * 1024

log = logs.get("nft")


def open_nft() -> Nft:
    """The library if it is installed (it comes with the program), else the program alone."""
    try:
        return NftLibrary()
    except OSError as error:
        log.info("nft runs as a program for each change", reason=str(error))
        return NftCommand()


class NftLibrary:
    """One context, used by one thread. Raises OSError if there is no library.

    A call that was given up after its time goes on in the thread; the next one waits for it.
    """

    def __init__(self, executor: ThreadPoolExecutor | None = None) -> None:
        self._library = _load()
        self._command = NftCommand()
        self._executor = executor or ThreadPoolExecutor(1, "nft")
        self._context: int | None = None
        # Whether the kernel has answered the program.
        self._asked = False

    async def names(self, table: str) -> Names:
        """See Nft."""
        found = await self._command.names(table)
        self._asked = True
        return found

    async def apply(self, transaction: str) -> None:
        """See Nft."""
        text = transaction.encode()
        if not self._asked or len(text) > COMMAND_FROM_BYTES:
            await self._command.apply(transaction)
            self._asked = True
            return
        try:
            async with asyncio.timeout(APPLY_SECONDS):
                complaint = await asyncio.get_running_loop().run_in_executor(self._executor, self._run, text)
        except TimeoutError as error:
            raise NftError(f"libnftables did not finish in {APPLY_SECONDS:.0f} s") from error
        if complaint is not None:
            raise NftError(complaint)

    def _run(self, text: bytes) -> str | None:
        """In the thread: what the library complains about, None if it took the transaction."""
        library = self._library
        if self._context is None:
            self._context = library.nft_ctx_new(0)
            if not self._context or library.nft_ctx_buffer_error(self._context):
                raise NftError("libnftables gives no context")
        failed = library.nft_run_cmd_from_buffer(self._context, text)
        said = library.nft_ctx_get_error_buffer(self._context) or b""
        if not failed:
            return None
        return said.decode(errors="replace").strip()[:COMPLAINT_CHARACTERS_MAX] or "refused without a word"


def _load() -> Any:
    """The library with its calls declared. While one of them runs, other threads of Python run too."""
    library = ctypes.CDLL(LIBRARY)
    library.nft_ctx_new.argtypes, library.nft_ctx_new.restype = [ctypes.c_uint32], ctypes.c_void_p
    library.nft_ctx_buffer_error.argtypes = [ctypes.c_void_p]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    return library
