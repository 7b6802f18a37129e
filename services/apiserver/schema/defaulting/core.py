"""The other kinds of the core group: Services, volumes and claims, namespaces, nodes, secrets, quotas."""

from __future__ import annotations

from typing import Any

from services.apiserver.schema.defaulting import pods

Obj = dict[str, Any]


def service(obj: Obj) -> None:
    """A Service. Addresses and node ports are allocated by the registry, not here."""
    spec = obj.setdefault("spec", {})
    if not spec.get("sessionAffinity"):
        spec["sessionAffinity"] = "None"
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP":
        config = spec.setdefault("sessionAffinityConfig", {})
        client = config.setdefault("clientIP", {})
        if client.get("timeoutSeconds") is None:
            client["timeoutSeconds"] = 10800
    kind = spec.get("type") or "ClusterIP"
    spec["type"] = kind
    for port in spec.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port", 0)
    external = kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and spec.get("externalIPs"))
    if external and not spec.get("externalTrafficPolicy"):
        spec["externalTrafficPolicy"] = "Cluster"
    if kind != "ExternalName" and spec.get("internalTrafficPolicy") is None:
        spec["internalTrafficPolicy"] = "Cluster"
    if kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is None:
        spec["allocateLoadBalancerNodePorts"] = True
    for status in ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ():
        if status.get("ip") and status.get("ipMode") is None:
            status["ipMode"] = "VIP"
    obj.setdefault("status", {}).setdefault("loadBalancer", {})


def endpoints(obj: Obj) -> None:
    """Endpoints: a port's protocol."""
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            if not port.get("protocol"):
                port["protocol"] = "TCP"


def secret(obj: Obj) -> None:
    """A Secret: its type."""
    if not obj.get("type"):
        obj["type"] = "Opaque"


def namespace(obj: Obj) -> None:
    """A Namespace: the label with its own name, the finalizer of its spec, its phase."""
    name = (obj.get("metadata") or {}).get("name")
    if name:
        labels = obj["metadata"].setdefault("labels", {})
        labels.setdefault("kubernetes.io/metadata.name", name)
    obj.setdefault("spec", {})
    status = obj.setdefault("status", {})
    if not status.get("phase"):
        status["phase"] = "Active"


def node(obj: Obj) -> None:
    """A Node: what can be allocated is the capacity unless the kubelet says less."""
    obj.setdefault("spec", {})
    status = obj.setdefault("status", {})
    if status.get("capacity") and status.get("allocatable") is None:
        status["allocatable"] = dict(status["capacity"])


def replication_controller(obj: Obj) -> None:
    """Its selector and labels follow from the template's labels."""
    spec = obj.setdefault("spec", {})
    template = spec.get("template")
    labels = ((template or {}).get("metadata") or {}).get("labels")
    if labels:
        if not spec.get("selector"):
            spec["selector"] = dict(labels)
        metadata = obj.setdefault("metadata", {})
        if not metadata.get("labels"):
            metadata["labels"] = dict(labels)
    if spec.get("replicas") is None:
        spec["replicas"] = 1
    if template is not None:
        pods.template(spec)
    obj.setdefault("status", {}).setdefault("replicas", 0)


def pod_template(obj: Obj) -> None:
    """A PodTemplate."""
    pods.template(obj)


def persistent_volume(obj: Obj) -> None:
    """A PersistentVolume."""
    spec = obj.setdefault("spec", {})
    if not spec.get("persistentVolumeReclaimPolicy"):
        spec["persistentVolumeReclaimPolicy"] = "Retain"
    if spec.get("volumeMode") is None:
        spec["volumeMode"] = "Filesystem"
    status = obj.setdefault("status", {})
    if not status.get("phase"):
        status["phase"] = "Pending"
    source = spec.get("hostPath")
    if source is not None and source.get("type") is None:
        source["type"] = ""
    for name, fill in (
        ("iscsi", pods.iscsi),
        ("rbd", pods.rbd),
        ("azureDisk", pods.azure_disk),
        ("scaleIO", pods.scale_io),
    ):
        if spec.get(name) is not None:
            fill(spec[name])
    claim = spec.get("claimRef")
    if claim is not None:
        # The reference is to a claim, whatever its author left out.
        claim.setdefault("kind", "PersistentVolumeClaim")
        claim.setdefault("apiVersion", "v1")


def persistent_volume_claim(obj: Obj) -> None:
    """A PersistentVolumeClaim."""
    pods.claim_spec(obj.setdefault("spec", {}))
    status = obj.setdefault("status", {})
    if not status.get("phase"):
        status["phase"] = "Pending"


def limit_range(obj: Obj) -> None:
    """Container limits: default from max, defaultRequest from default or min."""
    for item in (obj.get("spec") or {}).get("limits") or ():
        if item.get("type") != "Container":
            continue
        if item.get("max"):
            default = item.setdefault("default", {})
            for name, amount in item["max"].items():
                default.setdefault(name, amount)
        if item.get("default") or item.get("min"):
            request = item.setdefault("defaultRequest", {})
            for source in (item.get("default") or {}, item.get("min") or {}):
                for name, amount in source.items():
                    request.setdefault(name, amount)


def resource_quota(obj: Obj) -> None:
    """A ResourceQuota always has a status."""
    obj.setdefault("spec", {})
    obj.setdefault("status", {})


def event(obj: Obj) -> None:
    """An Event of the core group: what Go writes even when it is empty."""
    obj.setdefault("involvedObject", {})
    obj.setdefault("source", {})
    obj.setdefault("reportingComponent", "")
    obj.setdefault("reportingInstance", "")
