"""A flood of requests from a process of its own: `python -m tests.support.flood CONFIG`, where CONFIG is JSON.

`connections` clients ask for `path` again and again for `seconds`, each as soon as it has its answer; one that is told
to come back later asks again at once, as an ill-behaved client does. Prints how many answers had which status, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections import Counter
from typing import Any


async def _client(config: dict[str, Any], context: ssl.SSLContext, until: float, seen: Counter[str]) -> None:
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", config["port"], ssl=context)
    request = f"GET {config['path']} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    try:
        while loop.time() < until:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            seen[head[9:12].decode()] += 1
    except (OSError, asyncio.IncompleteReadError):
        seen["cut"] += 1
    finally:
        writer.transport.abort()


async def main(config: dict[str, Any]) -> None:
    """Flood, and print what came back."""
    context = ssl.create_default_context(cafile=config["ca"])
    context.check_hostname = False
    context.load_cert_chain(config["cert"], config["key"])
    until = asyncio.get_running_loop().time() + config["seconds"]
    seen: Counter[str] = Counter()
    await asyncio.gather(*(_client(config, context, until, seen) for _ in range(config["connections"])))
    print(json.dumps(seen))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
