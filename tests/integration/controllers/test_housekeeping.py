"""Endpoints, namespaces, garbage, accounts and nodes through a real gRPC apiserver (in memory)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from machinery.api import kinds
from machinery.api.kinds import Kind
from tests.support.controllers import ControllerLab, deployment
from tests.support.crashes import obj

WIDGET = Kind("example.com", "v1", "Widget", "widgets")


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"}]
    body = {"selector": {"app": name}, "ports": ports, "clusterIP": "10.96.0.5", "ipFamilies": ["IPv4"], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": body}


async def test_ready_pods_become_endpoints_and_leave_when_they_are_deleted() -> None:
    async with ControllerLab("deployment", "replicaset", "endpointslice", "endpoints") as lab:
        await lab.create(service())
        await lab.create(deployment("web", 3))

        def ready() -> set[str]:
            return {
                endpoint["targetRef"]["name"]
                for entry in lab.list(kinds.ENDPOINT_SLICE)
                for endpoint in entry["endpoints"]
                if endpoint["conditions"]["ready"]
            }

        await lab.until(lambda: len(ready()) == 3)
        entry = next(entry for entry in lab.list(kinds.ENDPOINT_SLICE) if entry["endpoints"])
        assert entry["ports"] == [{"name": "http", "protocol": "TCP", "port": 80}]
        assert entry["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
        assert entry["metadata"]["ownerReferences"][0]["kind"] == "Service"
        await lab.until(
            lambda: len((lab.get(kinds.ENDPOINTS, "web") or {}).get("subsets", [{}])[0].get("addresses", [])) == 3
        )
        await lab.patch(kinds.DEPLOYMENT, "web", {"spec": {"replicas": 1}})
        await lab.until(lambda: ready() == {pod["metadata"]["name"] for pod in lab.pods()} and len(ready()) == 1)
        await lab.quiet()
        assert len(lab.list(kinds.ENDPOINT_SLICE)) == 1


async def test_a_deleted_namespace_is_emptied_and_goes() -> None:
    async with ControllerLab("namespace", "serviceaccount") as lab:
        lab.server.serve(WIDGET)
        metadata = {"name": "team", "finalizers": ["test/hold"]}
        spec = {"finalizers": ["kubernetes"]}
        await lab.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata, "spec": spec})
        await lab.until(lambda: lab.get(kinds.SERVICE_ACCOUNT, "default", "team"))
        held = {"name": "held", "namespace": "team", "finalizers": ["test/wait"]}
        await lab.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": held})
        lab.server.state.create(WIDGET, "team", {"metadata": {"name": "w", "namespace": "team"}})
        lab.server.notify()
        await lab.delete(kinds.NAMESPACE, "team")

        def conditions() -> dict[str, Any]:
            return {c["type"]: c for c in lab.get(kinds.NAMESPACE, "team").get("status", {}).get("conditions", [])}

        await lab.until(lambda: conditions().get("NamespaceFinalizersRemaining", {}).get("status") == "True")
        message = conditions()["NamespaceContentRemaining"]["message"]
        assert message == "Some resources are remaining: configmaps. has 1 resource instances"
        assert not lab.list(WIDGET, "team")
        await lab.patch(kinds.CONFIG_MAP, "held", {"metadata": {"finalizers": None}}, "team")
        await lab.until(lambda: lab.get(kinds.NAMESPACE, "team")["spec"].get("finalizers") == [])


async def test_garbage_follows_its_owner_in_all_three_ways_and_for_custom_kinds() -> None:
    async with ControllerLab("deployment", "replicaset", "garbage-collector") as lab:
        for name in ("back", "fore", "keep"):
            await lab.create(deployment(name, 2))
        await lab.until(lambda: len(lab.ready_pods()) == 6)
        await lab.quiet()
        for name, propagation in (("back", "Background"), ("fore", "Foreground"), ("keep", "Orphan")):
            await lab.delete(kinds.DEPLOYMENT, name, propagation=propagation)
        await lab.until(lambda: not lab.list(kinds.DEPLOYMENT), "deployments gone")
        await lab.until(lambda: {pod["metadata"]["labels"]["app"] for pod in lab.list(kinds.POD)} == {"keep"})
        (kept,) = lab.list(kinds.REPLICA_SET)
        assert not kept["metadata"].get("ownerReferences")
        await lab.create(deployment("keep", 2))
        await lab.until(lambda: lab.list(kinds.REPLICA_SET)[0]["metadata"].get("ownerReferences"), "adopted")
        await lab.quiet()
        assert len(lab.list(kinds.REPLICA_SET)) == 1


async def test_a_dependent_of_an_owner_that_never_was_is_collected_and_one_with_two_owners_stays() -> None:
    async with ControllerLab("garbage-collector", kubelet=False) as lab:
        owner = await lab.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "real"}})

        def ref(name: str, uid: str) -> dict[str, Any]:
            return {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid}

        gone = ref("gone", "0-0")
        real = ref("real", owner["metadata"]["uid"])
        for name, owners in (("alone", [gone]), ("shared", [gone, real])):
            meta = {"name": name, "ownerReferences": owners}
            await lab.create({"apiVersion": "v1", "kind": "Secret", "metadata": meta})
        await lab.until(lambda: lab.get(kinds.SECRET, "alone") is None)
        await lab.until(lambda: lab.get(kinds.SECRET, "shared")["metadata"]["ownerReferences"] == [real])


async def test_every_namespace_has_its_account_and_root_certificate(tmp_path: Path) -> None:
    ca = tmp_path / "ca.crt"
    ca.write_text("CERTIFICATE")
    names = ("serviceaccount", "root-ca-certificate-publisher")
    async with ControllerLab(*names, kubelet=False, root_ca_file=str(ca)) as lab:
        await lab.until(lambda: lab.get(kinds.SERVICE_ACCOUNT, "default", "kube-system"))
        await lab.until(lambda: lab.get(kinds.CONFIG_MAP, "kube-root-ca.crt", "default"))
        await lab.patch(kinds.CONFIG_MAP, "kube-root-ca.crt", {"data": {"ca.crt": "EVIL"}})
        await lab.until(lambda: lab.get(kinds.CONFIG_MAP, "kube-root-ca.crt")["data"] == {"ca.crt": "CERTIFICATE"})
        await lab.delete(kinds.SERVICE_ACCOUNT, "default")
        await lab.until(lambda: lab.get(kinds.SERVICE_ACCOUNT, "default"))


async def test_each_node_gets_addresses_of_its_own() -> None:
    async with ControllerLab("node-ipam", nodes=5, kubelet=False, cluster_cidrs=["10.1.0.0/16"]) as lab:
        await lab.until(lambda: all("podCIDR" in node.get("spec", {}) for node in lab.list(kinds.NODE)))
        assert len({node["spec"]["podCIDR"] for node in lab.list(kinds.NODE)}) == 5


async def test_an_unready_node_is_tainted_and_its_pods_leave_when_they_do_not_tolerate_it() -> None:
    async with ControllerLab("node-lifecycle", "taint-eviction-controller", nodes=3) as lab:
        meta = {"name": "p", "namespace": "default"}
        await lab.create(
            {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"nodeName": "n1", "containers": []}}
        )
        await lab.until(lambda: len(lab.ready_pods()) == 1)
        condition = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        await lab.patch(kinds.NODE, "n1", {"status": {"conditions": [condition]}}, subresource="status")

        def taints() -> set[tuple[str, str]]:
            return {(t["key"], t["effect"]) for t in lab.get(kinds.NODE, "n1").get("spec", {}).get("taints") or []}

        key = "node.kubernetes.io/not-ready"
        await lab.until(lambda: taints() == {(key, "NoSchedule"), (key, "NoExecute")})
        await lab.until(lambda: lab.get(kinds.POD, "p") is None)
        await lab.patch(
            kinds.NODE, "n1", {"status": {"conditions": [{**condition, "status": "True"}]}}, subresource="status"
        )
        await lab.until(lambda: not taints())


async def test_what_goes_or_can_not_go_is_told_in_events() -> None:
    async with ControllerLab("node-lifecycle", "disruption") as lab:
        await lab.until(lambda: len(lab.events("RegisteredNode")) == 2)
        await lab.client.delete(kinds.NODE, "n1")
        await lab.until(lambda: lab.events("RemovingNode"))
        assert lab.events("RemovingNode")[0]["message"] == "Node n1 event: Removing Node n1 from Controller"
        spec = {"containers": [{"name": "c", "image": "i"}]}
        await lab.create(obj("v1", "Pod", "p", metadata={"labels": {"app": "web"}}, spec=spec))
        for name in ("a", "b"):
            spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
            await lab.create(obj("policy/v1", "PodDisruptionBudget", name, spec=spec))
        await lab.until(lambda: lab.events("MultiplePodDisruptionBudgets"))
        (told,) = lab.events("MultiplePodDisruptionBudgets")
        assert told["involvedObject"]["name"] == "p"
