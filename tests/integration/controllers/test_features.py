"""Workloads and housekeeping on the real apiserver and the real controller-manager process, driven by kubectl."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.control_plane import ControlPlane
from tests.support.controllers import deployment, pod_template

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ControlPlane]:
    directory = tmp_path_factory.mktemp("plane")
    async with ControlPlane(
        directory, load_balancer_addresses=["192.0.2.0/28"], unmatched_selector_seconds=0.5
    ) as plane:
        yield plane
        refused = [line for line in plane.log.splitlines() if "cannot " in line and "forbidden" in line]
        assert not refused, f"the controller-manager lacks rights: {refused[:3]}"


async def get(plane: ControlPlane, *arguments: str) -> Any:
    return json.loads(await plane.kubectl("get", *arguments, "-o", "json"))


async def apply(plane: ControlPlane, *objects: dict[str, Any]) -> None:
    for obj in objects:
        await plane.kubectl("apply", "-f", "-", stdin=obj)


async def until(plane: ControlPlane, what: str, condition: Any, *arguments: str) -> None:
    async def holds() -> bool:
        return bool(condition(await get(plane, *arguments)))

    await plane.until(holds, what)


async def test_a_job_completes_and_its_pods_are_free(plane: ControlPlane) -> None:
    template = pod_template({"ends": "Succeeded"}, restartPolicy="Never")
    spec = {"completions": 3, "parallelism": 2, "completionMode": "Indexed", "template": template}
    await apply(plane, {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "work"}, "spec": spec})
    out = await plane.kubectl("wait", "--for=condition=complete", "job/work", "--timeout=20s")
    assert "condition met" in out
    status = (await get(plane, "job", "work"))["status"]
    assert (status["succeeded"], status["completedIndexes"]) == (3, "0-2")
    pods = (await get(plane, "pods", "-l", "job-name=work"))["items"]
    assert len(pods) == 3
    assert not any(pod["metadata"].get("finalizers") for pod in pods)
    await plane.kubectl("delete", "job", "work", "--timeout=20s")


async def test_a_cron_job_can_be_run_by_hand(plane: ControlPlane) -> None:
    template = {"spec": {"template": pod_template({"ends": "Succeeded"}, restartPolicy="Never")}}
    spec = {"schedule": "0 0 1 1 *", "jobTemplate": template}
    await apply(plane, {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick"}, "spec": spec})
    await plane.kubectl("create", "job", "tock", "--from=cronjob/tick")
    await plane.kubectl("wait", "--for=condition=complete", "job/tock", "--timeout=20s")
    await plane.kubectl("delete", "cronjob", "tick", "--timeout=20s")


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
async def test_sets_roll_and_undo(plane: ControlPlane, kind: str) -> None:
    name = kind.lower()
    spec: dict[str, Any] = {"selector": {"matchLabels": {"app": name}}, "template": pod_template({"app": name})}
    if kind == "StatefulSet":
        spec |= {"replicas": 2, "serviceName": name}
    await apply(plane, {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
    for command in (("set", "image", f"{name}/{name}", "c=nginx:2"), ("rollout", "undo", f"{name}/{name}")):
        await plane.kubectl("rollout", "status", f"{name}/{name}", "--timeout=20s")
        await plane.kubectl(*command)
    await plane.kubectl("rollout", "status", f"{name}/{name}", "--timeout=20s")
    pods = (await get(plane, "pods", "-l", f"app={name}"))["items"]
    assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {"nginx:1"}
    assert len(pods) == 2
    history = await plane.kubectl("rollout", "history", f"{name}/{name}")
    assert [line.split()[0] for line in history.strip().splitlines()[2:]] == ["2", "3"]
    await plane.kubectl("delete", name, name, "--timeout=20s")


async def test_a_budget_holds_an_eviction_back(plane: ControlPlane) -> None:
    await apply(plane, deployment("guarded", 2))
    await plane.kubectl("rollout", "status", "deployment/guarded", "--timeout=20s")
    await plane.kubectl("create", "pdb", "guard", "--selector=app=guarded", "--min-available=2")
    await until(plane, "budget is counted", lambda b: b["status"].get("currentHealthy") == 2, "pdb", "guard")
    pod = (await get(plane, "pods", "-l", "app=guarded"))["items"][0]["metadata"]["name"]
    path = f"/api/v1/namespaces/default/pods/{pod}/eviction"
    eviction = json.dumps({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}})
    refused = await plane.kubectl("create", "--raw", path, "-f", "-", stdin=eviction, check=False)
    assert "disruption budget" in refused
    await plane.kubectl("patch", "pdb", "guard", "--type=merge", "-p", '{"spec":{"minAvailable":1}}')
    await until(plane, "one may go", lambda b: b["status"].get("disruptionsAllowed") == 1, "pdb", "guard")
    await plane.kubectl("create", "--raw", path, "-f", "-", stdin=eviction)
    await until(plane, "replaced", lambda d: d["status"].get("readyReplicas") == 2, "deployment", "guarded")
    await plane.kubectl("delete", "deployment,pdb", "--all", "--timeout=20s")


async def test_a_quota_counts_up_and_down(plane: ControlPlane) -> None:
    await apply(plane, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "small"}})
    await plane.kubectl("-n", "small", "create", "quota", "q", "--hard=pods=2,count/configmaps=9")
    await until(plane, "counted", lambda q: q.get("status", {}).get("used"), "-n", "small", "quota", "q")
    await plane.kubectl("-n", "small", "apply", "-f", "-", stdin={**deployment("web", 3), "metadata": {"name": "web"}})
    await until(plane, "full", lambda q: q["status"]["used"].get("pods") == "2", "-n", "small", "quota", "q")
    await until(
        plane,
        "the failure is told",
        lambda d: any(c["type"] == "ReplicaFailure" and "exceeded" in c["message"] for c in d["status"]["conditions"]),
        "-n", "small", "deployment", "web",
    )  # fmt: skip
    await plane.kubectl("-n", "small", "scale", "deployment/web", "--replicas=1")
    await until(plane, "less", lambda q: q["status"]["used"]["pods"] == "1", "-n", "small", "quota", "q")
    await plane.kubectl("delete", "namespace", "small", "--timeout=20s")


async def test_a_claim_gets_a_local_volume_on_the_chosen_node_and_grows(plane: ControlPlane) -> None:
    storage_class = {
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "standard"},
        "provisioner": "cutaway.dev/local-path", "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": True,
    }  # fmt: skip
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "standard",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": spec}
    await apply(plane, storage_class, claim)
    await until(plane, "waits", lambda c: c["status"].get("phase") == "Pending", "pvc", "data")
    await plane.kubectl("annotate", "pvc", "data", "volume.kubernetes.io/selected-node=n1")
    await until(plane, "bound", lambda c: c["status"].get("phase") == "Bound", "pvc", "data")
    volume = (await get(plane, "pv"))["items"][0]
    assert volume["status"]["phase"] == "Bound"
    assert volume["metadata"]["finalizers"] == ["kubernetes.io/pv-protection"]
    await plane.kubectl("patch", "pvc", "data", "-p", '{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}')
    await until(plane, "grown", lambda c: c["status"]["capacity"]["storage"] == "2Gi", "pvc", "data")
    await plane.kubectl("delete", "pvc", "data", "--timeout=20s")
    await until(plane, "volume removed", lambda found: not found["items"], "pv")


async def test_a_nodes_certificate_request_is_approved_and_signed(plane: ControlPlane) -> None:
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes")]
    names.append(x509.NameAttribute(NameOID.COMMON_NAME, "system:node:n1"))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    pem = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(
        serialization.Encoding.PEM
    )
    spec = {
        "request": base64.b64encode(pem).decode(),
        "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
        "usages": ["digital signature", "client auth"],
    }
    for name in ("granted", "by-hand"):
        obj = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name}}
        await apply(plane, {**obj, "spec": spec})
    # The administrator may ask on a node's behalf, and approves by hand what nobody has the right to approve alone.
    await plane.kubectl("certificate", "approve", "by-hand")
    await until(plane, "signed", lambda r: r["status"].get("certificate"), "csr", "by-hand")
    await until(plane, "signed alone", lambda r: r["status"].get("certificate"), "csr", "granted")


async def test_aggregated_roles_and_load_balancer_addresses(plane: ControlPlane) -> None:
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole"}
    label = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
    rule = {"apiGroups": ["example.com"], "resources": ["things"], "verbs": ["get"]}
    await apply(plane, {**role, "metadata": {"name": "things", "labels": label}, "rules": [rule]})
    await until(plane, "aggregated", lambda view: rule in view["rules"], "clusterrole", "view")
    ports = [{"port": 80}]
    spec = {"type": "LoadBalancer", "selector": {"app": "x"}, "ports": ports}
    await apply(plane, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "lb"}, "spec": spec})
    await until(
        plane,
        "an address",
        lambda s: s["status"]["loadBalancer"].get("ingress", [{}])[0].get("ip") == "192.0.2.1",
        "svc",
        "lb",
    )
    await plane.kubectl("delete", "svc", "lb", "--timeout=20s")


async def test_a_custom_definition_goes_with_its_objects(plane: ControlPlane) -> None:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    names = {"plural": "gadgets", "singular": "gadget", "kind": "Gadget"}
    counted = "count/gadgets.example.com"
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    crd = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
           "metadata": {"name": "gadgets.example.com"}, "spec": spec}  # fmt: skip
    await apply(plane, crd)
    await plane.kubectl("wait", "--for=condition=established", "crd/gadgets.example.com", "--timeout=20s")
    owner = {"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": "owner"}}
    await apply(plane, owner)
    uid = (await get(plane, "gadget", "owner"))["metadata"]["uid"]
    reference = {"apiVersion": "example.com/v1", "kind": "Gadget", "name": "owner", "uid": uid}
    child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "child", "ownerReferences": [reference]}}
    await apply(plane, child)
    await plane.kubectl("delete", "gadget", "owner", "--timeout=20s")
    await until(
        plane,
        "custom garbage goes",
        lambda found: "child" not in [c["metadata"]["name"] for c in found["items"]],
        "configmaps",
    )
    await plane.kubectl("create", "quota", "gadgets", "--hard=count/gadgets.example.com=5")
    await until(plane, "none", lambda q: q.get("status", {}).get("used", {}).get(counted) == "0", "quota", "gadgets")
    await apply(plane, {**owner, "metadata": {"name": "left"}}, {**owner, "metadata": {"name": "short-lived"}})
    await until(plane, "two", lambda q: q["status"]["used"][counted] == "2", "quota", "gadgets")
    await plane.kubectl("delete", "gadget", "short-lived", "--timeout=20s")
    await until(plane, "one", lambda q: q["status"]["used"][counted] == "1", "quota", "gadgets")
    await plane.kubectl("delete", "quota", "gadgets")
    await plane.kubectl("delete", "crd", "gadgets.example.com", "--timeout=20s")


async def test_the_controller_manager_tells_and_obeys(plane: ControlPlane) -> None:
    import grpc

    from machinery.component.tls import channel_credentials
    from protos.cutaway.v1 import controller_manager_pb2 as pb
    from protos.cutaway.v1 import controller_manager_pb2_grpc
    from tests.support.apiserver_process import files

    target = f"127.0.0.1:{plane.grpc_port}"
    async with grpc.aio.secure_channel(target, channel_credentials(files(plane.server.admin))) as channel:
        stub = controller_manager_pb2_grpc.ControllerManagerStub(channel)
        answer = await stub.ListControllers(pb.ListControllersRequest())
        assert answer.leading
        states = {state.name: state for state in answer.controllers}
        assert states["deployment"].running
        assert (await stub.Pause(pb.PauseRequest(controller="deployment"))).paused
        await apply(plane, deployment("paused", 1))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Pause(pb.PauseRequest(controller="nobody"))
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        assert not (await get(plane, "replicasets"))["items"]
        await stub.Resume(pb.ResumeRequest(controller="deployment"))
        await plane.kubectl("rollout", "status", "deployment/paused", "--timeout=20s")
        await stub.Resync(pb.ResyncRequest(controller="deployment"))


async def test_a_selector_that_matches_nothing_and_a_range_that_is_the_pods_are_told(plane: ControlPlane) -> None:
    def told(reason: str, words: str) -> Any:
        return lambda got: any(e["reason"] == reason and words in e["message"] for e in got["items"])

    service = {"metadata": {"name": "nobody"}, "spec": {"selector": {"app": "misspelt"}, "ports": [{"port": 80}]}}
    await apply(plane, {"apiVersion": "v1", "kind": "Service", **service})
    await until(plane, "its event", told("NoMatchingPods", "app=misspelt matches no pod"), "events")
    taken = {"metadata": {"name": "taken"}, "spec": {"cidrs": ["10.244.9.0/24"]}}
    await apply(plane, {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", **taken})
    await until(plane, "its event", told("RangeOverlaps", "overlaps the pods' range 10.244.0.0/16"), "events")
    await plane.kubectl("delete", "service", "nobody")
    await plane.kubectl("delete", "servicecidr", "taken", "--timeout=30s", "--wait=false")
