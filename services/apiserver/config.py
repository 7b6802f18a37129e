"""What an apiserver can be told."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from machinery.component.config import ComponentConfig
from machinery.component.tls import TlsFiles
from services.apiserver.auth.oidc_settings import OidcSettings
from services.apiserver.watch_shares import WATCHES_MAX


class ApiServerConfig(ComponentConfig):
    """The apiserver's configuration."""

    name: Annotated[str, Meta(description="Name of this component in logs and metrics")] = "apiserver"
    storage_url: Annotated[str, Meta(description="sqlite:////path/state.db or postgresql://host/database")] = ""
    cluster_id: Annotated[str, Meta(description="Refuse a database of another cluster; empty: take what it says")] = ""
    rest_address: Annotated[str, Meta(description="host:port of the Kubernetes REST API over HTTPS")] = "0.0.0.0:6443"
    advertise_address: Annotated[str, Meta(description="IP by which pods and nodes reach this apiserver")] = ""
    advertise_port: Annotated[int, Meta(description="Port of the same; 0: that of rest_address")] = 0
    service_cidr: Annotated[str, Meta(description="Cluster IPs of Services")] = "10.96.0.0/16"
    node_port_range: Annotated[str, Meta(description="Ports of NodePort Services")] = "30000-32767"
    service_account_key_file: Annotated[str, Meta(description="PEM private key that signs tokens")] = ""
    service_account_issuer: Annotated[str, Meta(description="Issuer of tokens")] = (
        "https://kubernetes.default.svc.cluster.local"
    )
    service_account_older_key_files: Annotated[
        list[str], Meta(description="PEM public keys whose tokens are still good")
    ] = []
    front_proxy_client: Annotated[TlsFiles, Meta(description="Our identity towards aggregated API servers")] = (
        msgspec.field(default_factory=TlsFiles)
    )
    audit_policy_file: Annotated[str, Meta(description="audit.k8s.io/v1 Policy: which requests are logged")] = ""
    audit_log_file: Annotated[str, Meta(description="Where audit events go, one JSON line each")] = ""
    oidc: Annotated[OidcSettings, Meta(description="OpenID Connect provider whose ID tokens are accepted")] = (
        msgspec.field(default_factory=OidcSettings)
    )
    kubelet_client: Annotated[TlsFiles, Meta(description="Our identity towards kubelets")] = msgspec.field(
        default_factory=TlsFiles
    )
    encryption_key_file: Annotated[
        str,
        Meta(
            description="Keys that Secrets are sealed with, `name: base64` a line, the sealing one first; empty: none"
        ),
    ] = ""
    requests_in_flight_max: Annotated[
        int, Meta(description="How many requests run at once, shared by priority and fairness", ge=1)
    ] = 600
    watches_max: Annotated[
        int, Meta(description="How many watches there may be at once; nobody may have more of them than are left", ge=1)
    ] = WATCHES_MAX
    history_seconds: Annotated[int, Meta(description="How long the past of objects is kept", ge=60)] = 24 * 3600
    history_entries: Annotated[
        int, Meta(description="How many of the last writes are kept at most; 0: no such limit", ge=0)
    ] = 1_000_000
    history_seconds_of: Annotated[
        dict[str, int],
        Meta(description="Resources whose past is kept for less, such as `pods: 3600` or `deployments.apps: 600`"),
    ] = {}
    history_entries_of: Annotated[
        dict[str, int], Meta(description="Resources of which fewer of the last writes are kept, such as `pods: 10000`")
    ] = {}
    event_ttl_seconds: Annotated[int, Meta(description="How long events are kept", ge=1)] = 3600
    shutdown_delay_seconds: Annotated[
        float,
        Meta(description="How long a stop goes on serving, while /readyz says no: until a balancer has seen it", ge=0),
    ] = 0.0
