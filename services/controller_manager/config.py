"""What the controller-manager can be told."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from machinery.component.config import ComponentConfig, Section


class LeaderElection(Section):
    """Who of several instances works. The others wait and hold no state."""

    enabled: Annotated[
        bool, Meta(description="Work only while holding the Lease kube-system/kube-controller-manager")
    ] = True
    lease_seconds: Annotated[float, Meta(description="How long others wait for a leader that is silent", gt=0)] = 15.0
    renew_seconds: Annotated[float, Meta(description="How long a leader tries to renew before it gives up", gt=0)] = (
        10.0
    )
    retry_seconds: Annotated[float, Meta(description="How often the Lease is looked at", gt=0)] = 2.0


class ControllerManagerConfig(ComponentConfig, kw_only=True):
    """The configuration file of `python -m services.controller_manager`."""

    controllers: Annotated[
        list[str], Meta(description='Which controllers run: names, "*" for all, "-name" for all but one')
    ] = field(default_factory=lambda: ["*"])
    leader_election: Annotated[LeaderElection, Meta(description="Leader election")] = field(
        default_factory=LeaderElection
    )
    cluster_cidrs: Annotated[list[str], Meta(description="Pod addresses; every node gets a part of each")] = field(
        default_factory=lambda: ["10.244.0.0/16"]
    )
    allocate_node_cidrs: Annotated[bool, Meta(description="Give each node its part of cluster_cidrs")] = True
    node_cidr_prefix: Annotated[int, Meta(description="Size of a node's IPv4 part", ge=8, le=30)] = 24
    node_cidr_prefix_ipv6: Annotated[int, Meta(description="Size of a node's IPv6 part", ge=16, le=126)] = 64
    rest: Annotated[
        list[str], Meta(description="URLs of the apiservers' REST fronts, for metrics that other servers answer")
    ] = []
    schedulers: Annotated[
        list[str], Meta(description="gRPC addresses of the schedulers, to be asked why a pod has no node")
    ] = []
    unmatched_selector_seconds: Annotated[
        float, Meta(description="How long a Service's selector may match no pod before an event says so", gt=0)
    ] = 60.0
    autoscaler_seconds: Annotated[float, Meta(description="How often each autoscaler is looked at", gt=0)] = 15.0
    root_ca_file: Annotated[str, Meta(description="CA certificate that pods are told to trust (kube-root-ca.crt)")] = ""
    signing_ca_file: Annotated[str, Meta(description="CA certificate that signs CertificateSigningRequests")] = ""
    signing_key_file: Annotated[str, Meta(description="Key of signing_ca_file; empty: nothing is signed")] = ""
    signing_hours: Annotated[int, Meta(description="Longest life of a signed certificate", gt=0)] = 8760
    load_balancer_addresses: Annotated[
        list[str], Meta(description="Addresses for Services of type LoadBalancer: CIDRs or first-last")
    ] = []
    local_path: Annotated[str, Meta(description="Directory on nodes for dynamically provisioned local volumes")] = (
        "/var/lib/cutaway/local-path"
    )
    local_path_remover_image: Annotated[
        str, Meta(description="Image with rm, to remove a deleted local volume's directory; empty: it stays")
    ] = ""
    terminated_pod_threshold: Annotated[int, Meta(description="Ended pods to keep; 0: all", ge=0)] = 12_500
