"""`python -m cri --config FILE`: the CRI runtime as a process."""

import asyncio
import contextlib
import ctypes
import signal
import sys

from cri import logs
from cri.config import load

# Threads here live for one call. An arena for each that glibc happens to run at once would never be given back.
_M_ARENA_MAX, _ARENAS = -8, 2


def _bound_arenas() -> None:
    """Keeps the memory of short-lived threads in few places; where there is no glibc, nothing."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


async def _main() -> int:
    config = load(sys.argv[1:])
    logs.configure(config.log_level)
    _bound_arenas()
    from cri.errors import CriError
    from cri.server import serving

    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    try:
        async with serving(config):
            await stopping.wait()
    except (CriError, OSError) as error:
        print(f"cri: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(_main()))
