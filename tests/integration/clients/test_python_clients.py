"""The Python client libraries, unmodified."""

import threading

import kubernetes
import lightkube
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap, Namespace


def test_the_official_client_creates_watches_patches_and_deletes(cutaway_cluster, cutaway_namespace):
    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(str(cutaway_cluster.kubeconfig), client_configuration=configuration)
    api = kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(configuration))
    seen = []
    began = api.list_namespaced_config_map(cutaway_namespace).metadata.resource_version

    def watch():
        stream = kubernetes.watch.Watch().stream(
            api.list_namespaced_config_map, cutaway_namespace, resource_version=began, timeout_seconds=20
        )
        for event in stream:
            if event["object"].metadata.name == "a":
                seen.append(event["type"])
                if event["type"] == "DELETED":
                    return

    watcher = threading.Thread(target=watch)
    watcher.start()
    api.create_namespaced_config_map(cutaway_namespace, {"metadata": {"name": "a"}, "data": {"k": "1"}})
    api.patch_namespaced_config_map("a", cutaway_namespace, {"data": {"k": "2"}})
    assert api.read_namespaced_config_map("a", cutaway_namespace).data == {"k": "2"}
    api.delete_namespaced_config_map("a", cutaway_namespace)
    watcher.join(timeout=30)
    assert seen == ["ADDED", "MODIFIED", "DELETED"]


def test_the_official_client_finds_every_group_and_version(cutaway_cluster):
    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(str(cutaway_cluster.kubeconfig), client_configuration=configuration)
    dynamic = kubernetes.dynamic.DynamicClient(kubernetes.client.ApiClient(configuration))
    deployments = dynamic.resources.get(api_version="apps/v1", kind="Deployment")
    assert deployments.namespaced
    assert "scale" in deployments.subresources


def test_lightkube_applies_and_lists(cutaway_cluster, cutaway_namespace, monkeypatch):
    config = lightkube.KubeConfig.from_file(str(cutaway_cluster.kubeconfig))
    client = lightkube.Client(config=config, namespace=cutaway_namespace, field_manager="test")
    client.apply(ConfigMap(metadata=ObjectMeta(name="a"), data={"k": "v"}))
    assert {c.metadata.name for c in client.list(ConfigMap)} >= {"a"}
    assert client.get(Namespace, cutaway_namespace).status.phase == "Active"
