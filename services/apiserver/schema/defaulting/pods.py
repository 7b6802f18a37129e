"""Pods and pod templates: pkg/apis/core/v1/defaults.go, SetDefaults_Pod and what it reaches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Obj = dict[str, Any]

_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def pod(obj: Obj) -> None:
    """A Pod. Other than in a template, requests follow from limits and the host's ports from its network."""
    spec = obj.setdefault("spec", {})
    grace = spec.get("terminationGracePeriodSeconds")
    if isinstance(grace, int) and grace < 0:
        spec["terminationGracePeriodSeconds"] = 1  # upstream's conversion takes a negative one as this
    pod_spec(spec)
    for name in ("containers", "initContainers"):
        for container in spec.get(name) or ():
            _requests_from_limits(container)
    resources = spec.get("resources")
    if resources:
        _requests(resources)
    spec.setdefault("enableServiceLinks", True)
    obj.setdefault("status", {})


def template(holder: Obj) -> None:
    """`spec.template` of a workload: the pod spec's defaults, and an empty metadata where there is none."""
    pod_template = holder.setdefault("template", {})
    pod_template.setdefault("metadata", {})
    pod_spec(pod_template.setdefault("spec", {}))


def pod_spec(spec: Obj) -> None:
    """What holds for pods and templates alike."""
    for container in spec.get("containers") or ():
        _container(container)
    for container in spec.get("initContainers") or ():
        _container(container)
    for container in spec.get("ephemeralContainers") or ():
        _container(container)
    if not spec.get("restartPolicy"):
        spec["restartPolicy"] = "Always"
    if spec.get("terminationGracePeriodSeconds") is None:
        spec["terminationGracePeriodSeconds"] = 30
    if not spec.get("dnsPolicy"):
        spec["dnsPolicy"] = "ClusterFirst"
    if spec.get("securityContext") is None:
        spec["securityContext"] = {}
    if not spec.get("schedulerName"):
        spec["schedulerName"] = "default-scheduler"
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        # Upstream converts both spellings to one, and writes both.
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    if spec.get("hostNetwork"):
        _host_ports(spec.get("containers") or ())
        _host_ports(spec.get("initContainers") or ())
    volumes(spec.get("volumes") or ())


def _container(container: Obj) -> None:
    if not container.get("terminationMessagePath"):
        container["terminationMessagePath"] = "/dev/termination-log"
    if not container.get("terminationMessagePolicy"):
        container["terminationMessagePolicy"] = "File"
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = pull_policy(container.get("image") or "")
    if container.get("resources") is None:
        container["resources"] = {}
    for port in container.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
    for variable in container.get("env") or ():
        source = variable.get("valueFrom")
        if source:
            _value_source(source)
    for name in _PROBES:
        probe = container.get(name)
        if probe is not None:
            _probe(probe)
    lifecycle = container.get("lifecycle")
    if lifecycle:
        for hook in lifecycle.values():
            if isinstance(hook, dict) and hook.get("httpGet"):
                _http_get(hook["httpGet"])


def pull_policy(image: str) -> str:
    """Always for the tag `latest` or none, else IfNotPresent: a digest pins its image."""
    if "@" in image:
        return "IfNotPresent"
    last = image.rpartition("/")[2]
    tag = last.partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def _value_source(source: Obj) -> None:
    field = source.get("fieldRef")
    if field is not None and not field.get("apiVersion"):
        field["apiVersion"] = "v1"
    resource = source.get("resourceFieldRef")
    if resource is not None and resource.get("divisor") is None:
        resource["divisor"] = "0"
    file_key = source.get("fileKeyRef")
    if file_key is not None and file_key.get("optional") is None:
        file_key["optional"] = False


def _probe(probe: Obj) -> None:
    # Zero means unset to these, as upstream's fields are not pointers.
    probe["timeoutSeconds"] = probe.get("timeoutSeconds") or 1
    probe["periodSeconds"] = probe.get("periodSeconds") or 10
    probe["successThreshold"] = probe.get("successThreshold") or 1
    probe["failureThreshold"] = probe.get("failureThreshold") or 3
    if probe.get("httpGet"):
        _http_get(probe["httpGet"])
    grpc = probe.get("grpc")
    if grpc is not None and grpc.get("service") is None:
        grpc["service"] = ""


def _http_get(action: Obj) -> None:
    if not action.get("path"):
        action["path"] = "/"
    if not action.get("scheme"):
        action["scheme"] = "HTTP"


def _requests_from_limits(container: Obj) -> None:
    resources = container.get("resources")
    if resources:
        _requests(resources)


def _requests(resources: Obj) -> None:
    limits = resources.get("limits")
    if limits:
        requests = resources.setdefault("requests", {})
        for name, amount in limits.items():
            requests.setdefault(name, amount)


def _host_ports(containers: Iterable[Obj]) -> None:
    for container in containers:
        for port in container.get("ports") or ():
            if not port.get("hostPort") and port.get("containerPort"):
                port["hostPort"] = port["containerPort"]


def volumes(declared: Iterable[Obj]) -> None:
    """A pod's volumes. One without any source is an emptyDir."""
    for volume in declared:
        if len(volume) == 1 and "name" in volume:
            volume["emptyDir"] = {}
            continue
        for name, fill in _VOLUME_DEFAULTS.items():
            source = volume.get(name)
            if source is not None:
                fill(source)


def _mode(source: Obj) -> None:
    if source.get("defaultMode") is None:
        source["defaultMode"] = 420


def _downward(source: Obj) -> None:
    _mode(source)
    _downward_items(source)


def _downward_items(source: Obj) -> None:
    for item in source.get("items") or ():
        _value_source(item)


def _projected(source: Obj) -> None:
    _mode(source)
    for one in source.get("sources") or ():
        if one.get("downwardAPI"):
            _downward_items(one["downwardAPI"])
        token = one.get("serviceAccountToken")
        if token is not None and token.get("expirationSeconds") is None:
            token["expirationSeconds"] = 3600


def _host_path(source: Obj) -> None:
    if source.get("type") is None:
        source["type"] = ""


def iscsi(source: Obj) -> None:
    """The initiator's interface; the logical unit is 0 where none is said."""
    if not source.get("iscsiInterface"):
        source["iscsiInterface"] = "default"
    source.setdefault("lun", 0)


def rbd(source: Obj) -> None:
    """Ceph block devices."""
    for name, value in (("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")):
        if not source.get(name):
            source[name] = value


def azure_disk(source: Obj) -> None:
    """Azure disks."""
    for name, value in (("cachingMode", "ReadWrite"), ("kind", "Shared"), ("fsType", "ext4"), ("readOnly", False)):
        if source.get(name) is None:
            source[name] = value


def scale_io(source: Obj) -> None:
    """ScaleIO volumes."""
    for name, value in (("storageMode", "ThinProvisioned"), ("fsType", "xfs")):
        if not source.get(name):
            source[name] = value


def _ephemeral(source: Obj) -> None:
    spec = (source.get("volumeClaimTemplate") or {}).get("spec")
    if spec is not None:
        claim_spec(spec)


def claim_spec(spec: Obj) -> None:
    """A PersistentVolumeClaim's spec, also in templates."""
    if spec.get("volumeMode") is None:
        spec["volumeMode"] = "Filesystem"
    if spec.get("resources") is None:
        spec["resources"] = {}


def _image(source: Obj) -> None:
    if not source.get("pullPolicy"):
        source["pullPolicy"] = pull_policy(source.get("reference") or "")


_VOLUME_DEFAULTS = {
    "secret": _mode,
    "configMap": _mode,
    "downwardAPI": _downward,
    "projected": _projected,
    "hostPath": _host_path,
    "iscsi": iscsi,
    "rbd": rbd,
    "azureDisk": azure_disk,
    "scaleIO": scale_io,
    "ephemeral": _ephemeral,
    "image": _image,
}
