"""The built-in rows: every stable group, version and kind of Kubernetes v1.37 that a cluster serves by default.

Written out rather than read from `lightkube.resources` at start, because importing all of its modules costs a third of
a second; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator

from machinery.api.kinds import Kind
from services.apiserver.registry.resource import CREATE_ONLY, GET_PATCH_UPDATE, READ_WRITE, Resource, Subresource

# One line a resource: plural, Kind, N(amespaced) or C(luster), then optional `short=a,b`, `cat=all`,
# `sub=status,scale`, `verbs=create`.
_TABLE = """
v1
  bindings Binding N verbs=create
  componentstatuses ComponentStatus C short=cs verbs=get,list
  configmaps ConfigMap N short=cm
  endpoints Endpoints N short=ep
  events Event N short=ev
  limitranges LimitRange N short=limits
  namespaces Namespace C short=ns sub=status,finalize verbs=create,delete,get,list,patch,update,watch
  nodes Node C short=no sub=status,proxy
  persistentvolumeclaims PersistentVolumeClaim N short=pvc sub=status
  persistentvolumes PersistentVolume C short=pv sub=status
  pods Pod N short=po cat=all sub=attach,binding,ephemeralcontainers,eviction,exec,log,portforward,proxy,resize,status
  podtemplates PodTemplate N
  replicationcontrollers ReplicationController N short=rc cat=all sub=scale,status
  resourcequotas ResourceQuota N short=quota sub=status
  secrets Secret N
  serviceaccounts ServiceAccount N short=sa sub=token
  services Service N short=svc cat=all sub=proxy,status
apiregistration.k8s.io/v1
  apiservices APIService C cat=api-extensions sub=status
apps/v1
  controllerrevisions ControllerRevision N
  daemonsets DaemonSet N short=ds cat=all sub=status
  deployments Deployment N short=deploy cat=all sub=scale,status
  replicasets ReplicaSet N short=rs cat=all sub=scale,status
  statefulsets StatefulSet N short=sts cat=all sub=scale,status
events.k8s.io/v1
  events Event N short=ev
authentication.k8s.io/v1
  selfsubjectreviews SelfSubjectReview C verbs=create
  tokenreviews TokenReview C verbs=create
authorization.k8s.io/v1
  localsubjectaccessreviews LocalSubjectAccessReview N verbs=create
  selfsubjectaccessreviews SelfSubjectAccessReview C verbs=create
  selfsubjectrulesreviews SelfSubjectRulesReview C verbs=create
  subjectaccessreviews SubjectAccessReview C verbs=create
autoscaling/v1
  horizontalpodautoscalers HorizontalPodAutoscaler N short=hpa cat=all sub=status
autoscaling/v2
  horizontalpodautoscalers HorizontalPodAutoscaler N short=hpa cat=all sub=status
batch/v1
  cronjobs CronJob N short=cj cat=all sub=status
  jobs Job N cat=all sub=status
certificates.k8s.io/v1
  certificatesigningrequests CertificateSigningRequest C short=csr sub=approval,status
networking.k8s.io/v1
  ingressclasses IngressClass C
  ingresses Ingress N short=ing sub=status
  ipaddresses IPAddress C short=ip
  networkpolicies NetworkPolicy N short=netpol
  servicecidrs ServiceCIDR C sub=status
policy/v1
  poddisruptionbudgets PodDisruptionBudget N short=pdb sub=status
rbac.authorization.k8s.io/v1
  clusterrolebindings ClusterRoleBinding C
  clusterroles ClusterRole C
  rolebindings RoleBinding N
  roles Role N
storage.k8s.io/v1
  csidrivers CSIDriver C
  csinodes CSINode C
  csistoragecapacities CSIStorageCapacity N
  storageclasses StorageClass C short=sc
  volumeattachments VolumeAttachment C sub=status
  volumeattributesclasses VolumeAttributesClass C short=vac
admissionregistration.k8s.io/v1
  mutatingadmissionpolicies MutatingAdmissionPolicy C cat=api-extensions
  mutatingadmissionpolicybindings MutatingAdmissionPolicyBinding C cat=api-extensions
  mutatingwebhookconfigurations MutatingWebhookConfiguration C cat=api-extensions
  validatingadmissionpolicies ValidatingAdmissionPolicy C cat=api-extensions sub=status
  validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding C cat=api-extensions
  validatingwebhookconfigurations ValidatingWebhookConfiguration C cat=api-extensions
apiextensions.k8s.io/v1
  customresourcedefinitions CustomResourceDefinition C short=crd,crds cat=api-extensions sub=status
scheduling.k8s.io/v1
  priorityclasses PriorityClass C short=pc
coordination.k8s.io/v1
  leases Lease N
node.k8s.io/v1
  runtimeclasses RuntimeClass C
discovery.k8s.io/v1
  endpointslices EndpointSlice N
flowcontrol.apiserver.k8s.io/v1
  flowschemas FlowSchema C sub=status
  prioritylevelconfigurations PriorityLevelConfiguration C sub=status
resource.k8s.io/v1
  deviceclasses DeviceClass C
  devicetaintrules DeviceTaintRule C sub=status
  resourceclaims ResourceClaim N sub=status
  resourceclaimtemplates ResourceClaimTemplate N
  resourceslices ResourceSlice C
"""

# Subresources that are not a GET/PATCH/UPDATE of the same object: verbs in upstream's order, and the kind of the body.
_CONNECT = ("create", "get")
_PROXY = ("create", "delete", "get", "patch", "update")
_SPECIAL: dict[str, tuple[tuple[str, ...], str, str]] = {
    "scale": (GET_PATCH_UPDATE, "autoscaling/v1", "Scale"),
    "binding": (CREATE_ONLY, "v1", "Binding"),
    "eviction": (CREATE_ONLY, "policy/v1", "Eviction"),
    "token": (CREATE_ONLY, "authentication.k8s.io/v1", "TokenRequest"),
    "finalize": (("update",), "v1", "Namespace"),
    "log": (("get",), "v1", "Pod"),
    "exec": (_CONNECT, "v1", "PodExecOptions"),
    "attach": (_CONNECT, "v1", "PodAttachOptions"),
    "portforward": (_CONNECT, "v1", "PodPortForwardOptions"),
}
_PROXY_OPTIONS = {"pods": "PodProxyOptions", "services": "ServiceProxyOptions", "nodes": "NodeProxyOptions"}

SELECTABLE: dict[str, tuple[str, ...]] = {
    "pods": (
        "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
        "status.phase", "status.podIP", "status.nominatedNodeName",
    ),
    "events": (
        "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason", "reportingComponent", "source", "type",
    ),
    "events.events.k8s.io": (
        "regarding.kind", "regarding.namespace", "regarding.name", "regarding.uid", "regarding.apiVersion",
        "regarding.resourceVersion", "regarding.fieldPath", "reason", "reportingController", "type",
    ),
    "namespaces": ("status.phase",),
    "nodes": ("spec.unschedulable",),
    "secrets": ("type",),
    "services": ("spec.clusterIP", "spec.type"),
    "replicationcontrollers": ("status.replicas",),
    "replicasets.apps": ("status.replicas",),
    "jobs.batch": ("status.successful",),
    "certificatesigningrequests.certificates.k8s.io": ("spec.signerName",),
    "resourceslices.resource.k8s.io": ("spec.nodeName", "spec.driver"),
}  # fmt: skip
"""What a field selector may name besides metadata.name and metadata.namespace, by resource, as upstream's field label
conversions allow."""

# Kinds that two groups or versions serve from one storage: row -> (storage, api version that is stored).
_SHARED = {
    ("events.k8s.io/v1", "events"): ("events", "v1"),
    ("autoscaling/v1", "horizontalpodautoscalers"): ("horizontalpodautoscalers.autoscaling", "autoscaling/v2"),
}
_VIRTUAL = {"Binding", "ComponentStatus"}


_DEPRECATED = {
    "componentstatuses": "v1 ComponentStatus is deprecated in v1.19+",
    "endpoints": "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
}
"""Upstream's warnings about kinds that it still serves."""


def rows() -> Iterator[Resource]:
    """The built-in rows, without strategies and conversions."""
    group = version = ""
    for line in _TABLE.strip().splitlines():
        if not line.startswith(" "):
            group, _, version = line.rpartition("/")
            continue
        plural, kind, scope, *rest = line.split()
        options = {key: tuple(value.split(",")) for key, value in (item.split("=") for item in rest)}
        yield _row(Kind(group, version, kind, plural, scope == "N"), options)


def _row(kind: Kind, options: dict[str, tuple[str, ...]]) -> Resource:
    verbs = options.get("verbs", READ_WRITE)
    storage, stored_version = _SHARED.get((kind.api_version, kind.plural), (kind.resource, kind.api_version))
    if kind.kind in _VIRTUAL or verbs == CREATE_ONLY:
        storage = ""
    group, _, version = stored_version.rpartition("/")
    namespaced_fields = ("metadata.name", "metadata.namespace") if kind.namespaced else ("metadata.name",)
    selectable = namespaced_fields + SELECTABLE.get(kind.resource, ())
    extracted = SELECTABLE.get(storage, ()) if storage else ()
    return Resource(
        kind=kind,
        singular=kind.kind.lower(),
        short_names=options.get("short", ()),
        categories=options.get("cat", ()),
        verbs=verbs,
        subresources={name: _subresource(kind, name) for name in options.get("sub", ())},
        deprecation=_DEPRECATED.get(kind.resource, ""),
        storage=storage,
        storage_kind=Kind(group, version, kind.kind, kind.plural, kind.namespaced),
        selectable_fields=selectable,
        extracted=extracted,
        positions={
            path: extracted.index(_stored_name(path)) for path in selectable if not path.startswith("metadata.name")
        },
    )


def _stored_name(path: str) -> str:
    """What the field of an events.k8s.io Event is called in the core Event that is stored."""
    return path.replace("regarding.", "involvedObject.").replace("reportingController", "reportingComponent")


def _subresource(kind: Kind, name: str) -> Subresource:
    if name == "proxy":
        options = Kind("", "v1", _PROXY_OPTIONS[kind.plural], kind.plural, kind.namespaced)
        return Subresource(name, options, _PROXY)
    if name not in _SPECIAL:
        return Subresource(name, kind, GET_PATCH_UPDATE)
    verbs, api_version, body_kind = _SPECIAL[name]
    group, _, version = api_version.rpartition("/")
    return Subresource(name, Kind(group, version, body_kind, kind.plural, kind.namespaced), verbs)
