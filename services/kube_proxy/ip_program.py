"""The `ip` program of iproute2: addresses and routes of this network namespace, as JSON and in batches."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

RUN_SECONDS = 20.0


class IpError(Exception):
    """`ip` refused, or is not installed."""


async def show(*arguments: str) -> list[dict[str, Any]]:
    """What `ip -j` tells. Raises IpError."""
    output = await _run(("ip", "-j", *arguments))
    return [entry for entry in msgspec.json.decode(output or b"[]", type=list[dict[str, Any]]) if entry]


async def batch(commands: list[str], program: str = "ip") -> None:
    """Carry out commands one after the other; goes on after one that fails. Raises IpError with what failed."""
    if commands:
        await _run((program, "-force", "-batch", "-"), "\n".join(commands) + "\n")


async def node_addresses() -> frozenset[str]:
    """The IPv4 addresses of this node but loopback's."""
    found = (info.get("local", "") for link in await show("-4", "address") for info in link.get("addr_info", []))
    return frozenset(address for address in found if address and not address.startswith("127."))


async def _run(argv: tuple[str, ...], stdin: str = "") -> bytes:
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            # A program that reads nothing may have closed its input before we could write nothing to it.
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise IpError(f"{argv[0]} is not installed (Debian's package is iproute2)") from error
    try:
        async with asyncio.timeout(RUN_SECONDS):
            output, complaint = await process.communicate(stdin.encode() or None)
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise IpError(f"{argv[0]} did not finish in {RUN_SECONDS:.0f} s") from error
    if process.returncode != 0:
        raise IpError(complaint.decode(errors="replace").strip()[:500])
    return output
