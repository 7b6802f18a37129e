"""The controllers around the workloads die with their k-th write too, and end in the same state.

`test_crashes.py` has the workloads themselves. CI takes every other k; `make torture` takes all.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from machinery.api import kinds
from machinery.api.kinds import Kind
from tests.support.controllers import ControllerLab, deployment, pod_template, ready_status
from tests.support.crashes import Scenarios, crash_after_any_write, obj, stand_still

pytestmark = pytest.mark.torture


async def running_pods(lab: ControllerLab, count: int, app: str = "web") -> None:
    """Pods that nobody owns, ready."""
    for number in range(count):
        spec = pod_template({}, nodeName="n1")["spec"]
        await lab.create(obj("v1", "Pod", f"{app}-{number}", metadata={"labels": {"app": app}}, spec=spec))
        await lab.set_pod(f"{app}-{number}", **ready_status(f"10.244.0.{number + 10}"))


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 80}]
    return obj("v1", "Service", name, spec={"ports": ports, "clusterIP": "10.96.0.5", "ipFamilies": ["IPv4"], **spec})


SCENARIOS = Scenarios()
scenario = SCENARIOS.scenario


def ready_addresses(lab: ControllerLab) -> list[str]:
    return sorted(
        address
        for each in lab.list(kinds.ENDPOINT_SLICE)
        for endpoint in each["endpoints"]
        if endpoint["conditions"]["ready"]
        for address in endpoint["addresses"]
    )


@scenario("replicationcontroller", done=lambda lab: len(lab.list(kinds.POD)) == 4 == len(lab.ready_pods()))
async def replication_controller(lab: ControllerLab) -> None:
    template = pod_template({"app": "web"})
    await lab.create(
        obj(
            "v1", "ReplicationController", "web", spec={"replicas": 4, "selector": {"app": "web"}, "template": template}
        )
    )


def ticked(lab: ControllerLab) -> bool:
    jobs = lab.list(kinds.JOB)
    status = (lab.get(kinds.CRON_JOB, "tick") or {}).get("status", {})
    active = [each["name"] for each in status.get("active") or ()]
    return len(jobs) == 1 and active == [jobs[0]["metadata"]["name"]] and status["lastScheduleTime"] > "2026-01-02"


@scenario("cronjob", done=ticked, kubelet=False)
async def cron_job(lab: ControllerLab) -> None:
    # Its last run was long ago, and the next one not for months: one run is due, now.
    now = datetime.now(UTC)
    past = (now - timedelta(hours=1)).replace(minute=0, second=0)
    month = (now.month + 5) % 12 + 1
    template = {"spec": {"template": pod_template({}, restartPolicy="Never")}}
    schedule = f"30 {past.hour} {past.day} {past.month},{month} *"
    spec = {"schedule": schedule, "jobTemplate": template, "concurrencyPolicy": "Allow", "timeZone": "Etc/UTC"}
    last = (past - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    await lab.create(obj("batch/v1", "CronJob", "tick", spec=spec))
    await lab.patch(kinds.CRON_JOB, "tick", {"status": {"lastScheduleTime": last}}, subresource="status")


@scenario(
    "endpointslice", "endpoints",
    done=lambda lab: len(ready_addresses(lab)) == 3
    and len(lab.list(kinds.ENDPOINT_SLICE)) == 1
    and len((lab.get(kinds.ENDPOINTS, "web") or {}).get("subsets", [{}])[0].get("addresses", [])) == 3,
)  # fmt: skip
async def endpoints(lab: ControllerLab) -> None:
    await running_pods(lab, 3)
    await lab.create(service(selector={"app": "web"}))


@scenario("endpointslice-mirroring", done=lambda lab: ready_addresses(lab) == ["192.0.2.9"], crashes_min=1)
async def mirrored_endpoints(lab: ControllerLab) -> None:
    await lab.create(service())
    subset = {"addresses": [{"ip": "192.0.2.9"}], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}
    await lab.create(obj("v1", "Endpoints", "web", subsets=[subset]))


@scenario(
    "disruption",
    done=lambda lab: (
        (lab.get(kinds.POD_DISRUPTION_BUDGET, "web") or {}).get("status", {}).get("disruptionsAllowed") == 1
    ),
    crashes_min=1,
)
async def budget(lab: ControllerLab) -> None:
    await running_pods(lab, 3)
    selector = {"matchLabels": {"app": "web"}}
    await lab.create(obj("policy/v1", "PodDisruptionBudget", "web", spec={"minAvailable": 2, "selector": selector}))


@scenario(
    "resourcequota",
    done=lambda lab: (lab.get(kinds.RESOURCE_QUOTA, "q") or {}).get("status", {}).get("used") == {"pods": "3"},
    crashes_min=1,
)
async def quota(lab: ControllerLab) -> None:
    await running_pods(lab, 3)
    await lab.create(obj("v1", "ResourceQuota", "q", spec={"hard": {"pods": "9"}}))


@scenario(
    "namespace",
    done=lambda lab: (
        not lab.list(kinds.CONFIG_MAP, "team")
        and not lab.list(kinds.SECRET, "team")
        and not (lab.get(kinds.NAMESPACE, "team") or {}).get("spec", {}).get("finalizers")
    ),
    kubelet=False,
)
async def namespace(lab: ControllerLab) -> None:
    held = {"finalizers": ["test/hold"]}
    await lab.create(obj("v1", "Namespace", "team", metadata=held, spec={"finalizers": ["kubernetes"]}))
    for number in range(2):
        await lab.create(obj("v1", "ConfigMap", f"c{number}", "team"))
        await lab.create(obj("v1", "Secret", f"s{number}", "team"))
    await lab.delete(kinds.NAMESPACE, "team")


@scenario(
    "serviceaccount",
    done=lambda lab: len(lab.list(kinds.SERVICE_ACCOUNT)) == len(lab.list(kinds.NAMESPACE)) == 4,
    kubelet=False,
)
async def accounts(lab: ControllerLab) -> None:
    await lab.create(obj("v1", "Namespace", "team", spec={"finalizers": ["kubernetes"]}))


def cidrs(lab: ControllerLab) -> list[str]:
    return [text for node in lab.list(kinds.NODE) for text in node.get("spec", {}).get("podCIDRs") or ()]


@scenario("node-ipam", done=lambda lab: len(set(cidrs(lab))) == 6 == len(cidrs(lab)), kubelet=False)
async def pod_addresses(lab: ControllerLab) -> None:
    for number in range(4):
        await lab.add_node(f"x{number}")


def taints(lab: ControllerLab, node: str) -> set[tuple[str, str]]:
    return {(t["key"], t["effect"]) for t in lab.get(kinds.NODE, node).get("spec", {}).get("taints") or []}


@scenario(
    "node-lifecycle", "taint-eviction-controller",
    done=lambda lab: len(taints(lab, "n1")) == 2 and not lab.list(kinds.POD),
)  # fmt: skip
async def lost_node(lab: ControllerLab) -> None:
    await running_pods(lab, 2)
    condition = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    await lab.patch(kinds.NODE, "n1", {"status": {"conditions": [condition]}}, subresource="status")


@scenario(
    "ttl-controller",
    done=lambda lab: all(
        node["metadata"].get("annotations", {}).get("node.alpha.kubernetes.io/ttl") == "0"
        for node in lab.list(kinds.NODE)
    ),
    kubelet=False,
)
async def node_ttl(lab: ControllerLab) -> None:
    for number in range(4):
        await lab.add_node(f"x{number}")


@scenario(
    "pod-garbage-collector",
    done=lambda lab: [pod["metadata"]["name"] for pod in lab.list(kinds.POD)] == ["p3"],
    kubelet=False,
    config={"terminated_pod_threshold": 1},
)
async def ended_pods(lab: ControllerLab) -> None:
    for number in range(4):
        await lab.create(obj("v1", "Pod", f"p{number}", spec=pod_template({})["spec"]))
        await lab.set_pod(f"p{number}", phase="Succeeded")
    seen = next(iter(lab.manager.controllers.values())).lister(kinds.POD)
    await lab.until(lambda: [pod.status.phase for pod in seen] == ["Succeeded"] * 4)
    await lab.resync()


@scenario(
    "ttl-after-finished-controller", "garbage-collector",
    done=lambda lab: not lab.list(kinds.JOB) and not lab.list(kinds.CONFIG_MAP), kubelet=False,
)  # fmt: skip
async def finished_job(lab: ControllerLab) -> None:
    spec = {"ttlSecondsAfterFinished": 0, "template": pod_template({}, restartPolicy="Never")}
    job = await lab.create(obj("batch/v1", "Job", "work", spec=spec))
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "work", "uid": job["metadata"]["uid"]}
    owner |= {"controller": True, "blockOwnerDeletion": True}
    for number in range(2):
        await lab.create(obj("v1", "ConfigMap", f"c{number}", metadata={"ownerReferences": [owner]}))
    ended = {"type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = {"conditions": [ended], "completionTime": "2026-01-01T00:00:00Z"}
    await lab.patch(kinds.JOB, "work", {"status": status}, subresource="status")


def claim(**spec: Any) -> dict[str, Any]:
    size = {"requests": {"storage": "1Gi"}}
    return obj(
        "v1", "PersistentVolumeClaim", "data", spec={"accessModes": ["ReadWriteOnce"], "resources": size, **spec}
    )


def bound(lab: ControllerLab) -> bool:
    volumes, claims = lab.list(kinds.PERSISTENT_VOLUME), lab.list(kinds.PERSISTENT_VOLUME_CLAIM)
    phases = [each.get("status", {}).get("phase") for each in (*volumes, *claims)]
    return (
        phases == ["Bound", "Bound"]
        and claims[0]["spec"]["volumeName"] == volumes[0]["metadata"]["name"]
        and volumes[0]["spec"]["claimRef"]["uid"] == claims[0]["metadata"]["uid"]
    )


@scenario("persistentvolume-binder", done=bound, kubelet=False)
async def bound_volume(lab: ControllerLab) -> None:
    spec = {"capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}
    await lab.create(obj("v1", "PersistentVolume", "v", spec={**spec, "volumeMode": "Filesystem"}))
    await lab.create(claim(storageClassName="", volumeMode="Filesystem"))


@scenario("persistentvolume-binder", "local-path-provisioner", done=bound, kubelet=False)
async def provisioned_volume(lab: ControllerLab) -> None:
    await lab.create(
        obj(
            "storage.k8s.io/v1", "StorageClass", "local", provisioner="cutaway.dev/local-path",
            volumeBindingMode="WaitForFirstConsumer", reclaimPolicy="Delete",
        )
    )  # fmt: skip
    wanted = claim(storageClassName="local", volumeMode="Filesystem")
    wanted["metadata"]["annotations"] = {"volume.kubernetes.io/selected-node": "n1"}
    await lab.create(wanted)


@scenario(
    "ephemeral-volume-controller",
    done=lambda lab: [c["metadata"]["name"] for c in lab.list(kinds.PERSISTENT_VOLUME_CLAIM)] == ["p-scratch"],
    kubelet=False,
    crashes_min=1,
)
async def ephemeral_volume(lab: ControllerLab) -> None:
    template = {"spec": claim()["spec"]}
    volume = {"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}
    await lab.create(obj("v1", "Pod", "p", spec={**pod_template({})["spec"], "volumes": [volume]}))


def protected(lab: ControllerLab) -> bool:
    return all(
        any(name.startswith("kubernetes.io/pv") for name in each["metadata"].get("finalizers", ()))
        for each in (*lab.list(kinds.PERSISTENT_VOLUME), *lab.list(kinds.PERSISTENT_VOLUME_CLAIM))
    )


@scenario(
    "persistentvolumeclaim-protection-controller", "persistentvolume-protection-controller",
    done=protected, kubelet=False,
)  # fmt: skip
async def protection(lab: ControllerLab) -> None:
    for name in ("v", "w"):
        spec = {"capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}
        await lab.create(obj("v1", "PersistentVolume", name, spec=spec))
    await lab.create(claim())


@scenario(
    "clusterrole-aggregation",
    done=lambda lab: len((lab.get(kinds.CLUSTER_ROLE, "all") or {}).get("rules") or ()) == 2,
    kubelet=False,
    crashes_min=1,
)
async def aggregated_role(lab: ControllerLab) -> None:
    for number in range(2):
        rule = {"apiGroups": [""], "resources": [f"r{number}"], "verbs": ["get"]}
        labels = {"labels": {"into": "all"}}
        await lab.create(
            obj("rbac.authorization.k8s.io/v1", "ClusterRole", f"part{number}", metadata=labels, rules=[rule])
        )
    selectors = {"clusterRoleSelectors": [{"matchLabels": {"into": "all"}}]}
    await lab.create(obj("rbac.authorization.k8s.io/v1", "ClusterRole", "all", aggregationRule=selectors, rules=[]))


def balanced(lab: ControllerLab) -> bool:
    found = [
        entry["ip"]
        for each in lab.list(kinds.SERVICE)
        for entry in each.get("status", {}).get("loadBalancer", {}).get("ingress") or ()
    ]
    return len(set(found)) == 3 == len(found)


@scenario("service-lb-controller", done=balanced, kubelet=False, config={"load_balancer_addresses": ["192.0.2.0/28"]})
async def load_balancers(lab: ControllerLab) -> None:
    for number in range(3):
        await lab.create(service(f"s{number}", type="LoadBalancer", selector={"app": "x"}))


def signed(lab: ControllerLab) -> bool:
    data = (lab.get(kinds.CONFIG_MAP, "cluster-info", "kube-public") or {}).get("data", {})
    return set(data) == {"kubeconfig", "jws-kubeconfig-abcdef"}


@scenario("bootstrap-signer-controller", done=signed, kubelet=False, crashes_min=1)
async def signed_cluster_info(lab: ControllerLab) -> None:
    await lab.create(obj("v1", "Namespace", "kube-public", spec={"finalizers": ["kubernetes"]}))
    values = {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-signing": "true"}
    data = {name: base64.b64encode(text.encode()).decode() for name, text in values.items()}
    secret = obj("v1", "Secret", "bootstrap-token-abcdef", "kube-system", data=data)
    await lab.create({**secret, "type": "bootstrap.kubernetes.io/token"})
    await lab.create(
        obj("v1", "ConfigMap", "cluster-info", "kube-public", data={"kubeconfig": "x", "jws-kubeconfig-old": "y"})
    )


RANGE: Kind = kinds.SERVICE_CIDR


def ranges_ready(lab: ControllerLab) -> bool:
    return all(
        each["metadata"].get("finalizers") and each.get("status", {}).get("conditions", [{}])[0].get("status") == "True"
        for each in lab.list(RANGE)
    )


@scenario("service-cidr-controller", done=ranges_ready, kubelet=False)
async def ranges(lab: ControllerLab) -> None:
    for number in range(2):
        await lab.create(
            obj("networking.k8s.io/v1", "ServiceCIDR", f"r{number}", spec={"cidrs": [f"10.{number}.0.0/16"]})
        )


@scenario(
    "deployment", "replicaset", "garbage-collector",
    done=lambda lab: not lab.list(kinds.DEPLOYMENT)
    and len(lab.list(kinds.REPLICA_SET)) == 1
    and not lab.list(kinds.REPLICA_SET)[0]["metadata"].get("ownerReferences")
    and len(lab.ready_pods()) == 2,
)  # fmt: skip
async def orphaned(lab: ControllerLab) -> None:
    planned, lab.crash_at = lab.crash_at, None
    await lab.create(deployment("web", 2))
    await lab.until(lambda: len(lab.ready_pods()) == 2)
    await lab.quiet(0.1)
    lab.crash_after(planned)
    await lab.delete(kinds.DEPLOYMENT, "web", propagation="Orphan")


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_crash_after_any_write_ends_in_the_same_state(name: str) -> None:
    await crash_after_any_write(name, SCENARIOS[name])


@pytest.mark.parametrize(
    ("name", "kind", "most"),
    [
        ("endpoints", kinds.ENDPOINT_SLICE, 1),
        ("cron_job", kinds.JOB, 1),
        ("provisioned_volume", kinds.PERSISTENT_VOLUME, 1),
        ("ephemeral_volume", kinds.PERSISTENT_VOLUME_CLAIM, 1),
        ("replication_controller", kinds.POD, 4),
    ],
)
async def test_who_does_not_see_what_it_made_makes_it_once(name: str, kind: Kind, most: int) -> None:
    await stand_still(name, SCENARIOS[name], kind, most)
