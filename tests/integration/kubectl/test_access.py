"""Who may what: certificates, tokens, roles, impersonation, reviews, certificate requests."""

from __future__ import annotations

import base64
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.apiserver_process import ApiServerProcess
from tests.support.kubectl import Kubectl


def test_can_i_and_whoami(kubectl: Kubectl) -> None:
    assert kubectl("auth", "can-i", "create", "pods") == "yes\n"
    assert "kubernetes-admin" in kubectl("auth", "whoami")
    assert "*.*" in kubectl("auth", "can-i", "--list")


def test_impersonation_is_judged_by_the_roles_of_the_other(kubectl: Kubectl) -> None:
    assert kubectl.run("auth", "can-i", "get", "pods", "--as=jane").stdout == "no\n"
    kubectl("create", "rolebinding", "view", "--clusterrole=view", "--user=jane")
    assert kubectl("auth", "can-i", "get", "pods", "--as=jane") == "yes\n"
    assert kubectl.run("auth", "can-i", "delete", "pods", "--as=jane").stdout == "no\n"
    assert kubectl.run("auth", "can-i", "get", "secrets", "--as=jane").stdout == "no\n"
    complaint = kubectl.fails("get", "secrets", "--as=jane")
    assert 'User "jane" cannot list resource "secrets" in API group ""' in complaint


def test_a_service_account_token_works_until_its_account_is_gone(
    server: ApiServerProcess, kubectl: Kubectl, tmp_path: Path
) -> None:
    kubectl("create", "sa", "robot")
    kubectl("create", "rolebinding", "rb", "--clusterrole=edit", f"--serviceaccount={kubectl.namespace}:robot")
    token = kubectl("create", "token", "robot", "--duration=10m").strip()
    config = tmp_path / "robot.kubeconfig"
    config.write_text(server.kubeconfig(token=token).read_text())
    robot = Kubectl(config, kubectl.home, kubectl.namespace)
    assert f"system:serviceaccount:{kubectl.namespace}:robot" in robot("auth", "whoami")
    robot("create", "configmap", "made-by-robot")
    assert "Forbidden" in robot.fails("get", "nodes")
    assert "Forbidden" in robot.fails("get", "configmaps", "-n", "kube-system")
    assert 'cannot impersonate resource "users"' in robot.fails("get", "configmaps", "--as=kubernetes-admin")
    assert 'cannot impersonate resource "groups"' in robot.fails(
        "get", "configmaps", f"--as=system:serviceaccount:{kubectl.namespace}:robot", "--as-group=system:masters"
    )
    kubectl("delete", "sa", "robot")
    assert "logged in" in robot.fails("get", "configmaps")


def test_no_role_grants_more_than_its_author_holds(kubectl: Kubectl) -> None:
    kubectl("create", "rolebinding", "jane", "--clusterrole=admin", "--user=jane")
    kubectl("create", "role", "fine", "--verb=get", "--resource=pods", "--as=jane")
    complaint = kubectl.fails("create", "role", "more", "--verb=*", "--resource=nodes", "--as=jane")
    assert "attempting to grant RBAC permissions not currently held" in complaint
    up = ("create", "rolebinding", "up", "--clusterrole=cluster-admin", "--user=jane", "--as=jane")
    assert "not currently held" in kubectl.fails(*up)


def test_certificate_requests_are_approved_and_denied(kubectl: Kubectl) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jane")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    encoded = base64.b64encode(request.public_bytes(serialization.Encoding.PEM)).decode()
    for name in ("yes", "no"):
        text = f"""
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {{name: {kubectl.namespace}-{name}}}
spec:
  request: {encoded}
  signerName: kubernetes.io/kube-apiserver-client
  usages: [client auth]
"""
        kubectl("create", "-f", "-", stdin=text)
    kubectl("certificate", "approve", f"{kubectl.namespace}-yes")
    kubectl("certificate", "deny", f"{kubectl.namespace}-no")
    table = kubectl("get", "csr")
    assert "Approved" in table
    assert "Denied" in table
    assert "kubernetes-admin" in table


def test_nodes_are_cordoned_tainted_and_drained(admin: Kubectl) -> None:
    admin("create", "-f", "-", stdin="apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n")
    admin("cordon", "n1")
    assert "SchedulingDisabled" in admin("get", "nodes")
    admin("uncordon", "n1")
    admin("taint", "node", "n1", "key=value:NoSchedule")
    assert admin.json("get", "node", "n1")["spec"]["taints"][0]["key"] == "key"
    admin("taint", "node", "n1", "key-")
    admin("label", "node", "n1", "zone=a")
    assert "drained" in admin("drain", "n1", "--timeout=10s")
    assert "Taints" in admin("describe", "node", "n1")
    admin("delete", "node", "n1")


def test_auth_reconcile(kubectl: Kubectl) -> None:
    text = f"""
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: r, namespace: {kubectl.namespace}}}
rules: [{{apiGroups: [""], resources: [pods], verbs: [get]}}]
"""
    assert "reconciled" in kubectl("auth", "reconcile", "-f", "-", stdin=text)


def test_a_token_that_proves_nothing_is_refused(server: ApiServerProcess, tmp_path: Path) -> None:
    stranger = Kubectl(server.kubeconfig(token="garbage"), tmp_path)
    assert "logged in" in stranger.fails("get", "pods")
