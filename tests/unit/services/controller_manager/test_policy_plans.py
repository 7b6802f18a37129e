"""Budgets, quotas, certificate requests, roles, load balancer addresses, garbage."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from machinery.api import kinds
from machinery.api.kinds import Kind
from services.controller_manager.controllers.cluster_role_aggregation.controller import plan as aggregate
from services.controller_manager.controllers.csr import plan as csr
from services.controller_manager.controllers.csr import request
from services.controller_manager.controllers.disruption import plan as disruption
from services.controller_manager.controllers.garbage_collector import plan as garbage
from services.controller_manager.controllers.garbage_collector.graph import Graph
from services.controller_manager.controllers.load_balancer import plan as balancer
from services.controller_manager.controllers.resource_quota.usage import Contents, used
from services.controller_manager.views.cluster import QuotaSpec
from services.controller_manager.views.meta import Meta, OwnerReference
from services.controller_manager.views.pod import NodeAddress
from tests.support.controllers import at, pod_template
from tests.support.plan_world import World

# --- budgets ----------------------------------------------------------------------------------------------------------


def budget(**spec: Any) -> dict[str, Any]:
    body = {"selector": {"matchLabels": {"app": "web"}}, **spec}
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"}, "spec": body}


def pods(world: World, ready: int, waiting: int = 0) -> None:
    for number in range(ready + waiting):
        body = pod_template({"app": "web"})
        world.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"p{number}"}, "spec": body["spec"]})
        if number < ready:
            world.run_pod(f"p{number}")


@pytest.mark.parametrize(
    ("spec", "ready", "expected", "allowed"),
    [
        ({"minAvailable": 2}, 3, 3, 1),
        ({"minAvailable": "50%"}, 4, 5, 1),
        ({"maxUnavailable": 1}, 5, 5, 1),
        ({"maxUnavailable": "50%"}, 3, 5, 1),
        ({"maxUnavailable": 0}, 5, 5, 0),
        ({"minAvailable": 0}, 2, 2, 2),
    ],
)
def test_a_budget_allows_what_is_left_above_its_limit(spec: Any, ready: int, expected: int, allowed: int) -> None:
    world = World()
    world.create(budget(**spec))
    pods(world, ready, expected - ready)
    plan = disruption.plan(world.view(kinds.POD_DISRUPTION_BUDGET, "b"), world.pods(), expected, world.now)
    world.apply(plan.actions)
    status = world.view(kinds.POD_DISRUPTION_BUDGET, "b").status
    assert status["disruptionsAllowed"] == allowed
    condition = status["conditions"][0]
    assert condition["reason"] == ("SufficientPods" if allowed else "InsufficientPods")


def test_an_allowed_eviction_counts_until_it_shows_or_is_given_up() -> None:
    world = World()
    world.create(budget(minAvailable=1))
    pods(world, 3)
    moment = world.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    world.patch(kinds.POD_DISRUPTION_BUDGET, "b", {"status": {"disruptedPods": {"p0": moment}}}, "status")
    for seconds, allowed in ((0, 1), (121, 2)):
        world.advance(seconds)
        told = disruption.not_deleted(world.view(kinds.POD_DISRUPTION_BUDGET, "b"), world.pods(), world.now)
        assert [(pod.metadata.name, said.reason) for pod, said in told] == ([("p0", "NotDeleted")] if seconds else [])
        plan = disruption.plan(world.view(kinds.POD_DISRUPTION_BUDGET, "b"), world.pods(), 3, world.now)
        world.apply(plan.actions)
        assert world.view(kinds.POD_DISRUPTION_BUDGET, "b").status["disruptionsAllowed"] == allowed


def test_pods_that_nobody_replaces_allow_nothing_by_percentage() -> None:
    world = World()
    world.create(budget(maxUnavailable=1))
    pods(world, 3)
    why = disruption.Unknown("found no controllers for pod 'p0'")
    world.apply(disruption.plan(world.view(kinds.POD_DISRUPTION_BUDGET, "b"), world.pods(), why, world.now).actions)
    status = world.view(kinds.POD_DISRUPTION_BUDGET, "b").status
    assert status["disruptionsAllowed"] == 0
    assert status["conditions"][0]["reason"] == "SyncFailed"
    (event,) = world.events
    assert (event.type, event.reason) == ("Warning", "CalculateExpectedPodCountFailed")
    assert event.message.endswith("found no controllers for pod 'p0'")


@pytest.mark.parametrize("spec", [{"maxUnavailable": 1}, {"minAvailable": "50%"}, {"minAvailable": 1}])
def test_pods_without_a_controller_are_told_of_where_owners_are_counted(spec: dict[str, Any]) -> None:
    world = World()
    world.create(budget(**spec))
    pods(world, 3)
    plan = disruption.plan(world.view(kinds.POD_DISRUPTION_BUDGET, "b"), world.pods(), 2, world.now)
    by_owners = spec != {"minAvailable": 1}
    world.apply(plan.actions)
    assert [event.reason for event in world.events] == ["UnmanagedPods"] * by_owners
    assert world.view(kinds.POD_DISRUPTION_BUDGET, "b").status["expectedPods"] == (2 if by_owners else 3)


# --- quotas -----------------------------------------------------------------------------------------------------------


def test_quota_counts_requests_limits_scopes_and_objects() -> None:
    world = World()
    for name, resources, phase in (
        ("a", {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": "1"}}, "Running"),
        ("b", {}, "Running"),
        ("c", {"requests": {"cpu": "5"}}, "Succeeded"),
    ):
        body = pod_template({})["spec"]
        body["containers"][0]["resources"] = resources
        body["initContainers"] = [{"name": "i", "resources": {"requests": {"cpu": "300m"}}}] if name == "a" else []
        world.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body})
        world.run_pod(name, phase=phase)
    contents = Contents(world.pods(), [], [], lambda resource: {"configmaps": 3, "deployments.apps": 2}[resource])
    hard = dict.fromkeys(("pods", "cpu", "requests.memory", "limits.cpu", "configmaps", "count/deployments.apps"), "10")
    assert used(QuotaSpec(hard=hard), contents) == {
        "pods": "2", "cpu": "300m", "requests.memory": "1Gi", "limits.cpu": "1", "configmaps": "3",
        "count/deployments.apps": "2",
    }  # fmt: skip
    assert used(QuotaSpec(hard={"pods": "9"}, scopes=("BestEffort",)), contents) == {"pods": "1"}


# --- certificate requests ---------------------------------------------------------------------------------------------


class Authority:
    def __init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = builder.serial_number(1).not_valid_before(at(-1000)).not_valid_after(at(10_000_000))
        self.certificate = builder.sign(key, hashes.SHA256())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        encoded = self.certificate.public_bytes(serialization.Encoding.PEM)
        self.signer = csr.Authority(encoded, pem, timedelta(hours=24))


def signing_request(
    world: World, cn: str, groups: list[str], signer: str, usages: list[str], user: str = "", dns: str = ""
) -> Any:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, cn)]
    names += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    if dns:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(dns)]), critical=False)
    pem = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(
        serialization.Encoding.PEM
    )
    spec = {"request": base64.b64encode(pem).decode(), "signerName": signer, "usages": usages,
            "username": user or cn, "groups": ["system:nodes", "system:authenticated"]}  # fmt: skip
    obj = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "r"},
        "spec": spec,
    }
    world.create(obj)
    return world.view(kinds.CERTIFICATE_SIGNING_REQUEST, "r")


_CLIENT = ["digital signature", "key encipherment", "client auth"]
_SERVER = ["digital signature", "key encipherment", "server auth"]


@pytest.mark.parametrize(
    ("cn", "groups", "user", "dns", "right"),
    [
        ("system:kube-proxy", [], "system:bootstrap:abcdef", "", "nodecomponentclient"),
        ("system:kube-dns", [], "system:kube-dns", "", "selfnodecomponentclient"),
        ("system:kube-proxy", [], "system:kube-dns", "", "nodecomponentclient"),
        ("system:kube-proxy", ["system:nodes"], "system:kube-proxy", "", None),
        ("system:kube-proxy", [], "system:kube-proxy", "kubernetes.default", None),
        ("system:ingress", [], "system:bootstrap:abcdef", "", None),
        ("kubernetes-admin", [], "kubernetes-admin", "", None),
    ],
)
def test_what_runs_beside_a_kubelet_gets_its_certificate_by_right(cn, groups, user, dns, right) -> None:
    view = signing_request(World(), cn, groups, request.CLIENT, _CLIENT, user=user, dns=dns)
    needed = csr.permission(view)
    assert (needed and needed[0]) == right


def test_a_kubelets_own_request_is_approved_by_right_and_signed_for_exactly_that() -> None:
    world = World()
    authority = Authority()
    view = signing_request(world, "system:node:n1", ["system:nodes"], request.KUBELET_CLIENT, _CLIENT)
    needed = csr.permission(view)
    assert needed is not None
    assert needed[0] == "selfnodeclient"
    assert csr.sign(view, authority.signer, world.now) == [], "nothing is signed before it is approved"
    world.apply(csr.approve(view, needed[1], world.now))
    moment = {"type": "Approved", "status": "True"}
    world.patch(kinds.CERTIFICATE_SIGNING_REQUEST, "r", {"status": {"conditions": [moment]}}, "status")
    view = world.view(kinds.CERTIFICATE_SIGNING_REQUEST, "r")
    (action,) = csr.sign(view, authority.signer, world.now)
    pem = base64.b64decode(action.patch["status"]["certificate"])
    certificate = x509.load_pem_x509_certificate(pem)
    certificate.verify_directly_issued_by(authority.certificate)
    assert certificate.not_valid_after_utc - world.now <= timedelta(hours=24)
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [oid.dotted_string for oid in purposes] == ["1.3.6.1.5.5.7.3.2"]


@pytest.mark.parametrize(
    ("cn", "groups", "signer", "usages", "dns"),
    [
        ("evil", ["system:masters"], request.CLIENT, _CLIENT, ""),
        ("system:node:n1", ["system:masters"], request.KUBELET_CLIENT, _CLIENT, ""),
        ("system:node:n1", ["system:nodes", "system:masters"], request.KUBELET_CLIENT, _CLIENT, ""),
        ("kube-apiserver", ["system:nodes"], request.KUBELET_CLIENT, _CLIENT, ""),
        ("system:node:n1", ["system:nodes"], request.KUBELET_CLIENT, _SERVER, ""),
        ("system:node:n1", ["system:nodes"], request.KUBELET_CLIENT, [*_CLIENT, "cert sign"], ""),
        ("system:node:n1", ["system:nodes"], request.KUBELET_CLIENT, _CLIENT, "kubernetes.default"),
        ("system:node:n1", ["system:nodes"], request.KUBELET_SERVING, _SERVER, ""),
    ],
)
def test_what_a_signer_is_not_for_is_neither_approved_nor_signed(
    cn: str, groups: list[str], signer: str, usages: list[str], dns: str
) -> None:
    world = World()
    view = signing_request(world, cn, groups, signer, usages, dns=dns)
    assert csr.permission(view) is None
    assert not csr.serves_itself(view, [])
    world.patch(kinds.CERTIFICATE_SIGNING_REQUEST, "r",
                {"status": {"conditions": [{"type": "Approved", "status": "True"}]}}, "status")  # fmt: skip
    (action,) = csr.sign(world.view(kinds.CERTIFICATE_SIGNING_REQUEST, "r"), Authority().signer, world.now)
    assert action.patch["status"]["conditions"][-1]["type"] == "Failed"


def test_a_users_certificate_may_be_for_client_auth_alone() -> None:
    world, authority = World(), Authority()
    signing_request(world, "jane", ["dev"], request.CLIENT, ["client auth"])
    approved = {"status": {"conditions": [{"type": "Approved", "status": "True"}]}}
    world.patch(kinds.CERTIFICATE_SIGNING_REQUEST, "r", approved, "status")
    (action,) = csr.sign(world.view(kinds.CERTIFICATE_SIGNING_REQUEST, "r"), authority.signer, world.now)
    certificate = x509.load_pem_x509_certificate(base64.b64decode(action.patch["status"]["certificate"]))
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [oid.dotted_string for oid in purposes] == ["1.3.6.1.5.5.7.3.2"]
    # A key usage without any use would forbid even that.
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.KeyUsage)


def test_a_serving_certificate_is_only_for_the_nodes_own_names() -> None:
    for dns, own in (("n1.lan", True), ("kubernetes.default", False)):
        view = signing_request(World(), "system:node:n1", ["system:nodes"], request.KUBELET_SERVING, _SERVER, dns=dns)
        assert csr.serves_itself(view, [NodeAddress("Hostname", "n1.lan")]) is own
    stranger = signing_request(
        World(), "system:node:n1", ["system:nodes"], request.KUBELET_SERVING, _SERVER, "system:node:n2", "n1.lan"
    )
    assert not csr.serves_itself(stranger, [NodeAddress("Hostname", "n1.lan")])


# --- roles, addresses -------------------------------------------------------------------------------------------------


def test_an_aggregated_role_is_the_sum_of_those_that_it_selects() -> None:
    world = World()
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
    other = {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list"]}
    api = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole"}
    sum_of = {"clusterRoleSelectors": [{"matchLabels": {"to": "sum"}}]}
    world.create({**api, "metadata": {"name": "sum"}, "aggregationRule": sum_of, "rules": []})
    world.create({**api, "metadata": {"name": "a", "labels": {"to": "sum"}}, "rules": [rule]})
    world.create({**api, "metadata": {"name": "b", "labels": {"to": "sum"}}, "rules": [other, rule]})
    world.create(
        {**api, "metadata": {"name": "c"}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}
    )
    world.apply(aggregate(world.view(kinds.CLUSTER_ROLE, "sum"), world.views(kinds.CLUSTER_ROLE)).actions)
    assert list(world.view(kinds.CLUSTER_ROLE, "sum").rules) == [rule, other]
    assert not aggregate(world.view(kinds.CLUSTER_ROLE, "sum"), world.views(kinds.CLUSTER_ROLE)).actions


def test_load_balancers_never_share_an_address_and_wait_when_there_is_none() -> None:
    world = World()
    pool = balancer.Pool(["192.0.2.10-192.0.2.11"])

    def step(name: str) -> None:
        view = world.view(kinds.SERVICE, name)
        world.apply(balancer.plan(view, world.views(kinds.SERVICE), [], pool).actions)

    for name in ("a", "b", "c"):
        world.create(
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"type": "LoadBalancer"}}
        )
        step(name)
    found = {name: balancer.addresses(world.view(kinds.SERVICE, name)) for name in ("a", "b", "c")}
    assert found == {"a": ["192.0.2.10"], "b": ["192.0.2.11"], "c": []}
    assert world.events[-1].reason == "SyncLoadBalancerFailed"
    world.patch(kinds.SERVICE, "a", {"spec": {"type": "ClusterIP"}})
    step("a")
    step("c")
    assert balancer.addresses(world.view(kinds.SERVICE, "c")) == ["192.0.2.10"]


# --- garbage ----------------------------------------------------------------------------------------------------------

THING = Kind("example.com", "v1", "Thing", "things")


def thing(name: str, *owners: str, **rest: Any) -> Meta:
    references = tuple(OwnerReference("example.com/v1", "Thing", owner, owner, None, True) for owner in owners)
    return Meta(name=name, namespace="d", uid=name, resourceVersion="1", ownerReferences=references, **rest)


def test_the_graph_asks_about_dependents_when_their_owner_goes_and_about_owners_when_dependents_do() -> None:
    asked: list[str] = []
    orphaned: list[str] = []
    graph = Graph(asked.append, orphaned.append)
    graph.observe(THING, thing("owner"))
    graph.observe(THING, thing("child", "owner"))
    assert asked == ["child"]
    assert [node.uid for node in graph.dependents("owner")] == ["child"]
    graph.remove("owner")
    assert asked == ["child", "child"]
    graph.remove("child")
    assert not graph.nodes
    graph.observe(THING, thing("owner"))
    graph.observe(THING, thing("child", "owner"))
    asked.clear()
    waiting = thing("owner", deletionTimestamp=at(0), finalizers=("foregroundDeletion",))
    graph.observe(THING, waiting)
    assert sorted(asked) == ["child", "owner"]
    asked.clear()
    graph.remove("child")
    assert asked == ["owner"]
    graph.observe(THING, thing("other", deletionTimestamp=at(0), finalizers=("orphan",)))
    assert orphaned == ["other"]


def test_an_object_goes_only_when_its_last_owner_has() -> None:
    meta = thing("child", "a", "b")
    both = {"a": garbage.Owner.SOLID, "b": garbage.Owner.ABSENT}
    (action,) = garbage.judge(THING, meta, both, [])
    assert [ref["uid"] for ref in action.patch["metadata"]["ownerReferences"]] == ["a"]
    (action,) = garbage.judge(THING, meta, {"a": garbage.Owner.ABSENT, "b": garbage.Owner.ABSENT}, [])
    assert (action.propagation, action.uid, action.revision) == ("Background", "child", 1)
    assert garbage.judge(THING, thing("free"), {}, []) == []


def test_owners_in_a_loop_do_not_wait_for_each_other_for_ever() -> None:
    graph = Graph(lambda uid: None, lambda uid: None)
    dying = {"deletionTimestamp": at(0), "finalizers": ("foregroundDeletion",)}
    graph.observe(THING, thing("a", "b", **dying))
    graph.observe(THING, thing("b", "a"))
    actions = garbage.judge(THING, thing("b", "a"), {"a": garbage.Owner.WAITING}, graph.dependents("b"))
    assert actions[0].patch["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] is False
    assert actions[1].propagation == "Foreground"
