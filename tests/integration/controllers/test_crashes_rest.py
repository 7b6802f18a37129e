"""The controllers of certificates, tokens, definitions, claims and sizes die with any write, or see an old state."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lab.pki import Pki
from machinery.api import kinds
from machinery.api.kinds import Kind
from tests.integration.controllers import test_crashes_housekeeping as housekeeping
from tests.support.controllers import ControllerLab, deployment, pod_template
from tests.support.crashes import Scenarios, crash_after_any_write, obj, stand_still

pytestmark = pytest.mark.torture

SCENARIOS = Scenarios()
scenario = SCENARIOS.scenario

FOR_CLAIM = "resource.kubernetes.io/pod-claim-name"

# --- claims to devices ------------------------------------------------------------------------------------------------


def made_claims(lab: ControllerLab) -> bool:
    claims = lab.list(kinds.RESOURCE_CLAIM)
    told = [
        (status["name"], status["resourceClaimName"])
        for pod in lab.list(kinds.POD)
        for status in pod.get("status", {}).get("resourceClaimStatuses", ())
    ]
    made = [
        (c["metadata"]["annotations"]["resource.kubernetes.io/pod-claim-name"], c["metadata"]["name"]) for c in claims
    ]
    return len(claims) == 4 and sorted(told) == sorted(made)


@scenario("resourceclaim-controller", done=made_claims, kubelet=False)
async def claims_from_templates(lab: ControllerLab) -> None:
    devices = {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}
    await lab.create(obj("resource.k8s.io/v1", "ResourceClaimTemplate", "one", spec={"spec": {"devices": devices}}))
    wanted = [{"name": name, "resourceClaimTemplateName": "one"} for name in ("a", "b")]
    for number in range(2):
        spec = {**pod_template({})["spec"], "resourceClaims": wanted}
        await lab.create(obj("v1", "Pod", f"p{number}", spec=spec))


def given_back(lab: ControllerLab) -> bool:
    claim = lab.get(kinds.RESOURCE_CLAIM, "shared")
    assert claim is not None
    status = claim.get("status", {})
    protected = claim["metadata"].get("finalizers")
    return not status.get("allocation") and not status.get("reservedFor") and not protected and not generated(lab)


def generated(lab: ControllerLab) -> list[str]:
    return [c["metadata"]["name"] for c in lab.list(kinds.RESOURCE_CLAIM) if c["metadata"]["name"] != "shared"]


@scenario("resourceclaim-controller", done=given_back, kubelet=False)
async def claims_of_ended_pods(lab: ControllerLab) -> None:
    result = {"request": "r", "driver": "gpu.example.com", "pool": "p", "device": "d"}
    wanted = [
        {"name": "s", "resourceClaimName": "shared"},
        {"name": "own", "resourceClaimTemplateName": "one"},
    ]
    spec = {**pod_template({}, nodeName="n1")["spec"], "resourceClaims": wanted}
    pod = await lab.create(obj("v1", "Pod", "p", spec=spec))
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"], "controller": True}
    for name, more in (
        ("shared", {}),
        ("p-own-x", {"annotations": {FOR_CLAIM: "own"}, "ownerReferences": [owner]}),
    ):
        metadata = {"finalizers": ["resource.kubernetes.io/delete-protection"], **more}
        devices = {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}
        await lab.create(obj("resource.k8s.io/v1", "ResourceClaim", name, metadata=metadata, spec={"devices": devices}))
        consumer = {"resource": "pods", "name": "p", "uid": pod["metadata"]["uid"]}
        status = {"allocation": {"devices": {"results": [result]}}, "reservedFor": [consumer]}
        await lab.patch(kinds.RESOURCE_CLAIM, name, {"status": status}, subresource="status")
    told = [{"name": "own", "resourceClaimName": "p-own-x"}]
    await lab.set_pod("p", phase="Succeeded", resourceClaimStatuses=told)


async def claimed(lab: ControllerLab, name: str, device: str, **result: Any) -> None:
    """A running pod with a claim to a device."""
    spec = {**pod_template({}, nodeName="n1")["spec"], "resourceClaims": [{"name": "d", "resourceClaimName": name}]}
    pod = await lab.create(obj("v1", "Pod", name, spec=spec))
    await lab.create(obj("resource.k8s.io/v1", "ResourceClaim", name))
    found = {"request": "r", "driver": "gpu.example.com", "pool": "p", "device": device, **result}
    consumer = {"resource": "pods", "name": name, "uid": pod["metadata"]["uid"]}
    status = {"allocation": {"devices": {"results": [found]}}, "reservedFor": [consumer]}
    await lab.patch(kinds.RESOURCE_CLAIM, name, {"status": status}, subresource="status")


def kept_pods(lab: ControllerLab) -> bool:
    kept = sorted(pod["metadata"]["name"] for pod in lab.pods()) == ["healthy", "tolerant"]
    said = {
        rule["metadata"]["name"]: condition["reason"]
        for rule in lab.list(kinds.DEVICE_TAINT_RULE)
        for condition in rule.get("status", {}).get("conditions", ())
    }
    # The other's numbers are brought up to date only every ten seconds.
    return kept and said.get("trial") == "NoEffect" and "unplug" in said


@scenario("device-taint-eviction-controller", done=kept_pods, kubelet=False)
async def tainted_devices(lab: ControllerLab) -> None:
    await claimed(lab, "healthy", "d0")
    await claimed(lab, "broken", "d1")
    await claimed(lab, "tolerant", "d1", tolerations=[{"operator": "Exists", "effect": "NoExecute"}])
    short = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}
    await claimed(lab, "impatient", "d1", tolerations=[short])
    await claimed(lab, "ruled", "d2")
    for name, effect in (("unplug", "NoExecute"), ("trial", "None")):
        spec = {"deviceSelector": {"device": "d2"}, "taint": {"key": "k", "effect": effect}}
        await lab.create(obj("resource.k8s.io/v1", "DeviceTaintRule", name, spec=spec))
    devices = [{"name": "d0"}, {"name": "d2"}, {"name": "d1", "taints": [{"key": "broken", "effect": "NoExecute"}]}]
    pool = {"name": "p", "generation": 2, "resourceSliceCount": 1}
    spec = {"driver": "gpu.example.com", "nodeName": "n1", "pool": pool, "devices": devices}
    await lab.create(obj("resource.k8s.io/v1", "ResourceSlice", "s", spec=spec))


# --- certificates and tokens ------------------------------------------------------------------------------------------


@scenario(
    "root-ca-certificate-publisher",
    done=lambda lab: len(lab.list(kinds.CONFIG_MAP)) == 5
    and {each["metadata"]["name"] for each in lab.list(kinds.CONFIG_MAP)} == {"kube-root-ca.crt"},
    kubelet=False,
    config={"root_ca_file": __file__},
)  # fmt: skip
async def root_certificates(lab: ControllerLab) -> None:
    for name in ("team", "other"):
        await lab.create(obj("v1", "Namespace", name, spec={"finalizers": ["kubernetes"]}))


@pytest.fixture(scope="module", autouse=True)
def authority(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The CA that requests are signed by."""
    directory = tmp_path_factory.mktemp("ca")
    pki = Pki(directory)
    pki.ensure("test")
    SCENARIOS["signed_requests"].config.update(
        signing_ca_file=str(directory / "ca.crt"), signing_key_file=str(directory / "ca.key")
    )


def request_pem() -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "someone")])
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return base64.b64encode(request.public_bytes(serialization.Encoding.PEM)).decode()


async def ask(lab: ControllerLab, name: str, *conditions: dict[str, Any], **metadata: Any) -> None:
    spec = {
        "request": request_pem(), "signerName": "kubernetes.io/kube-apiserver-client",
        "usages": ["client auth", "digital signature"], "username": "someone", "groups": [],
    }  # fmt: skip
    await lab.create(obj("certificates.k8s.io/v1", "CertificateSigningRequest", name, metadata=metadata, spec=spec))
    if conditions:
        status = {"status": {"conditions": list(conditions)}}
        await lab.patch(kinds.CERTIFICATE_SIGNING_REQUEST, name, status, subresource="status")


def certificates(lab: ControllerLab) -> list[str]:
    found = [each.get("status", {}).get("certificate") for each in lab.list(kinds.CERTIFICATE_SIGNING_REQUEST)]
    return [each for each in found if each]


@scenario("csrsigning", done=lambda lab: len(certificates(lab)) == 3, kubelet=False)
async def signed_requests(lab: ControllerLab) -> None:
    moment = "2026-01-01T00:00:00Z"
    approved = {"type": "Approved", "status": "True", "reason": "r", "lastUpdateTime": moment}
    for number in range(3):
        await ask(lab, f"r{number}", approved)


@scenario("csrcleaner", done=lambda lab: len(lab.list(kinds.CERTIFICATE_SIGNING_REQUEST)) == 0, kubelet=False)
async def old_requests(lab: ControllerLab) -> None:
    moment = "2026-01-01T00:00:00Z"
    denied = {"type": "Denied", "status": "True", "reason": "r", "lastUpdateTime": moment}
    for number in range(3):
        await ask(lab, f"r{number}", denied)


@scenario(
    "legacy-serviceaccount-token-cleaner-controller", "token-cleaner-controller",
    done=lambda lab: [each["metadata"]["name"] for each in lab.list(kinds.SECRET)] == ["bootstrap-token-new"],
    kubelet=False,
)  # fmt: skip
async def expired_tokens(lab: ControllerLab) -> None:
    gone = {"kubernetes.io/service-account.name": "gone", "kubernetes.io/service-account.uid": "1-2-3"}
    for number in range(2):
        secret = obj("v1", "Secret", f"robot-{number}", metadata={"annotations": gone})
        await lab.create({**secret, "type": "kubernetes.io/service-account-token"})
    for name, seconds in (("old", -5), ("older", -500), ("new", 3600)):
        moment = (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        data = {"expiration": base64.b64encode(moment.encode()).decode()}
        secret = obj("v1", "Secret", f"bootstrap-token-{name}", "kube-system", data=data)
        await lab.create({**secret, "type": "bootstrap.kubernetes.io/token"})


# --- scale ------------------------------------------------------------------------------------------------------------


def autoscaled(lab: ControllerLab) -> bool:
    status = (lab.get(kinds.HORIZONTAL_POD_AUTOSCALER, "web") or {}).get("status", {})
    replicas = (lab.get(kinds.DEPLOYMENT, "web") or {}).get("spec", {}).get("replicas")
    return replicas == 5 and status.get("currentReplicas") == 5 and status.get("desiredReplicas") == 5


@scenario("horizontal-pod-autoscaler", done=autoscaled, kubelet=False, config={"autoscaler_seconds": 0.1})
async def too_few_replicas(lab: ControllerLab) -> None:
    await lab.create(deployment("web", 2))
    status = {"status": {"replicas": 2, "selector": "app=web"}}
    await lab.patch(kinds.DEPLOYMENT, "web", status, subresource="status")
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    spec = {"scaleTargetRef": target, "minReplicas": 5, "maxReplicas": 9, "metrics": []}
    await lab.create(obj("autoscaling/v2", "HorizontalPodAutoscaler", "web", spec=spec))


# --- definitions and sizes --------------------------------------------------------------------------------------------

WIDGETS = Kind("example.com", "v1", "Widget", "widgets")


@scenario(
    "customresourcedefinition-cleanup",
    done=lambda lab: not lab.list(kinds.CUSTOM_RESOURCE_DEFINITION) and not lab.list(WIDGETS),
    # Objects are deleted a namespace at a time: with a crash after the first, one of them is left.
    kubelet=False,
)
async def deleted_definition(lab: ControllerLab) -> None:
    names = {"plural": "widgets", "kind": "Widget"}
    spec = {"group": "example.com", "names": names, "scope": "Namespaced", "versions": [{"name": "v1", "served": True}]}
    metadata = {"finalizers": ["customresourcecleanup.apiextensions.k8s.io"]}
    definition = obj(
        "apiextensions.k8s.io/v1", "CustomResourceDefinition", "widgets.example.com", metadata=metadata, spec=spec
    )
    lab.server.serve(WIDGETS)
    await lab.create(definition)
    for namespace in ("default", "kube-system"):
        widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": namespace}}
        lab.server.state.create(WIDGETS, namespace, widget)
    await lab.delete(kinds.CUSTOM_RESOURCE_DEFINITION, "widgets.example.com")


PROTECTED = ["kubernetes.io/vac-protection"]
CLAIM_FINALIZER = "kubernetes.io/pvc-protection"


def classes_kept(lab: ControllerLab) -> bool:
    found = {c["metadata"]["name"]: c["metadata"].get("finalizers") for c in lab.list(kinds.VOLUME_ATTRIBUTES_CLASS)}
    return found == {"used": PROTECTED, "new": PROTECTED}


@scenario("volumeattributesclass-protection-controller", done=classes_kept, kubelet=False)
async def volume_attributes_classes(lab: ControllerLab) -> None:
    await lab.create(housekeeping.claim(volumeAttributesClassName="used"))
    for name in ("used", "unused", "new"):
        held = {"finalizers": PROTECTED} if name != "new" else {}
        await lab.create(obj("storage.k8s.io/v1", "VolumeAttributesClass", name, metadata=held, driverName="d.example"))
    for name in ("used", "unused"):
        await lab.delete(kinds.VOLUME_ATTRIBUTES_CLASS, name)


def used_kept(lab: ControllerLab) -> bool:
    found = {c["metadata"]["name"]: c["metadata"].get("finalizers") for c in lab.list(kinds.PERSISTENT_VOLUME_CLAIM)}
    return found == {"used": [CLAIM_FINALIZER]}


@scenario("persistentvolumeclaim-protection-controller", done=used_kept, kubelet=False, crashes_min=1)
async def used_claim(lab: ControllerLab) -> None:
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "used"}}]
    containers = [{"name": "c", "image": "i"}]
    await lab.create(obj("v1", "Pod", "p", spec={"nodeName": "n1", "containers": containers, "volumes": volumes}))
    for name in ("used", "unused"):
        wanted = housekeeping.claim()
        wanted["metadata"] |= {"name": name, "finalizers": [CLAIM_FINALIZER]}
        await lab.create(wanted)
        await lab.delete(kinds.PERSISTENT_VOLUME_CLAIM, name)


def grown(lab: ControllerLab) -> bool:
    volumes, claims = lab.list(kinds.PERSISTENT_VOLUME), lab.list(kinds.PERSISTENT_VOLUME_CLAIM)
    sizes = [each["spec"]["capacity"]["storage"] for each in volumes]
    return sizes + [each["status"]["capacity"]["storage"] for each in claims] == ["5Gi", "5Gi"]


@scenario("persistentvolume-expander", done=grown, kubelet=False)
async def larger_claim(lab: ControllerLab) -> None:
    wanted = housekeeping.claim(volumeName="v", volumeMode="Filesystem", storageClassName="local")
    wanted["spec"]["resources"]["requests"]["storage"] = "5Gi"
    made = await lab.create(wanted)
    reference = {
        "kind": "PersistentVolumeClaim",
        "namespace": "default",
        "name": "data",
        "uid": made["metadata"]["uid"],
    }
    spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "claimRef": reference}
    by = {"annotations": {"pv.kubernetes.io/provisioned-by": "cutaway.dev/local-path"}}
    await lab.create(obj("v1", "PersistentVolume", "v", metadata=by, spec={**spec, "hostPath": {"path": "/x"}}))
    status = {"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}
    await lab.patch(kinds.PERSISTENT_VOLUME_CLAIM, "data", status, subresource="status")


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_crash_after_any_write_ends_in_the_same_state(name: str) -> None:
    await crash_after_any_write(name, SCENARIOS[name])


@pytest.mark.parametrize(
    ("name", "kind", "most"),
    [
        ("claims_from_templates", kinds.RESOURCE_CLAIM, 4),
        ("claims_from_templates", kinds.POD, 4),
        ("claims_of_ended_pods", kinds.RESOURCE_CLAIM, 2),
        ("tainted_devices", kinds.RESOURCE_CLAIM, 5),
        ("tainted_devices", kinds.RESOURCE_SLICE, 1),
        ("tainted_devices", kinds.POD, 5),
        ("root_certificates", kinds.NAMESPACE, 5),
        ("signed_requests", kinds.CERTIFICATE_SIGNING_REQUEST, 3),
        ("deleted_definition", kinds.CUSTOM_RESOURCE_DEFINITION, 1),
        ("larger_claim", kinds.PERSISTENT_VOLUME, 1),
        ("too_few_replicas", kinds.HORIZONTAL_POD_AUTOSCALER, 1),
        ("volume_attributes_classes", kinds.VOLUME_ATTRIBUTES_CLASS, 3),
        ("volume_attributes_classes", kinds.PERSISTENT_VOLUME_CLAIM, 1),
        ("used_claim", kinds.POD, 1),
        ("expired_tokens", kinds.SERVICE_ACCOUNT, 3),
        # Of those that test_crashes_housekeeping.py crashes.
        ("pod_addresses", kinds.NODE, 6),
        ("load_balancers", kinds.SERVICE, 3),
        ("quota", kinds.RESOURCE_QUOTA, 1),
        ("namespace", kinds.NAMESPACE, 4),
        ("budget", kinds.POD, 3),
        ("lost_node", kinds.POD, 2),
        ("lost_node", kinds.NODE, 2),
        ("finished_job", kinds.JOB, 1),
        ("bound_volume", kinds.PERSISTENT_VOLUME, 1),
        ("accounts", kinds.SERVICE_ACCOUNT, 4),
        ("aggregated_role", kinds.CLUSTER_ROLE, 3),
        ("mirrored_endpoints", kinds.ENDPOINT_SLICE, 1),
        ("protection", kinds.PERSISTENT_VOLUME_CLAIM, 1),
        ("node_ttl", kinds.NODE, 6),
        ("ranges", kinds.SERVICE_CIDR, 2),
    ],
)
async def test_who_sees_an_old_state_does_no_harm(name: str, kind: Kind, most: int) -> None:
    chosen = SCENARIOS.get(name) or housekeeping.SCENARIOS[name]
    await stand_still(name, chosen, kind, most)
