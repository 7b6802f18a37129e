"""Run as a program: a candidate for a Lease that writes all the time while it leads, whatever it is told.

    python -m tests.support.leader_process GRPC_ADDRESS CA CERT KEY IDENTITY DURATION DEADLINE RETRY

Prints "leads <epoch>" when it does. Each write puts identity, epoch and a count into the ConfigMap "ledger"; a write
that is refused because leadership has moved is printed as "refused". Its own belief does not stop it from writing: only
the fence does. When leadership is lost it stands for election again.
"""

from __future__ import annotations

import asyncio
import itertools
import sys

from machinery.api import errors, kinds
from machinery.client.api_client import ApiClient, Fence
from machinery.client.leader_election import LeaderElector, LeadershipLost
from machinery.component.tls import TlsFiles


async def main(arguments: list[str]) -> None:
    address, ca, cert, key, identity, *timings = arguments
    duration, deadline, retry = map(float, timings)
    tls = TlsFiles(ca_file=ca, cert_file=cert, key_file=key)
    client = await ApiClient.connect(address, tls, user_agent=identity)
    counts = itertools.count(1)

    async def work(fence: Fence) -> None:
        print(f"leads {fence.epoch}", flush=True)
        mine = client.fenced(fence)
        while True:
            data = {"leader": identity, "epoch": str(fence.epoch), "count": str(next(counts))}
            try:
                await mine.patch(kinds.CONFIG_MAP, "ledger", "default", {"data": data}, timeout=1.0)
            except errors.Conflict:
                print("refused", flush=True)
                await asyncio.sleep(0.2)
            except errors.ApiError:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.01)

    for turn in itertools.count():
        elector = LeaderElector(
            client, "torture", f"{identity}_{turn}", "default",
            lease_duration=duration, renew_deadline=deadline, retry_period=retry,
        )  # fmt: skip
        try:
            await elector.run(work)
        except LeadershipLost:
            print("lost", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
