"""A flood of requests from a process of its own: `python -m tests.support.flood CONFIG`, where CONFIG is JSON.

`connections` clients connect and a line says so; then each asks for `path` again and again for `seconds`, as soon as it
has its answer: one that is told to come back later asks again at once, as an ill-behaved client does. The last line is
JSON: how many answers had which status, and the median of how long they took.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import statistics
import sys
from collections import Counter
from typing import Any

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _client(connection: Connection, path: str, until: float, seen: Counter[str], took: list[float]) -> None:
    clock = asyncio.get_running_loop().time
    reader, writer = connection
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    try:
        while (began := clock()) < until:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            seen[head[9:12].decode()] += 1
            took.append(clock() - began)
    except (OSError, asyncio.IncompleteReadError):
        seen["cut"] += 1
    finally:
        writer.transport.abort()


async def main(config: dict[str, Any]) -> None:
    """Flood, and print what came back."""
    context = ssl.create_default_context(cafile=config["ca"])
    context.check_hostname = False
    context.load_cert_chain(config["cert"], config["key"])
    connections: list[Connection] = [
        await asyncio.open_connection("127.0.0.1", config["port"], ssl=context) for _ in range(config["connections"])
    ]
    print("connected", flush=True)
    until = asyncio.get_running_loop().time() + config["seconds"]
    seen: Counter[str] = Counter()
    took: list[float] = []
    await asyncio.gather(*(_client(one, config["path"], until, seen, took) for one in connections))
    print(json.dumps({"seen": seen, "median_seconds": statistics.median(took or [0.0])}))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
