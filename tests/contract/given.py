"""A cluster at an address, for the suites that judge what works on it: a client of its administrator, a namespace.

CUTAWAY_CONTRACT_APISERVER=HOST:PORT    the apiserver's gRPC
CUTAWAY_CONTRACT_PKI=FOLDER             ca.crt, admin.crt and admin.key of a client that may do everything
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from machinery.api import errors, kinds
from machinery.client.api_client import ApiClient
from machinery.component.tls import TlsFiles

T = TypeVar("T")
ADDRESS = os.environ.get("CUTAWAY_CONTRACT_APISERVER", "")
SECONDS = 45.0
"""In which a component has to have done what is waited for: long enough for another language's slow start."""
LOOK_SECONDS = 0.1


@asynccontextmanager
async def client_of_given() -> AsyncIterator[ApiClient]:
    """Of the cluster that the environment names."""
    folder = Path(os.environ["CUTAWAY_CONTRACT_PKI"])
    ca, cert, key = (str(folder / name) for name in ("ca.crt", "admin.crt", "admin.key"))
    files = TlsFiles(ca_file=ca, cert_file=cert, key_file=key)
    made = await ApiClient.connect(ADDRESS, files, user_agent="contract")
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def namespace_of(client: ApiClient) -> AsyncIterator[str]:
    """One of our own, with the account that pods need; deleted afterwards."""
    name = f"contract-{secrets.token_hex(4)}"
    await client.create(kinds.NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    # A controller that makes it may have been faster.
    with suppress(errors.AlreadyExists):
        await client.create(kinds.SERVICE_ACCOUNT, account, name)
    try:
        yield name
    finally:
        await client.delete(kinds.NAMESPACE, name)


async def eventually(look: Callable[[], Awaitable[T]], what: str) -> T:
    """What `look` returns once that is true of anything. Fails after SECONDS with what was waited for and last seen."""
    seen: Any = None
    try:
        async with asyncio.timeout(SECONDS):
            while True:
                seen = await look()
                if seen:
                    return seen
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        raise AssertionError(f"not within {SECONDS:.0f} s: {what}; last seen: {seen!r}") from None
