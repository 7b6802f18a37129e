"""The objects that only the proxy reads, with the fields that it reads; Services and slices are in
`machinery/api/service_views.py`.
"""

from __future__ import annotations

import msgspec

from machinery.api.service_views import Metadata, View


class NodeAddress(View):
    """One address of a node."""

    type: str = ""
    address: str = ""


class Taint(View):
    """A mark that keeps pods, and balancers' traffic, away."""

    key: str = ""


class NodeSpec(View):
    """What was given to a node."""

    pod_cidr: str | None = msgspec.field(default=None, name="podCIDR")
    taints: list[Taint] | None = None


class Condition(View):
    """One condition of a node."""

    type: str = ""
    status: str = ""


class NodeStatus(View):
    """What a node reported."""

    addresses: list[NodeAddress] | None = None
    conditions: list[Condition] | None = None


class Node(View):
    """core/v1 Node."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: NodeSpec | None = None
    status: NodeStatus | None = None


class ContainerPort(View):
    """A port that a container names."""

    name: str | None = None
    container_port: int = 0
    protocol: str | None = None


class Container(View):
    """A container's ports."""

    ports: list[ContainerPort] | None = None
    restart_policy: str | None = None


class PodSpec(View):
    """Where a pod runs and what ports it names."""

    node_name: str | None = None
    host_network: bool | None = None
    containers: list[Container] = []
    init_containers: list[Container] | None = None


class PodIp(View):
    """One address of a pod."""

    ip: str = ""


class PodStatus(View):
    """A pod's addresses and phase."""

    phase: str | None = None
    pod_ip: str | None = msgspec.field(default=None, name="podIP")
    pod_ips: list[PodIp] | None = msgspec.field(default=None, name="podIPs")


class Pod(View):
    """core/v1 Pod."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: PodSpec | None = None
    status: PodStatus | None = None


class Requirement(View):
    """One expression of a label selector."""

    key: str = ""
    operator: str = ""
    values: list[str] | None = None


class Selector(View):
    """A label selector; empty chooses all."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[Requirement] | None = None


class IpBlock(View):
    """A range of addresses with holes."""

    cidr: str = ""
    except_: list[str] | None = msgspec.field(default=None, name="except")


class Peer(View):
    """Who is on the other side."""

    pod_selector: Selector | None = None
    namespace_selector: Selector | None = None
    ip_block: IpBlock | None = None


class PolicyPort(View):
    """A port, by number, name or range."""

    protocol: str | None = None
    port: int | str | None = None
    end_port: int | None = None


class IngressRule(View):
    """From whom, on which ports."""

    from_: list[Peer] | None = msgspec.field(default=None, name="from")
    ports: list[PolicyPort] | None = None


class EgressRule(View):
    """To whom, on which ports."""

    to: list[Peer] | None = None
    ports: list[PolicyPort] | None = None


class PolicySpec(View):
    """What a policy says."""

    pod_selector: Selector | None = None
    policy_types: list[str] | None = None
    ingress: list[IngressRule] | None = None
    egress: list[EgressRule] | None = None


class NetworkPolicy(View):
    """networking.k8s.io/v1 NetworkPolicy."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: PolicySpec | None = None
