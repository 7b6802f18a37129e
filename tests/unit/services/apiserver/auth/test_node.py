"""A kubelet reaches what its own pods refer to, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from services.apiserver.auth.attributes import Attributes
from services.apiserver.auth.rbac import Authorizer
from services.apiserver.request import User

N1 = User("system:node:n1", groups=("system:nodes", "system:authenticated"))
N2 = User("system:node:n2", groups=("system:nodes", "system:authenticated"))


def pod(name: str, node: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "a", "name": name, "uid": f"uid-{name}"}, "spec": {"nodeName": node, **spec}}


def may(authorizer: Authorizer, user: User, verb: str, resource: str, name: str = "", **more: str) -> bool:
    resource, _, subresource = resource.partition("/")
    namespace = more.get("namespace", "a")
    attrs = Attributes(
        user, verb, more.get("group", ""), "v1", resource, subresource, namespace, name, "", more.get("fields", "")
    )
    return authorizer.authorize(attrs).allowed


def test_secrets_and_config_maps_in_every_place_of_a_pod() -> None:
    authorizer = Authorizer()
    spec = {
        "serviceAccountName": "robot",
        "imagePullSecrets": [{"name": "pull"}],
        "initContainers": [{"envFrom": [{"secretRef": {"name": "env"}}]}],
        "containers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "key"}}}]}],
        "volumes": [
            {"secret": {"secretName": "vol"}},
            {"projected": {"sources": [{"configMap": {"name": "proj"}}]}},
            {"persistentVolumeClaim": {"claimName": "data"}},
        ],
    }
    authorizer.changed("pods", None, pod("web", "n1", **spec))
    for name in ("pull", "env", "vol"):
        assert may(authorizer, N1, "get", "secrets", name)
        assert not may(authorizer, N2, "get", "secrets", name)
        assert not may(authorizer, N1, "get", "secrets", name, namespace="b")
    for name in ("key", "proj"):
        assert may(authorizer, N1, "watch", "configmaps", name)
    assert may(authorizer, N1, "create", "serviceaccounts/token", "robot")
    assert not may(authorizer, N1, "create", "serviceaccounts/token", "other")
    assert may(authorizer, N1, "get", "persistentvolumeclaims", "data")
    assert may(authorizer, N1, "watch", "secrets", fields="metadata.name=vol")
    assert not may(authorizer, N1, "watch", "secrets", fields="metadata.name=other")
    assert not may(authorizer, N1, "list", "secrets")
    assert not may(authorizer, N1, "update", "secrets", "vol")


def test_the_right_goes_with_the_last_pod() -> None:
    authorizer = Authorizer()
    volumes = [{"secret": {"secretName": "s"}}]
    one, two = pod("one", "n1", volumes=volumes), pod("two", "n1", volumes=volumes)
    authorizer.changed("pods", None, one)
    authorizer.changed("pods", None, two)
    authorizer.changed("pods", one, None)
    assert may(authorizer, N1, "get", "secrets", "s")
    authorizer.changed("pods", two, None)
    assert not may(authorizer, N1, "get", "secrets", "s")


def test_a_pod_counts_from_when_it_is_bound() -> None:
    authorizer = Authorizer()
    volumes = [{"secret": {"secretName": "s"}}]
    pending = pod("web", "", volumes=volumes)
    authorizer.changed("pods", None, pending)
    assert not may(authorizer, N1, "get", "secrets", "s")
    authorizer.changed("pods", pending, pod("web", "n1", volumes=volumes))
    assert may(authorizer, N1, "get", "secrets", "s")


def test_a_volume_is_reached_through_the_claim_that_is_bound_to_it() -> None:
    authorizer = Authorizer()
    authorizer.changed("pods", None, pod("web", "n1", volumes=[{"persistentVolumeClaim": {"claimName": "data"}}]))
    assert not may(authorizer, N1, "get", "persistentvolumes", "pv1", namespace="")
    claim = {"metadata": {"namespace": "a", "name": "data"}, "spec": {"volumeName": "pv1"}}
    authorizer.changed("persistentvolumeclaims", None, claim)
    assert may(authorizer, N1, "get", "persistentvolumes", "pv1", namespace="")
    assert not may(authorizer, N2, "get", "persistentvolumes", "pv1", namespace="")


@pytest.mark.parametrize(
    ("verb", "resource", "name", "more", "allowed"),
    [
        ("get", "nodes", "n1", {"namespace": ""}, True),
        ("get", "nodes", "n2", {"namespace": ""}, False),
        ("list", "nodes", "", {"namespace": ""}, False),
        ("watch", "nodes", "", {"namespace": "", "fields": "metadata.name=n1"}, True),
        ("patch", "nodes/status", "n1", {"namespace": ""}, True),
        ("patch", "nodes/status", "n2", {"namespace": ""}, False),
        ("delete", "nodes", "n1", {"namespace": ""}, False),
        ("create", "nodes", "", {"namespace": ""}, True),
        ("list", "pods", "", {"fields": "spec.nodeName=n1"}, True),
        ("list", "pods", "", {"fields": "spec.nodeName=n2"}, False),
        ("list", "pods", "", {}, False),
        ("patch", "pods/status", "mine", {}, True),
        ("patch", "pods/status", "other", {}, False),
        ("delete", "pods", "mine", {}, True),
        ("update", "pods", "mine", {}, False),
        ("create", "pods/exec", "mine", {}, False),
        ("update", "leases", "n1", {"group": "coordination.k8s.io", "namespace": "kube-node-lease"}, True),
        ("update", "leases", "n2", {"group": "coordination.k8s.io", "namespace": "kube-node-lease"}, False),
        ("update", "leases", "n1", {"group": "coordination.k8s.io", "namespace": "kube-system"}, False),
        ("create", "events", "", {}, True),
        ("get", "deployments", "x", {"group": "apps"}, False),
    ],
)
def test_what_is_a_nodes_own(verb: str, resource: str, name: str, more: dict[str, str], allowed: bool) -> None:
    authorizer = Authorizer()
    authorizer.changed("pods", None, pod("mine", "n1"))
    authorizer.changed("pods", None, pod("other", "n2"))
    assert may(authorizer, N1, verb, resource, name, **more) is allowed


def test_the_name_alone_makes_no_node() -> None:
    impostor = User("system:node:n1", groups=("system:authenticated",))
    assert not may(Authorizer(), impostor, "get", "nodes", "n1", namespace="")
