"""The proxy's own gRPC service: its ruleset as data, and a packet's way through it."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from machinery.api import errors
from protos.cutaway.v1 import kube_proxy_pb2 as pb
from protos.cutaway.v1 import kube_proxy_pb2_grpc
from services.kube_proxy import ip_program
from services.kube_proxy.network import Hop
from services.kube_proxy.policy.agent import PolicyAgent
from services.kube_proxy.policy.plan import judge
from services.kube_proxy.proxy import Ports, Proxy
from services.kube_proxy.render import TABLE, entry
from services.kube_proxy.ruleset import Endpoint, Ruleset, ServicePort
from services.kube_proxy.trace import route_steps, trace

# How far a reader of changes may stay behind.
WAITING_CHANGES_MAX = 256
# Of a transaction's nft commands so many are told.
COMMANDS_MAX = 400


class KubeProxyService(kube_proxy_pb2_grpc.KubeProxyServicer):
    """Answers from the ruleset that nft has accepted."""

    def __init__(
        self, proxy: Proxy, policies: PolicyAgent | None = None, routes: Callable[[], Mapping[str, Hop]] = dict
    ) -> None:
        self.proxy = proxy
        self.routes = routes
        self.policies = policies

    async def GetRuleset(self, request: pb.GetRulesetRequest, context: Any) -> pb.Ruleset:
        """See the contract."""
        async with self.proxy.writing:
            ruleset = self._applied()
            if request.namespace and request.service:
                ports = self.proxy.ports_of(f"{request.namespace}/{request.service}")
            else:
                ports = ruleset.ports.values()
            return pb.Ruleset(
                table=TABLE,
                services=[
                    _service_message(port, ruleset.settings.node)
                    for port in ports
                    if request.namespace in ("", port.namespace) and request.service in ("", port.service)
                ],
                revision=self._revision(),
            )

    async def Follow(self, request: pb.FollowRulesRequest, context: Any) -> AsyncIterator[pb.RulesChange]:
        """See the contract."""
        waiting: deque[pb.RulesChange] = deque([pb.RulesChange(revision=self._newest())])
        told = asyncio.Event()
        told.set()

        def listen(before: Ports, after: Ports) -> None:
            if len(waiting) <= WAITING_CHANGES_MAX:
                waiting.append(self._change(before, after))
            told.set()

        self.proxy.listeners.append(listen)
        try:
            while True:
                await told.wait()
                told.clear()
                while waiting:
                    if len(waiting) > WAITING_CHANGES_MAX:
                        raise errors.Expired("the rules changed faster than they were read")
                    yield waiting.popleft()
        finally:
            self.proxy.listeners.remove(listen)

    def _change(self, before: Ports, after: Ports) -> pb.RulesChange:
        gone = {f"{port.namespace}/{port.service}" for key, port in before.items() if port and not after.get(key)}
        return pb.RulesChange(
            changed=[
                _service_message(port, self.proxy.settings.node)
                for key, port in after.items()
                if port is not None and port != before.get(key)
            ],
            removed=sorted(gone),
            revision=self._newest(),
            commands=self.proxy.transaction.splitlines()[:COMMANDS_MAX],
        )

    def _newest(self) -> int:
        return max(self.proxy.services.revision, self.proxy.slices.revision)

    def _revision(self) -> int:
        return min(self.proxy.services.revision, self.proxy.slices.revision)

    async def Trace(self, request: pb.TraceRequest, context: Any) -> pb.TraceResponse:
        """See the contract."""
        _check_addresses(request)
        ruleset = self._applied()
        addresses = await ip_program.node_addresses()
        protocol = request.protocol.upper() or "TCP"
        found = trace(ruleset, request.source_ip, request.destination_ip, request.port, protocol, addresses)
        arrives = [end.ip for end in found.endpoints] or ([request.destination_ip] if found.verdict == "pass" else [])
        steps = [*found.steps, *route_steps(arrives, self.routes())]
        return pb.TraceResponse(
            verdict=found.verdict,
            steps=[pb.TraceStep(at=step.at, action=step.action, rule=step.rule) for step in steps],
            endpoints=[_endpoint_message(end, ruleset.settings.node) for end in found.endpoints],
            masqueraded=found.masqueraded,
            namespace=found.service.namespace if found.service else "",
            service=found.service.service if found.service else "",
        )

    async def TracePolicy(self, request: pb.TraceRequest, context: Any) -> pb.TracePolicyResponse:
        """See the contract."""
        current = self.policies.current if self.policies is not None else None
        if current is None:
            raise errors.ServiceUnavailable("policies are not enforced by this proxy, or not written yet")
        _check_addresses(request)
        verdicts = judge(
            current, request.source_ip, request.destination_ip, request.port, request.protocol.upper() or "TCP"
        )
        return pb.TracePolicyResponse(
            verdicts=[
                pb.PolicyVerdict(
                    direction=v.direction, allowed=v.allowed, policies=v.policies, allowed_by=v.by, held=bool(v.held)
                )
                for v in verdicts
            ]
        )

    def _applied(self) -> Ruleset:
        if self.proxy.applied is None:
            raise errors.ServiceUnavailable("the rules are not written yet")
        return self.proxy.applied


def _check_addresses(request: pb.TraceRequest) -> None:
    for name, address in (
        ("destination_ip", request.destination_ip),
        ("source_ip", request.source_ip or "0.0.0.0"),
    ):
        try:
            ipaddress.IPv4Address(address)
        except ValueError as error:
            raise errors.BadRequest(f"{name}: {address!r} is not an IPv4 address") from error
    if not 0 < request.port < 65536:
        raise errors.BadRequest(f"port: {request.port} is not in 1-65535")


def _service_message(port: ServicePort, node: str) -> pb.RulesetService:
    def addresses(kind: str) -> list[str]:
        return [f.ip for f in port.frontends if f.kind == kind]

    served = next((f for f in port.frontends if f.outcome == "balance"), None)
    return pb.RulesetService(
        namespace=port.namespace,
        name=port.service,
        port_name=port.port_name,
        protocol=port.protocol,
        cluster_ips=addresses("cluster"),
        port=port.port,
        node_port=port.node_port,
        external_ips=addresses("external"),
        load_balancer_ips=addresses("balancer"),
        session_affinity="ClientIP" if port.affinity_seconds else "None",
        chain=entry(port, served) if served else "",
        endpoints=[_endpoint_message(end, node) for end in port.endpoints],
    )


def _endpoint_message(end: Endpoint, node: str) -> pb.RulesetEndpoint:
    return pb.RulesetEndpoint(ip=end.ip, port=end.port, node=end.node, local=end.node == node)
