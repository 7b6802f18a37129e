"""The DNS server's own gRPC service: the records that it serves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from protos.cutaway.v1 import dns_pb2 as pb
from protos.cutaway.v1 import dns_pb2_grpc
from services.dns.answer import TTL_SECONDS
from services.dns.zone import Zone


class DnsService(dns_pb2_grpc.DnsServicer):
    """Answers from the zone."""

    def __init__(self, zone: Zone, revision: Callable[[], int]) -> None:
        self.zone = zone
        self.revision = revision

    async def ListRecords(self, request: pb.ListRecordsRequest, context: Any) -> pb.ListRecordsResponse:
        """See the contract."""
        found = self.zone.records(request.name.rstrip(".").lower())
        return pb.ListRecordsResponse(
            records=[pb.Record(name=r.name, type=r.type, ttl_seconds=TTL_SECONDS, data=r.data) for r in found],
            revision=self.revision(),
        )
