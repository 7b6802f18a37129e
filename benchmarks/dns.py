"""Answers a second of the DNS server, and how long a question waits: `python -m benchmarks.dns [--seconds N]`.

The server runs in a process of its own with 1,000 Services, the client in this one over loopback UDP, with so many
questions under way. Half of the questions are for one of a few names, as on a node; the others for any name; some do
not exist, as a resolver with search paths asks for.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import resource
import time

import dns.message

SERVICES = 1000
UNDER_WAY = 32


def serve(port: int, ready: object) -> None:
    """The server's process."""
    import msgspec
    import uvloop

    from machinery.api.service_views import Service
    from services.dns.forward import Forwarder
    from services.dns.records import service_records
    from services.dns.server import Responder, Udp
    from services.dns.zone import Zone

    async def main() -> None:
        zone = Zone("cluster.local")
        for number in range(SERVICES):
            body = {
                "metadata": {"name": f"web-{number}", "namespace": "d"},
                "spec": {
                    "clusterIP": f"10.96.{number // 250}.{number % 250 + 1}",
                    "ports": [{"name": "http", "port": 80}],
                },
            }
            zone.replace(str(number), service_records(msgspec.convert(body, Service), [], zone.domain))
        responder = Responder(zone, Forwarder([]), {"d"})
        async with asyncio.TaskGroup() as tasks:
            await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: Udp(responder, tasks), local_addr=("127.0.0.1", port)
            )
            ready.set()  # type: ignore[attr-defined]
            await asyncio.Event().wait()

    uvloop.run(main())


class Client(asyncio.DatagramProtocol):
    """Keeps so many questions under way and notes how long each took."""

    def __init__(self, questions: list[bytes]) -> None:
        self.questions = questions
        self.sent: dict[int, float] = {}
        self.took: list[float] = []
        self.number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def ask(self) -> None:
        self.number = (self.number + 1) % 65536
        self.sent[self.number] = time.perf_counter()
        question = self.questions[random.randrange(len(self.questions))]
        self.transport.sendto(self.number.to_bytes(2, "big") + question)  # type: ignore[attr-defined]

    def datagram_received(self, data: bytes, _addr: object) -> None:
        began = self.sent.pop(int.from_bytes(data[:2], "big"), None)
        if began is not None:
            self.took.append(time.perf_counter() - began)
        self.ask()


async def measure(port: int, seconds: float) -> list[float]:
    names = [f"web-{n}.d.svc.cluster.local" for n in range(SERVICES)]
    names += [f"web-{n}.d.svc.cluster.local.d.svc.cluster.local" for n in range(0, SERVICES, 4)]
    names += names[:8] * (len(names) // 8)
    questions = [dns.message.make_query(name, "A", use_edns=0).to_wire()[2:] for name in names]
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_datagram_endpoint(lambda: Client(questions), remote_addr=("127.0.0.1", port))
    for _ in range(UNDER_WAY):
        client.ask()
    await asyncio.sleep(seconds)
    transport.close()
    return client.took


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--port", type=int, default=21853)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    server = context.Process(target=serve, args=(options.port, ready), daemon=True)
    server.start()
    ready.wait(20)
    import uvloop

    took = sorted(uvloop.run(measure(options.port, options.seconds)))
    server.terminate()
    server.join()
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = cpu.ru_utime + cpu.ru_stime
    print(
        f"{len(took) / options.seconds:,.0f} answers/s, server used {used:.1f} s of a core in {options.seconds:.0f} s"
    )
    for name, part in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)):
        print(f"{name} {took[int(len(took) * part)] * 1000:.2f} ms")


if __name__ == "__main__":
    main()
