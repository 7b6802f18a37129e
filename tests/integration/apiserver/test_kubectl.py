"""What kubectl's users do, with the real kubectl against the real process."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.apiserver_process import ApiServerProcess

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "nginx:1", ports: [{containerPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80}]
"""


def test_apply_twice_changes_nothing(server: ApiServerProcess, namespace: str, apply: Callable[[str], str]) -> None:
    assert apply(WEB) == "deployment.apps/web created\nservice/web created\n"
    before = server.json("get", "deploy,svc", "-n", namespace)
    assert apply(WEB) == "deployment.apps/web unchanged\nservice/web unchanged\n"
    assert server.json("get", "deploy,svc", "-n", namespace) == before


def test_a_changed_spec_counts_a_generation_and_a_label_does_not(
    server: ApiServerProcess, namespace: str, apply: Callable[[str], str]
) -> None:
    apply(WEB)
    server.kubectl("label", "deploy", "web", "tier=front", "-n", namespace)
    assert server.json("get", "deploy", "web", "-n", namespace)["metadata"]["generation"] == 1
    server.kubectl("set", "image", "deploy/web", "web=nginx:2", "-n", namespace)
    found = server.json("get", "deploy", "web", "-n", namespace)
    assert found["metadata"]["generation"] == 2
    assert found["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx:2"


def test_scale_goes_through_the_subresource(
    server: ApiServerProcess, namespace: str, apply: Callable[[str], str]
) -> None:
    apply(WEB)
    server.kubectl("scale", "deploy", "web", "--replicas=7", "-n", namespace)
    assert server.json("get", "deploy", "web", "-n", namespace)["spec"]["replicas"] == 7
    refused = server.kubectl(
        "scale", "deploy", "web", "--replicas=5", "--current-replicas=3", "-n", namespace, check=False
    )
    assert "Expected replicas to be 3, was 7" in refused.stderr


def test_describe_events_and_explain_answer(
    server: ApiServerProcess, namespace: str, apply: Callable[[str], str]
) -> None:
    apply(WEB)
    assert "RollingUpdateStrategy:  25% max unavailable, 25% max surge" in (
        server.kubectl("describe", "deploy", "web", "-n", namespace).stdout
    )
    assert "maxSurge" in server.kubectl("explain", "deploy.spec.strategy.rollingUpdate").stdout
    assert "No resources found" in server.kubectl("get", "events", "-n", namespace).stderr


def test_an_unknown_field_is_refused_and_named(server: ApiServerProcess, namespace: str) -> None:
    manifest = WEB.replace("replicas: 3", "replicaz: 3")
    refused = server.kubectl("apply", "-n", namespace, "-f", "-", stdin=manifest, check=False)
    assert refused.returncode != 0
    assert 'unknown field "spec.replicaz"' in refused.stderr


def test_a_server_side_apply_conflict_names_the_other_manager(
    server: ApiServerProcess, namespace: str, apply: Callable[[str], str]
) -> None:
    arguments = ("apply", "-n", namespace, "--server-side", "-f", "-")
    server.kubectl(*arguments, "--field-manager=one", stdin=WEB)
    changed = WEB.replace("replicas: 3", "replicas: 4")
    refused = server.kubectl(*arguments, "--field-manager=two", stdin=changed, check=False)
    assert 'conflict with "one"' in refused.stderr
    assert ".spec.replicas" in refused.stderr
    server.kubectl(*arguments, "--field-manager=two", "--force-conflicts", stdin=changed)
    assert server.json("get", "deploy", "web", "-n", namespace)["spec"]["replicas"] == 4


def test_dry_run_leaves_nothing(server: ApiServerProcess, namespace: str) -> None:
    out = server.kubectl("apply", "-n", namespace, "--dry-run=server", "-f", "-", stdin=WEB)
    assert "deployment.apps/web created (server dry run)" in out.stdout
    assert server.json("get", "deploy,svc", "-n", namespace)["items"] == []


def test_a_bound_pod_waits_for_its_kubelet_and_an_unbound_one_does_not(
    server: ApiServerProcess, namespace: str, apply: Callable[[str], str]
) -> None:
    pod = "{apiVersion: v1, kind: Pod, metadata: {name: %s}, spec: {%s containers: [{name: c, image: i}]}}\n"
    apply(pod % ("free", "") + "---\n" + pod % ("bound", "nodeName: n1,"))
    server.kubectl("delete", "pod", "free", "bound", "-n", namespace, "--wait=false")
    items = server.json("get", "pods", "-n", namespace)["items"]
    assert [item["metadata"]["name"] for item in items] == ["bound"]
    assert items[0]["metadata"]["deletionGracePeriodSeconds"] == 30
    server.kubectl("delete", "pod", "bound", "-n", namespace, "--force", "--grace-period=0")
    assert server.json("get", "pods", "-n", namespace)["items"] == []


def test_a_quota_refuses_what_is_over_it(server: ApiServerProcess, namespace: str, apply: Callable[[str], str]) -> None:
    apply("{apiVersion: v1, kind: ResourceQuota, metadata: {name: q}, spec: {hard: {configmaps: '1'}}}")
    one = "{apiVersion: v1, kind: ConfigMap, metadata: {name: %s}, data: {a: b}}"
    apply(one % "first")
    refused = server.kubectl("apply", "-n", namespace, "-f", "-", stdin=one % "second", check=False)
    assert "exceeded quota: q, requested: configmaps=1, used: configmaps=1, limited: configmaps=1" in refused.stderr


def test_pod_security_refuses_and_says_why(server: ApiServerProcess, namespace: str) -> None:
    server.kubectl("label", "ns", namespace, "pod-security.kubernetes.io/enforce=baseline")
    pod = (
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {hostNetwork: true, containers: [{name: c, image: i}]}}"
    )
    refused = server.kubectl("apply", "-n", namespace, "-f", "-", stdin=pod, check=False)
    assert 'violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)' in refused.stderr


def test_a_limit_range_fills_in_and_refuses(
    server: ApiServerProcess, namespace: str, apply: Callable[[str], str]
) -> None:
    apply(
        "{apiVersion: v1, kind: LimitRange, metadata: {name: l},"
        " spec: {limits: [{type: Container, default: {cpu: 500m},"
        " defaultRequest: {cpu: 100m}, max: {cpu: '1'}}]}}"
    )
    apply("{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: i}]}}")
    resources = server.json("get", "pod", "p", "-n", namespace)["spec"]["containers"][0]["resources"]
    assert resources == {"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}}
    spec = "{containers: [{name: c, image: i, resources: {limits: {cpu: '2'}}}]}"
    big = f"{{apiVersion: v1, kind: Pod, metadata: {{name: big}}, spec: {spec}}}"
    refused = server.kubectl("apply", "-n", namespace, "-f", "-", stdin=big, check=False)
    assert "maximum cpu usage per Container is 1, but limit is 2" in refused.stderr
