"""What kubectl does besides the first steps: pruning, folders, generators, refusals in upstream's words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.kubectl import Kubectl

MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{set: p}}}}\ndata: {{a: b}}\n"


def write(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.yaml").write_text(MAP.format(name=name))
    return folder


def names(kubectl: Kubectl) -> set[str]:
    return {line.partition("/")[2] for line in kubectl("get", "cm", "-l", "set=p", "-o", "name").split()}


def test_apply_prunes_by_selector(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl("apply", "-f", str(write(tmp_path, "a", "b")))
    (tmp_path / "b.yaml").unlink()
    out = kubectl("apply", "-f", str(tmp_path), "--prune", "-l", "set=p", "--prune-allowlist=core/v1/ConfigMap")
    assert "configmap/b pruned" in out
    assert names(kubectl) == {"a"}


def test_apply_prunes_by_applyset(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl.environment["KUBECTL_APPLYSET"] = "true"
    flags = ("--server-side", "--prune", "--applyset=mine")
    kubectl("apply", "-f", str(write(tmp_path, "a", "b")), *flags)
    (tmp_path / "b.yaml").unlink()
    assert "configmap/b pruned" in kubectl("apply", "-f", str(tmp_path), *flags)
    assert names(kubectl) == {"a"}
    parent = json.loads(kubectl("get", "secret", "mine", "-o", "json"))["metadata"]
    assert parent["annotations"]["applyset.kubernetes.io/contains-group-kinds"] == "ConfigMap"


def test_folders_are_gone_through_and_one_bad_file_stops_no_other(kubectl: Kubectl, tmp_path: Path) -> None:
    write(tmp_path, "a")
    write(tmp_path / "below", "b")
    (tmp_path / "below" / "c.yaml").write_text(MAP.format(name="c").replace("\ndata:", "\ndataa:"))
    done = kubectl.run("apply", "-R", "-f", str(tmp_path))
    assert done.returncode == 1
    assert 'strict decoding error: unknown field "dataa"' in done.stderr
    assert names(kubectl) == {"a", "b"}
    warned = kubectl.run("create", "--validate=warn", "-f", str(tmp_path / "below" / "c.yaml"))
    assert 'Warning: unknown field "dataa"' in warned.stderr
    assert "deleted" in kubectl("delete", "-R", "-f", str(tmp_path), "--now")
    assert names(kubectl) == set()


@pytest.mark.parametrize(
    ("arguments", "path", "value"),
    [
        (("service", "nodeport", "x", "--tcp=80:8080"), "{.spec.ports[0].targetPort}", "8080"),
        (("service", "externalname", "x", "--external-name=a.b"), "{.spec.externalName}", "a.b"),
        (("quota", "x", "--hard=pods=1,cpu=2", "--scopes=NotTerminating"), "{.spec.scopes[0]}", "NotTerminating"),
        (("pdb", "x", "--selector=a=b", "--min-available=50%"), "{.spec.minAvailable}", "50%"),
        (("ingress", "x", "--rule=a.b/c*=s:80,tls=t"), "{.spec.rules[0].http.paths[0].pathType}", "Prefix"),
        (("cronjob", "x", "--image=i", "--schedule=@daily"), "{.spec.concurrencyPolicy}", "Allow"),
        (("job", "x", "--image=i", "--", "true"), "{.spec.backoffLimit}", "6"),
        (("role", "x", "--verb=get", "--resource=pods/log"), "{.rules[0].resources[0]}", "pods/log"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_generators(kubectl: Kubectl, arguments: tuple[str, ...], path: str, value: str) -> None:
    kubectl("create", *arguments)
    kind = {"service": "service"}.get(arguments[0], arguments[0])
    assert kubectl("get", kind, "x", "-o", f"jsonpath={path}") == value


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("get", "nosuch"), 'the server doesn\'t have a resource type "nosuch"'),
        (("get", "pods", "none"), 'pods "none" not found'),
        (("get", "pods", "--field-selector=foo=bar"), "field label not supported: foo"),
        (("run", "bad_name", "--image=x"), "a lowercase RFC 1123 subdomain must consist of"),
        (("create", "namespace", "default"), 'namespaces "default" already exists'),
        (("create", "cronjob", "x", "--image=i", "--schedule=bad"), "expected exactly 5 fields, found 1: [bad]"),
        (("explain", "pods.nosuch"), 'field "nosuch" does not exist'),
        (("create", "token", "default", "--bound-object-kind=Pod", "--bound-object-name=p"), 'pods "p" not found'),
        (("get", "pods", "--as=jane"), 'User "jane" cannot list resource "pods" in API group ""'),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_refusals(kubectl: Kubectl, arguments: tuple[str, ...], complaint: str) -> None:
    assert complaint in kubectl.fails(*arguments)


def test_explain_in_both_forms_and_all_of_it(kubectl: Kubectl) -> None:
    assert "RESOURCE: spec <Object>" in kubectl("explain", "pods.spec", "--output=plaintext-openapiv2")
    assert "    request\t<string>" in kubectl("explain", "pods.spec.containers.resources", "--recursive")
    assert "VERSION:    v1" in kubectl("explain", "hpa", "--api-version=autoscaling/v1")


def test_a_pod_is_debugged_with_another_container_and_as_a_copy(kubectl: Kubectl) -> None:
    kubectl("run", "web", "--image=nginx")
    kubectl("debug", "web", "--image=busybox", "--target=web", "-c", "dbg")
    containers = "jsonpath={.spec.ephemeralContainers[*].name}"
    assert kubectl("get", "pod", "web", "-o", containers) == "dbg"
    kubectl("debug", "web", "--image=busybox", "--copy-to=copy", "-c", "dbg", "--profile=general")
    assert kubectl("get", "pod", "copy", "-o", "jsonpath={.spec.containers[*].name}") == "web dbg"


def test_rights_are_listed_and_reconciled(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl("create", "role", "r", "--verb=get,list", "--resource=pods")
    kubectl("create", "rolebinding", "b", "--role=r", "--user=jane")
    listed = kubectl("auth", "can-i", "--list", "--as=jane")
    assert "selfsubjectaccessreviews.authorization.k8s.io" in listed
    assert ["pods", "[]", "[]", "[get", "list]"] in [line.split() for line in listed.splitlines()]
    role = tmp_path / "role.json"
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "delete"]}]
    metadata = {"name": "r", "namespace": kubectl.namespace}
    body = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules}
    role.write_text(json.dumps(body))
    assert "missing rules added" in kubectl.run("auth", "reconcile", "-f", str(role)).stderr
    removing = ("auth", "reconcile", "-f", str(role), "--remove-extra-permissions")
    assert "extra rules removed" in kubectl.run(*removing).stderr
    assert kubectl.run("auth", "can-i", "list", "pods", "--as=jane").stdout == "no\n"


COSTLY = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: costly.rules.test}
spec:
  group: rules.test
  scope: Namespaced
  names: {plural: costly, singular: costly, kind: Costly}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          names:
            type: array
            MAX
            items: {type: string, maxLength: 20}
            x-kubernetes-validations: [{rule: "self.all(a, self.exists_one(b, a == b))"}]
"""


def test_rules_that_could_cost_too_much_are_refused_with_a_hint(admin: Kubectl) -> None:
    refused = admin.run("apply", "-f", "-", stdin=COSTLY.replace("MAX", ""))
    assert "estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule" in refused.stderr
    try:
        assert "created" in admin("apply", "-f", "-", stdin=COSTLY.replace("MAX", "maxItems: 200"))
    finally:
        admin("delete", "crd", "costly.rules.test", "--ignore-not-found")
