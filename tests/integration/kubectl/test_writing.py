"""kubectl's writing commands, unmodified, against the real apiserver."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.kubectl import Kubectl


def test_apply_creates_then_finds_nothing_to_do_then_changes(kubectl: Kubectl, manifest: Path) -> None:
    assert kubectl("apply", "-f", str(manifest)) == "deployment.apps/web created\nservice/web created\n"
    assert kubectl("apply", "-f", str(manifest)) == "deployment.apps/web unchanged\nservice/web unchanged\n"
    manifest.write_text(manifest.read_text().replace("replicas: 3", "replicas: 5"))
    assert kubectl("apply", "-f", str(manifest)) == "deployment.apps/web configured\nservice/web unchanged\n"
    assert kubectl.json("get", "deployment", "web")["spec"]["replicas"] == 5


def test_apply_removes_a_field_that_left_the_manifest(kubectl: Kubectl, manifest: Path) -> None:
    kubectl("apply", "-f", str(manifest))
    manifest.write_text(manifest.read_text().replace(", ports: [{containerPort: 80}]", ""))
    kubectl("apply", "-f", str(manifest))
    assert "ports" not in kubectl.json("get", "deployment", "web")["spec"]["template"]["spec"]["containers"][0]


def test_server_side_apply_conflicts_until_it_is_forced(kubectl: Kubectl, manifest: Path) -> None:
    kubectl("apply", "--server-side", "-f", str(manifest))
    manifest.write_text(manifest.read_text().replace("replicas: 3", "replicas: 4"))
    complaint = kubectl.fails("apply", "--server-side", "--field-manager=other", "-f", str(manifest))
    assert "conflict" in complaint
    assert ".spec.replicas" in complaint
    kubectl("apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", str(manifest))
    assert kubectl.json("get", "deployment", "web")["spec"]["replicas"] == 4


def test_diff_shows_what_apply_would_change(kubectl: Kubectl, manifest: Path) -> None:
    kubectl("apply", "-f", str(manifest))
    assert kubectl("diff", "-f", str(manifest)) == ""
    manifest.write_text(manifest.read_text().replace("nginx:1.25", "nginx:1.26"))
    done = kubectl.run("diff", "-f", str(manifest))
    assert done.returncode == 1
    assert "+      - image: nginx:1.26" in done.stdout


def test_a_dry_run_changes_nothing(kubectl: Kubectl, manifest: Path) -> None:
    assert "created (server dry run)" in kubectl("apply", "--dry-run=server", "-f", str(manifest))
    assert "NotFound" in kubectl.fails("get", "deployment", "web")


def test_prune_deletes_what_is_no_longer_in_the_files(kubectl: Kubectl, manifest: Path, tmp_path: Path) -> None:
    kubectl("apply", "-f", str(manifest))
    only = tmp_path / "only.yaml"
    only.write_text(manifest.read_text().split("---")[0])
    out = kubectl("apply", "-f", str(only), "--prune", "-l", "app=web", "--prune-allowlist=core/v1/Service")
    assert "service/web pruned" in out


def test_replace_and_replace_force(kubectl: Kubectl, manifest: Path) -> None:
    kubectl("create", "-f", str(manifest))
    assert "deployment.apps/web replaced" in kubectl("replace", "-f", str(manifest))
    before = kubectl.json("get", "deployment", "web")["metadata"]["uid"]
    kubectl("replace", "--force", "-f", str(manifest))
    assert kubectl.json("get", "deployment", "web")["metadata"]["uid"] != before


@pytest.mark.parametrize(
    ("arguments", "kind", "name"),
    [
        (("deployment", "d", "--image=nginx", "--replicas=2", "--port=80"), "deployment", "d"),
        (("configmap", "c", "--from-literal=a=b"), "configmap", "c"),
        (("secret", "generic", "s", "--from-literal=a=b"), "secret", "s"),
        (("secret", "docker-registry", "dr", "--docker-username=u", "--docker-password=p"), "secret", "dr"),
        (("serviceaccount", "robot"), "serviceaccount", "robot"),
        (("job", "j", "--image=busybox", "--", "true"), "job", "j"),
        (("cronjob", "cj", "--image=busybox", "--schedule=*/5 * * * *"), "cronjob", "cj"),
        (("role", "r", "--verb=get,list", "--resource=pods"), "role", "r"),
        (("rolebinding", "rb", "--clusterrole=view", "--user=jane"), "rolebinding", "rb"),
        (("quota", "q", "--hard=pods=10,cpu=2"), "resourcequota", "q"),
        (("poddisruptionbudget", "p", "--selector=a=b", "--min-available=50%"), "pdb", "p"),
        (("ingress", "i", "--rule=a.example/x*=svc:80,tls=cert"), "ingress", "i"),
        (("service", "clusterip", "svc", "--tcp=80:8080"), "service", "svc"),
        (("service", "nodeport", "np", "--tcp=80"), "service", "np"),
        (("service", "loadbalancer", "lb", "--tcp=80"), "service", "lb"),
        (("service", "externalname", "en", "--external-name=a.example"), "service", "en"),
    ],
)
def test_create_makes_every_kind_that_it_has_a_command_for(
    kubectl: Kubectl, arguments: tuple[str, ...], kind: str, name: str
) -> None:
    wanted = json.loads(kubectl("create", *arguments[:2], "--dry-run=client", "-o", "json", *arguments[2:]))
    kubectl("create", *arguments)
    found = kubectl.json("get", kind, name)
    assert _contains(found, wanted), (wanted, found)


def _contains(found: object, wanted: object) -> bool:
    """Whether everything that was sent is there; nulls and empty things mean nothing was said."""
    if isinstance(wanted, dict):
        return all(
            value in (None, {}, [], "") or (isinstance(found, dict) and _contains(found.get(key), value))
            for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(_contains, found, wanted))
    return found == wanted


def test_cluster_scoped_kinds(admin: Kubectl) -> None:
    admin("create", "clusterrole", "reader", "--verb=get", "--resource=nodes")
    admin("create", "clusterrolebinding", "readers", "--clusterrole=reader", "--group=dev")
    admin("create", "priorityclass", "high", "--value=1000", "--description=for the important")
    assert admin("get", "clusterrolebinding", "readers", "-o", "jsonpath={.roleRef.name}") == "reader"
    for kind, name in (("clusterrole", "reader"), ("clusterrolebinding", "readers"), ("priorityclass", "high")):
        admin("delete", kind, name)


@pytest.mark.parametrize(
    ("patch_type", "patch"),
    [
        ("strategic", '{"spec":{"template":{"spec":{"containers":[{"name":"nginx","image":"nginx:9"}]}}}}'),
        ("merge", '{"spec":{"template":{"spec":{"containers":[{"name":"nginx","image":"nginx:9"}]}}}}'),
        ("json", '[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"nginx:9"}]'),
    ],
)
def test_patch_in_each_form(kubectl: Kubectl, manifest: Path, patch_type: str, patch: str) -> None:
    kubectl("apply", "-f", str(manifest))
    kubectl("patch", "deployment", "web", f"--type={patch_type}", "-p", patch)
    container = kubectl.json("get", "deployment", "web")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "nginx:9"
    assert ("ports" in container) is (patch_type != "merge")


def test_subresources_by_patch(kubectl: Kubectl, manifest: Path) -> None:
    kubectl("apply", "-f", str(manifest))
    kubectl("patch", "deployment", "web", "--subresource=scale", "--type=merge", "-p", '{"spec":{"replicas":7}}')
    status = '{"status":{"replicas":7},"spec":{"replicas":1}}'
    kubectl("patch", "deployment", "web", "--subresource=status", "--type=merge", "-p", status)
    found = kubectl.json("get", "deployment", "web")
    assert (found["spec"]["replicas"], found["status"]["replicas"]) == (7, 7)


def test_label_annotate_scale_set_expose_autoscale(kubectl: Kubectl, manifest: Path) -> None:
    kubectl("apply", "-f", str(manifest))
    kubectl("label", "deployment", "web", "tier=front")
    assert "--overwrite is false" in kubectl.fails("label", "deployment", "web", "tier=back")
    kubectl("label", "deployment", "web", "tier-")
    kubectl("annotate", "deployment", "web", "note=x")
    kubectl("scale", "deployment", "web", "--replicas=4")
    assert "Expected replicas to be 9" in kubectl.fails(
        "scale", "deploy", "web", "--replicas=1", "--current-replicas=9"
    )
    kubectl("set", "image", "deployment/web", "nginx=nginx:2")
    kubectl("set", "env", "deployment/web", "A=b")
    kubectl("set", "resources", "deployment/web", "--limits=cpu=200m,memory=1Gi")
    kubectl("set", "serviceaccount", "deployment/web", "robot")
    kubectl("expose", "deployment", "web", "--name=web2", "--port=80", "--target-port=8080", "--type=NodePort")
    kubectl("autoscale", "deployment", "web", "--min=1", "--max=5", "--cpu=80%")
    found = kubectl.json("get", "deployment", "web")
    spec = found["spec"]["template"]["spec"]
    assert found["metadata"]["annotations"]["note"] == "x"
    assert found["spec"]["replicas"] == 4
    assert spec["containers"][0]["image"] == "nginx:2"
    assert spec["containers"][0]["env"] == [{"name": "A", "value": "b"}]
    assert spec["containers"][0]["resources"]["limits"] == {"cpu": "200m", "memory": "1Gi"}
    assert spec["serviceAccountName"] == "robot"
    assert 30000 <= kubectl.json("get", "service", "web2")["spec"]["ports"][0]["nodePort"] <= 32767
    assert kubectl.json("get", "hpa", "web")["spec"]["maxReplicas"] == 5


def test_edit_saves_what_the_editor_wrote(kubectl: Kubectl, manifest: Path) -> None:
    kubectl("apply", "-f", str(manifest))
    editor = manifest.parent / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/replicas: 3/replicas: 6/' \"$1\"\n")
    editor.chmod(0o755)
    kubectl.environment["KUBE_EDITOR"] = str(editor)
    kubectl("edit", "deployment", "web")
    assert kubectl.json("get", "deployment", "web")["spec"]["replicas"] == 6


def test_run_and_delete_with_and_without_grace(kubectl: Kubectl) -> None:
    kubectl("run", "box", "--image=busybox", "--restart=Never", "--", "sleep", "60")
    assert kubectl.json("get", "pod", "box")["spec"]["containers"][0]["args"] == ["sleep", "60"]
    kubectl("delete", "pod", "box", "--now")
    assert "NotFound" in kubectl.fails("get", "pod", "box")


def test_rollout_pause_resume_restart_history(kubectl: Kubectl, manifest: Path) -> None:
    kubectl("apply", "-f", str(manifest))
    kubectl("rollout", "pause", "deployment/web")
    assert kubectl.json("get", "deployment", "web")["spec"]["paused"] is True
    kubectl("rollout", "resume", "deployment/web")
    kubectl("rollout", "restart", "deployment/web")
    template = kubectl.json("get", "deployment", "web")["spec"]["template"]["metadata"]
    assert "kubectl.kubernetes.io/restartedAt" in template["annotations"]
    assert "deployment.apps/web" in kubectl("rollout", "history", "deployment/web")
    assert "timed out" in kubectl.fails("rollout", "status", "deployment/web", "--timeout=1s")


def test_delete_by_selector_by_file_and_all(kubectl: Kubectl, manifest: Path) -> None:
    kubectl("apply", "-f", str(manifest))
    kubectl("create", "configmap", "a")
    kubectl("create", "configmap", "b")
    kubectl("label", "configmap", "a", "x=y")
    assert '"a" deleted' in kubectl("delete", "configmap", "-l", "x=y")
    assert '"b" deleted' in kubectl("delete", "configmap", "--all")
    assert "deleted" in kubectl("delete", "-f", str(manifest), "--wait=false")
    assert kubectl("delete", "service", "web", "--ignore-not-found") == ""


def test_kustomize(kubectl: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [cm.yaml]\nnamePrefix: x-\n")
    (tmp_path / "cm.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: v}\n")
    assert kubectl("apply", "-k", str(tmp_path)) == "configmap/x-a created\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndta: {}\n", 'unknown field "dta"'),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Upper}\n", "lowercase RFC 1123"),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: 99999}]}\n", "spec.ports[0].port"),
        ("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {}\n", "spec.selector"),
        ("apiVersion: v1\nkind: Nothing\nmetadata: {name: x}\n", 'no matches for kind "Nothing"'),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: []}\n", "spec.containers"),
    ],
)
def test_a_bad_manifest_is_refused_with_its_field(kubectl: Kubectl, text: str, words: str) -> None:
    assert words in kubectl.fails("apply", "-f", "-", stdin=text)


def test_validation_can_be_a_warning_or_off(kubectl: Kubectl) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndta: {}\n"
    done = kubectl.run("create", "--validate=warn", "-f", "-", stdin=text)
    assert done.returncode == 0
    assert 'Warning: unknown field "dta"' in done.stderr
    assert kubectl.run("replace", "--validate=ignore", "-f", "-", stdin=text).stderr == ""
