"""The controller's own gRPC service: the routes that the proxy serves now."""

from __future__ import annotations

from typing import Any

from protos.cutaway.v1 import ingress_pb2 as pb
from protos.cutaway.v1 import ingress_pb2_grpc
from services.ingress.sync import Sync


class IngressService(ingress_pb2_grpc.IngressServicer):
    """Answers from the table, with the endpoints that the proxy has."""

    def __init__(self, sync: Sync) -> None:
        self.sync = sync

    async def ListRoutes(self, request: pb.ListRoutesRequest, context: Any) -> pb.ListRoutesResponse:
        """See the contract."""
        response = pb.ListRoutesResponse(proxy_error=self.sync.error)
        for route in self.sync.table.routes:
            namespace, _, name = route.ingress.partition("/")
            endpoints = self.sync.live_endpoints(route.backend.name) if route.backend is not None else ()
            response.routes.add(
                host=route.host, path=route.path, path_type=route.path_type, namespace=namespace, ingress=name,
                service=route.service, service_port=route.port, tls_secret=route.tls_secret, error=route.error,
                endpoints=[
                    f"[{e.ip}]:{e.port}" if ":" in e.ip else f"{e.ip}:{e.port}" for e in endpoints if not e.draining
                ],
            )  # fmt: skip
        return response
