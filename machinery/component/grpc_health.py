"""grpc.health.v1 on top of `Health`: the whole server under "", and each of its services by name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from machinery.component.health import Health

WATCH_POLL_SECONDS = 1.0
"""Readiness is asked, not told: a Watch asks this often, and only while somebody watches."""


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Answers SERVING while every readiness check is well."""

    NAME = "grpc.health.v1.Health"

    def __init__(self, health: Health, services: Sequence[str]) -> None:
        self._health = health
        self._services = frozenset(services) | {""}

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register with a server that has not started."""
        health_pb2_grpc.add_HealthServicer_to_server(self, server)

    def _status(self) -> int:
        response = health_pb2.HealthCheckResponse
        return int(response.SERVING if self._health.is_ready else response.NOT_SERVING)

    async def Check(self, request: Any, context: Any) -> Any:
        """NOT_FOUND for a service that this server does not have."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r} here")
        return health_pb2.HealthCheckResponse(status=self._status())

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """The status now and after each change; SERVICE_UNKNOWN for a service that this server does not have."""
        last = None
        while True:
            known = request.service in self._services
            status = self._status() if known else health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            if status != last:
                last = status
                yield health_pb2.HealthCheckResponse(status=status)
            await asyncio.sleep(WATCH_POLL_SECONDS)
