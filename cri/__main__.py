"""`python -m cri --config FILE`: the CRI runtime as a process."""

import asyncio
import logging
import signal
import sys

import structlog

from cri.config import load


def _configure_logs(level: str) -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper(), logging.INFO)),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


async def _main() -> int:
    config = load(sys.argv[1:])
    _configure_logs(config.log_level)
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
