"""Answers on the healthCheckNodePort of Services with externalTrafficPolicy: Local.

A balancer in front asks every node which of them has endpoints: 200 if this one has, 503 otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from machinery.component import logs
from services.kube_proxy import health_http
from services.kube_proxy.ruleset import ServicePort

log = logs.get("health_check")


class HealthChecks:
    """One listener a Service; `changed` is a listener of the proxy, `run` opens and closes what it asks for."""

    def __init__(self) -> None:
        self.wanted: dict[int, tuple[str, str]] = {}
        self.local: dict[tuple[str, str], dict[str, int]] = {}
        self.servers: dict[int, asyncio.Server] = {}
        self.wake = asyncio.Event()

    def changed(self, before: Mapping[str, ServicePort | None], after: Mapping[str, ServicePort | None]) -> None:
        """Note which ports are asked for, and how many endpoints this node has."""
        for old in before.values():
            if old is not None and old.health_check_node_port:
                self.wanted.pop(old.health_check_node_port, None)
                self.local.pop((old.namespace, old.service), None)
                self.wake.set()
        for port in after.values():
            if port is not None and port.health_check_node_port:
                service = (port.namespace, port.service)
                self.wanted[port.health_check_node_port] = service
                self.local.setdefault(service, {})[port.key] = port.local_ready
                self.wake.set()

    async def run(self) -> None:
        """Keep the listeners as wanted, for ever."""
        try:
            while True:
                await self.wake.wait()
                self.wake.clear()
                for number in [n for n in self.servers if n not in self.wanted]:
                    self.servers.pop(number).close()
                for number in [n for n in self.wanted if n not in self.servers]:
                    await self._open(number)
        finally:
            for server in self.servers.values():
                server.close()

    async def _open(self, number: int) -> None:
        try:
            self.servers[number] = await health_http.serve("0.0.0.0", number, lambda _path: self.answer(number))
        except OSError as error:
            log.error("health check port not opened", port=number, error=str(error))

    def answer(self, number: int) -> bytes:
        """The whole HTTP answer of one port."""
        namespace, name = self.wanted.get(number, ("", ""))
        local = max(self.local.get((namespace, name), {}).values(), default=0)
        body = msgspec.json.encode(
            {
                "service": {"namespace": namespace, "name": name},
                "localEndpoints": local,
                "serviceProxyHealthy": True,
            }
        )
        weight = f"X-Load-Balancing-Endpoint-Weight: {local}\r\n"
        return health_http.response(200 if local else 503, body, weight)
